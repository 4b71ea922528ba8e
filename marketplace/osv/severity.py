"""How grave a weakness is: in four steps, from what its database says, or from its CVSS 3 vector.

Formula and steps: CVSS v3.1 specification, sections 5, 7.1 and 7.4.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, Literal, get_args

Severity = Literal["low", "medium", "high", "critical"]
SEVERITIES: tuple[Severity, ...] = get_args(Severity)
UNKNOWN: Severity = "medium"
"""What a weakness counts as that nobody has rated."""
_WORDS: Mapping[str, Severity] = {
    "low": "low",
    "moderate": "medium",
    "medium": "medium",
    "high": "high",
    "critical": "critical",
}
_WEIGHTS: Mapping[str, Mapping[str, float]] = {
    "AV": {"N": 0.85, "A": 0.62, "L": 0.55, "P": 0.2},
    "AC": {"L": 0.77, "H": 0.44},
    "UI": {"N": 0.85, "R": 0.62},
    "C": {"H": 0.56, "L": 0.22, "N": 0.0},
    "I": {"H": 0.56, "L": 0.22, "N": 0.0},
    "A": {"H": 0.56, "L": 0.22, "N": 0.0},
}
_PRIVILEGES = {"U": {"N": 0.85, "L": 0.62, "H": 0.27}, "C": {"N": 0.85, "L": 0.68, "H": 0.5}}


def severity_of(said: Mapping[str, Any]) -> tuple[Severity, str | None]:
    """The step that an OSV document gives a weakness, and its CVSS vector if it has one."""
    affected = [each for each in said.get("affected") or () if isinstance(each, Mapping)]
    listed = [each for about in (said, *affected) for each in about.get("severity") or () if isinstance(each, Mapping)]
    own = [about.get(key) for about in (said, *affected) for key in ("database_specific", "ecosystem_specific")]
    specific = [each for each in own if isinstance(each, Mapping)]
    vectors = [*(str(each.get("score", "")) for each in listed), *(str(each.get("cvss", "")) for each in specific)]
    vector = next((each[:200] for each in vectors if each.startswith("CVSS:")), None)
    for each in specific:
        word = _WORDS.get(str(each.get("severity", "")).lower())
        if word is not None:
            return word, vector
    if any(each.get("informational") for each in specific):
        return "low", vector  # nobody looks after it any more, say: a notice, not a flaw
    scores = [score for each in vectors if (score := base_score(each)) is not None]
    return (_step(max(scores)) if scores else UNKNOWN), vector


def at_least(severity: Severity, threshold: Severity) -> bool:
    """Whether the one is as grave as the other, or graver."""
    return SEVERITIES.index(severity) >= SEVERITIES.index(threshold)


def base_score(vector: str) -> float | None:
    """The base score of a CVSS 3.0 or 3.1 vector, 0.0 to 10.0; None if it is none."""
    if not vector.startswith(("CVSS:3.0/", "CVSS:3.1/")):
        return None
    metrics = dict(part.partition(":")[::2] for part in vector.split("/")[1:])
    try:
        changed = metrics["S"] == "C"
        weight = {name: values[metrics[name]] for name, values in _WEIGHTS.items()}
        privileges = _PRIVILEGES[metrics["S"]][metrics["PR"]]
    except KeyError:
        return None
    lost = 1 - (1 - weight["C"]) * (1 - weight["I"]) * (1 - weight["A"])
    impact = 7.52 * (lost - 0.029) - 3.25 * (lost - 0.02) ** 15 if changed else 6.42 * lost
    if impact <= 0:
        return 0.0
    exploitability = 8.22 * weight["AV"] * weight["AC"] * privileges * weight["UI"]
    return _rounded_up(min((1.08 if changed else 1.0) * (impact + exploitability), 10.0))


def _rounded_up(score: float) -> float:
    """To one decimal, upwards: in whole numbers, so that what floats cannot say does not add a tenth."""
    whole = round(score * 100_000)
    return whole / 100_000 if whole % 10_000 == 0 else (math.floor(whole / 10_000) + 1) / 10


def _step(score: float) -> Severity:
    return "critical" if score >= 9 else "high" if score >= 7 else "medium" if score >= 4 else "low"
