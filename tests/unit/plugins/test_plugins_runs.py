"""The runs that a tenant's events tell of."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from types import SimpleNamespace
from typing import Any

from plugins.builtin.catalog.consent.runs import runs

BEGAN = datetime(2026, 11, 23, tzinfo=UTC)


def told(*events: tuple[str, dict[str, Any]]) -> list[tuple[str, int, int | None, tuple[str, ...], str]]:
    """The runs, with minutes for moments: one event a minute."""
    stream: Any = [
        SimpleNamespace(
            type=f"plugin.{kind}", data=data, time=BEGAN + timedelta(minutes=at), metadata={"principal": "ada"}
        )
        for at, (kind, data) in enumerate(events)
    ]

    def minute(at: datetime) -> int:
        return round((at - BEGAN).total_seconds() / 60)

    return [
        (r.version, minute(r.since), None if r.until is None else minute(r.until), r.granted, r.receipt)
        for r in runs("acme", "acme/guard", "d" * 64, stream)
    ]


def consented(version: str, *granted: str, receipt: str = "r") -> tuple[str, dict[str, Any]]:
    return "consented", {"version": version, "granted": list(granted), "receipt": receipt}


def test_a_run_begins_with_its_activation_and_ends_with_the_deactivation():
    assert told(consented("1.0.0", "kv"), ("activated", {"version": "1.0.0"}), ("deactivated", {})) == [
        ("1.0.0", 1, 2, ("kv",), "r")
    ]
    assert told(consented("1.0.0"), ("activated", {"version": "1.0.0"})) == [("1.0.0", 1, None, (), "r")]
    assert told() == []


def test_another_decision_begins_another_run_of_the_same_version():
    first = (consented("1.0.0", "kv"), ("activated", {"version": "1.0.0"}))
    assert told(*first, consented("1.0.0", receipt="s")) == [
        ("1.0.0", 1, 2, ("kv",), "r"),
        ("1.0.0", 2, None, (), "s"),
    ]


def test_a_version_that_was_consented_to_runs_once_and_one_that_was_not_keeps_the_grants():
    first = (consented("1.0.0", "kv"), ("activated", {"version": "1.0.0"}))
    chosen = (consented("1.1.0", "kv", "log", receipt="s"), ("updated", {"from": "1.0.0", "to": "1.1.0"}))
    assert told(*first, *chosen) == [
        ("1.0.0", 1, 2, ("kv",), "r"),
        ("1.1.0", 2, None, ("kv", "log"), "s"),
    ]
    assert told(*first, ("upgrade_promoted", {"to": "1.0.1"}), ("updated", {"to": "1.0.1"})) == [
        ("1.0.0", 1, 2, ("kv",), "r"),
        ("1.0.1", 2, None, ("kv",), "r"),
    ]
