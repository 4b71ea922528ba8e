"""Rows of the table, and rounds that alternate between ours and the baseline."""

from __future__ import annotations

import gc
import statistics
import time
from collections.abc import Callable
from typing import Any

ROUNDS = 7


def row(
    name: str,
    *,
    ours: list[float],
    baseline: list[float],
    unit: str,
    target: str,
    met: Callable[[float], bool],
    higher_is_better: bool = False,
    **extra: Any,
) -> dict[str, Any]:
    """One row: medians of the rounds; ``ratio`` is ours over the baseline, in the unit's own sense."""
    value, base = statistics.median(ours), statistics.median(baseline)
    ratio = value / base
    return {
        "name": name,
        "value": round(value, 4),
        "unit": unit,
        "baseline": round(base, 4),
        "ratio": round(ratio, 3),
        "target": target,
        "met": bool(met(ratio)),
        "raw": {"ours": [round(v, 4) for v in ours], "baseline": [round(v, 4) for v in baseline]},
        **extra,
    }


def absolute(name: str, *, values: list[float], unit: str, target: str, met: Callable[[float], bool]) -> dict[str, Any]:
    """A row without a baseline: a bound in the unit itself."""
    value = statistics.median(values)
    return {
        "name": name,
        "value": round(value, 3),
        "unit": unit,
        "baseline": None,
        "ratio": None,
        "target": target,
        "met": bool(met(value)),
        "raw": {"ours": [round(v, 4) for v in values]},
    }


def alternate(
    ours: Callable[[], float], baseline: Callable[[], float], rounds: int = ROUNDS
) -> tuple[list[float], list[float]]:
    """Measure both in turn, so that a slow spell of the machine hits both. One round of each warms up."""
    ours()
    baseline()
    left, right = [], []
    for _ in range(rounds):
        gc.collect()
        left.append(ours())
        right.append(baseline())
    return left, right


def per_call_us(call: Callable[[], Any], times: int) -> float:
    """Microseconds of one call, over ``times`` calls."""
    began = time.perf_counter()
    for _ in range(times):
        call()
    return (time.perf_counter() - began) / times * 1e6
