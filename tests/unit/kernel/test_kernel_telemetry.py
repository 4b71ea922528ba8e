"""Telemetry: nothing secret in a log, bounded series, spans that say what ran."""

from __future__ import annotations

import io
import json
import logging
import sys

import pytest
import structlog
from hypothesis import given
from hypothesis import strategies as st
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from prometheus_client.parser import text_string_to_metric_families

from kernel.context import Context, use_context
from kernel.explain import DispatchTrace, Step
from kernel.ports import BreakerRecord, GuestUsage
from kernel.settings import Settings
from kernel.telemetry import MASK, Telemetry, configure_logging, mask, start_tracing


def trace(plugin="acme/aa", tenant="acme", outcome="changed", micros=2_000.0, error=None) -> DispatchTrace:
    step = Step(plugin, "1.0.0", outcome, micros, None, None, error, "closed")
    return DispatchTrace("user_creating", "filter", tenant, "work-0001", "g1", (step,))


def samples(telemetry: Telemetry) -> dict[tuple[str, tuple[tuple[str, str], ...]], float]:
    text = telemetry.render().decode()
    return {
        (s.name, tuple(sorted(s.labels.items()))): s.value
        for family in text_string_to_metric_families(text)
        for s in family.samples
    }


@pytest.mark.parametrize(
    ("value", "hidden", "kept"),
    [
        ({"password": "hunter2hunter2"}, "hunter2", "password"),
        ({"deep": [{"api_key": "abc"}, {"X-Authorization": "abc"}]}, "abc", "deep"),
        ({"refresh_token": "abc", "set-cookie": "abc"}, "abc", "refresh_token"),
        ("Authorization: Bearer abcdefghijkl", "abcdefghijkl", "Bearer"),
        ("key ks_acme_0123.secretsecret", "secretsecret", "ks_"),
        ("token ksr_acme_0123.secretsecret", "secretsecret", "token"),
        ("signed eyJhbGciOiJFZDI1NTE5In0.eyJzdWIiOiJ1In0.c2lnbmF0dXJl", "c2lnbmF0dXJl", "eyJ***"),
        ("at postgresql://keel:hunter2@db/keel", "hunter2", "postgresql://keel:***@db/keel"),
        ({"a@b.example"}, "a@b", "example"),
        ("wrote to ada.lovelace@example.com", "lovelace", "@example.com"),
        (("a@b.example", 7), "a@b", "example"),
    ],
)
def test_secrets_and_addresses_are_hidden_at_any_depth(value, hidden, kept):
    masked = json.dumps(mask(value))
    assert hidden not in masked
    assert kept in masked


@given(st.emails(), st.text(max_size=20))
def test_no_address_survives_whole(address, around):
    local = address.partition("@")[0]
    masked = mask(f"{around} <{address}> {around}")
    if len(local) > 1 and local.replace(".", "").isalnum() and local.isascii():
        assert f"<{address}>" not in masked


def test_falsy_and_plain_values_are_left_as_they_are():
    assert mask({"n": 0, "flag": False, "text": "", "none": None}) == {"n": 0, "flag": False, "text": "", "none": None}


@pytest.fixture
def log_lines(monkeypatch):
    """What is logged, as parsed JSON; the process's own logging is put back afterwards."""
    root = logging.getLogger()
    before = (root.handlers[:], root.level)
    stream = io.StringIO()
    monkeypatch.setattr(sys, "stderr", stream)
    configure_logging(Settings(log_format="json", log_level="info"))
    yield lambda: [json.loads(line) for line in stream.getvalue().splitlines()]
    root.handlers[:], level = before
    root.setLevel(level)
    structlog.reset_defaults()


def test_log_lines_are_json_with_the_works_correlation_id_and_nothing_secret(log_lines):
    with use_context(Context("acme", correlation_id="work-0001")):
        logging.getLogger("keelstone.test").warning("mail to %s", "ada@example.com", extra={"password": "hunter2"})
        structlog.get_logger("keelstone.test").info("signed in", token="abc", count=0)
    logging.getLogger("keelstone.test").debug("too quiet")
    first, second = log_lines()
    assert first["correlation_id"] == second["correlation_id"] == "work-0001"
    assert first["tenant"] == "acme"
    assert "ada@" not in json.dumps(first)
    assert first["password"] == second["token"] == MASK
    assert second["count"] == 0
    assert first["level"] == "warning"


def test_an_exception_is_logged_masked(log_lines):
    try:
        raise ValueError("Bearer abcdefghijkl is wrong for ada@example.com")
    except ValueError:
        logging.getLogger("keelstone.test").exception("failed")
    line = json.dumps(log_lines()[0])
    assert "ValueError" in line
    assert "abcdefghijkl" not in line
    assert "ada@example.com" not in line


def test_hook_times_and_failures_are_counted_by_plugin_hook_and_tenant():
    telemetry = Telemetry()
    telemetry.dispatch(trace(micros=400.0))
    telemetry.dispatch(trace(micros=2_000_000.0))
    telemetry.dispatch(trace(outcome="failed", error="x"))
    found = samples(telemetry)
    labels = (("hook", "user_creating"), ("plugin", "acme/aa"), ("tenant", "acme"))
    assert found["keelstone_hook_seconds_count", labels] == 3
    assert found["keelstone_hook_errors_total", labels] == 1
    assert found["keelstone_hook_seconds_bucket", tuple(sorted([*labels, ("le", "0.0005")]))] == 1
    assert found["keelstone_hook_seconds_bucket", tuple(sorted([*labels, ("le", "1.0")]))] == 2
    assert found["keelstone_hook_seconds_bucket", tuple(sorted([*labels, ("le", "+Inf")]))] == 3


def test_tenants_past_the_bound_are_summed_as_other():
    telemetry = Telemetry(tenant_labels=2)
    for number in range(10):
        telemetry.dispatch(trace(tenant=f"t{number}"))
        telemetry.guest("acme/aa", f"t{number}", GuestUsage(10, 100, 1, 0))
    tenants = {dict(labels).get("tenant") for _, labels in samples(telemetry)} - {None}
    assert tenants == {"t0", "t1", "other"}
    labels = (("hook", "user_creating"), ("plugin", "acme/aa"), ("tenant", "other"))
    assert samples(telemetry)["keelstone_hook_seconds_count", labels] == 8


def test_guests_sum_their_use_and_keep_their_peak_of_memory():
    telemetry = Telemetry()
    telemetry.guest("acme/aa", "acme", GuestUsage(1_000_000, 1 << 20, 2, 0, cpu_us=800_000))
    telemetry.guest("acme/aa", "acme", GuestUsage(500_000, 300, 1, 9, kv_bytes=7, ai_tokens=40), True)
    found = samples(telemetry)
    labels = (("plugin", "acme/aa"), ("tenant", "acme"))
    assert found["keelstone_guest_calls_total", labels] == 2
    assert found["keelstone_guest_seconds_total", labels] == 1.5
    assert found["keelstone_guest_memory_peak_bytes", labels] == 1 << 20
    assert found["keelstone_guest_host_calls_total", labels] == 3
    assert found["keelstone_guest_failures_total", labels] == 1
    assert found["keelstone_guest_cpu_seconds_total", labels] == 0.8
    assert found["keelstone_guest_memory_mib_seconds_total", labels] == pytest.approx(1.0, abs=0.001)
    assert found["keelstone_guest_kv_bytes_total", labels] == 7
    assert found["keelstone_guest_ai_tokens_total", labels] == 40


def test_plugins_and_hooks_past_the_bound_are_summed_as_other():
    telemetry = Telemetry(plugin_labels=2, hook_labels=2)
    for number in range(9):
        telemetry.guest(f"acme/p{number}", "acme", GuestUsage(1, 1, 0, 0))
    found = samples(telemetry)
    assert found["keelstone_guest_calls_total", (("plugin", "other"), ("tenant", "acme"))] == 7
    assert {dict(labels).get("plugin") for _, labels in found} - {None} == {"acme/p0", "acme/p1", "other"}


def test_breakers_that_are_not_closed_are_counted_when_somebody_collects():
    telemetry = Telemetry()
    states = [
        BreakerRecord("acme/aa", "1.0.0", tenant, "user_creating", state)
        for tenant, state in (("a", "open"), ("b", "half_open"), ("c", "closed"))
    ]
    telemetry.show_breakers(lambda: states)
    labels = (("hook", "user_creating"), ("plugin", "acme/aa"))
    assert samples(telemetry)["keelstone_breakers_open", labels] == 2


def test_requests_are_counted_by_route_and_class_of_status():
    telemetry = Telemetry()
    telemetry.request("GET", "/api/v1/users/{user}", 200, 0.01)
    telemetry.request("GET", "/api/v1/users/{user}", 404, 0.01)
    found = samples(telemetry)
    good = (("method", "GET"), ("route", "/api/v1/users/{user}"), ("status", "2xx"))
    assert found["keelstone_http_seconds_count", good] == 1


def test_a_flood_of_dispatches_is_summed_before_the_queue_is_full():
    telemetry = Telemetry(queue=20_000)
    for _ in range(30_001):
        telemetry.dispatch(trace())
    labels = (("hook", "user_creating"), ("plugin", "acme/aa"), ("tenant", "acme"))
    assert samples(telemetry)["keelstone_hook_seconds_count", labels] == 30_001


def test_a_span_tells_hook_tenant_and_each_implementation():
    telemetry, exporter = Telemetry(), InMemorySpanExporter()
    provider = start_tracing(telemetry, exporter)
    try:
        with telemetry.span("http.request", method="GET"):
            telemetry.dispatch(trace(outcome="failed", error="plugin-failed: it broke"))
        provider.force_flush()
        inner, outer = sorted(exporter.get_finished_spans(), key=lambda span: span.name)
    finally:
        provider.shutdown()
    assert (inner.name, outer.name) == ("hook user_creating", "http.request")
    assert inner.parent.span_id == outer.context.span_id
    assert inner.attributes["keelstone.tenant"] == "acme"
    assert inner.attributes["keelstone.correlation_id"] == "work-0001"
    assert inner.events[0].attributes["keelstone.plugin"] == "acme/aa"
    assert not inner.status.is_ok


def test_without_tracing_a_span_is_nothing():
    with Telemetry().span("http.request"):
        pass
