"""The sums per plugin, hook and tenant reach an OpenTelemetry reader; the exporters need their extra."""

from __future__ import annotations

from typing import Any

from opentelemetry.sdk.metrics.export import InMemoryMetricReader

from kernel.adapters.otlp import open_otlp, start_metrics
from kernel.explain import DispatchTrace, Step
from kernel.settings import Settings
from kernel.telemetry import Telemetry


def _trace(outcome: str) -> DispatchTrace:
    step = Step("acme/guard", "1.0.0", outcome, 1_500.0, None, None, None, "closed")
    return DispatchTrace("user_creating", "filter", "acme", "c" * 16, "0" * 32, (step,))


def test_a_reader_collects_calls_errors_and_seconds_with_their_labels():
    telemetry, reader = Telemetry(), InMemoryMetricReader()
    provider = start_metrics(telemetry, reader)
    try:
        telemetry.dispatch(_trace("changed"))
        telemetry.dispatch(_trace("failed"))
        data: Any = reader.get_metrics_data()
    finally:
        provider.shutdown()
    found = {
        metric.name: (point.value, dict(point.attributes))
        for resource in data.resource_metrics
        for scope in resource.scope_metrics
        for metric in scope.metrics
        for point in metric.data.data_points
    }
    labels = {"keelstone.plugin": "acme/guard", "keelstone.hook": "user_creating", "keelstone.tenant": "acme"}
    assert found["keelstone.hook.calls"] == (2, labels)
    assert found["keelstone.hook.errors"] == (1, labels)
    assert round(found["keelstone.hook.seconds"][0], 6) == 0.003


def test_without_an_endpoint_nothing_is_exported(tmp_path):
    telemetry = Telemetry()
    assert open_otlp(Settings(home=tmp_path), telemetry) is None
    assert not telemetry.tracing
