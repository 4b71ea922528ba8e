"""Traces: what is kept, for how long, and what a person sees of it."""

from __future__ import annotations

from kernel.explain import DispatchTrace, Step, TraceLog, changed_fields, describe
from kernel.payloads import UserDraft

BEFORE = UserDraft(email="a@example.com", name="A", attributes={"n": 1})


def trace(correlation="work-0001", tenant="acme", hook="user_creating") -> DispatchTrace:
    after = BEFORE.model_copy(update={"name": "B"})
    steps = (
        Step("acme/aa", "1.0.0", "changed", 12.34, BEFORE, after, None, "closed"),
        Step("acme/bb", "1.0.0", "failed", 1.0, after, None, "plugin-failed: it broke", "open"),
    )
    return DispatchTrace(hook, "filter", tenant, correlation, "g1", steps)


def test_a_trace_tells_order_outcome_time_error_breaker_and_names_of_changed_fields():
    told = describe(trace())
    first, second = told["implementations"]
    assert (first["order"], second["order"]) == (1, 2)
    assert first["changed"] == ["name"]
    assert first["microseconds"] == 12.3
    assert (second["outcome"], second["error"], second["breaker"]) == ("failed", "plugin-failed: it broke", "open")
    assert "a@example.com" not in str(told), "values may be personal"


def test_changed_fields_are_compared_by_value():
    assert changed_fields(BEFORE, BEFORE.model_copy()) == []
    assert changed_fields(BEFORE, BEFORE.model_copy(update={"attributes": {"n": 2}, "email": "b@example.com"})) == [
        "attributes",
        "email",
    ]
    assert changed_fields(None, BEFORE) == changed_fields(BEFORE, None) == []


def test_the_oldest_work_is_forgotten_first():
    log = TraceLog(capacity=2)
    for name in ("one", "two", "three"):
        log.record(trace(name))
    assert [len(log.find(n)) for n in ("one", "two", "three")] == [0, 1, 1]


def test_one_piece_of_work_keeps_a_bounded_number_of_traces():
    log = TraceLog(per_work=3)
    for _ in range(10):
        log.record(trace())
    assert len(log.find("work-0001")) == 3


def test_a_tenant_finds_its_own_traces_only_even_under_another_ones_correlation_id():
    log = TraceLog()
    log.record(trace(tenant="acme"))
    log.record(trace(tenant="globex"))
    assert [t.tenant for t in log.find("work-0001", "globex")] == ["globex"]
    assert len(log.find("work-0001")) == 2
    assert log.find("unknown") == []
