"""OpenTelemetry: spans and metrics over OTLP/HTTP to KEELSTONE_OTLP_ENDPOINT (extra ``otlp``)."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from kernel.errors import ConfigurationError
from kernel.settings import Settings
from kernel.telemetry import Telemetry, start_tracing

if TYPE_CHECKING:
    from opentelemetry.metrics import CallbackOptions, Observation

SERVICE = "keelstone"


class Otlp:
    """Running exporters; :meth:`close` sends what is left."""

    def __init__(self, *providers: Any) -> None:
        self._providers = providers

    async def close(self) -> None:
        """Flush and stop."""
        for provider in self._providers:
            provider.shutdown()


def open_otlp(settings: Settings, telemetry: Telemetry) -> Otlp | None:
    """Exporters to the endpoint that the settings name, or None. Raises ConfigurationError."""
    if settings.otlp_endpoint is None:
        return None
    try:
        from opentelemetry.exporter.otlp.proto.http.metric_exporter import OTLPMetricExporter
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
    except ImportError as error:
        raise ConfigurationError(
            "KEELSTONE_OTLP_ENDPOINT needs the extra `otlp`.", fix="Install it: pip install 'keelstone[otlp]'."
        ) from error
    base = settings.otlp_endpoint.rstrip("/")
    tracing = start_tracing(telemetry, OTLPSpanExporter(endpoint=f"{base}/v1/traces"), SERVICE)
    from opentelemetry.sdk.metrics.export import PeriodicExportingMetricReader

    exporter = OTLPMetricExporter(endpoint=f"{base}/v1/metrics")
    return Otlp(tracing, start_metrics(telemetry, PeriodicExportingMetricReader(exporter), SERVICE))


def start_metrics(telemetry: Telemetry, reader: Any, service: str = SERVICE) -> Any:
    """Offer the sums per plugin, hook and tenant to an OpenTelemetry metric reader; the provider to shut down.

    They are observed when the reader collects, from the same sums that /metrics renders, so the hot
    path pays for neither.
    """
    from opentelemetry.metrics import Observation
    from opentelemetry.sdk.metrics import MeterProvider
    from opentelemetry.sdk.resources import Resource

    provider = MeterProvider(metric_readers=[reader], resource=Resource.create({"service.name": service}))
    meter = provider.get_meter("keelstone")

    def observe(field: str) -> Any:
        def callback(_: CallbackOptions) -> Iterable[Observation]:
            for plugin, hook, tenant, sums in telemetry.hook_sums():
                labels = {"keelstone.plugin": plugin, "keelstone.hook": hook, "keelstone.tenant": tenant}
                yield Observation(sums[field], labels)

        return [callback]

    meter.create_observable_counter("keelstone.hook.calls", observe("calls"), "{call}", "Calls of implementations.")
    meter.create_observable_counter("keelstone.hook.errors", observe("errors"), "{call}", "Failed calls.")
    meter.create_observable_counter("keelstone.hook.seconds", observe("seconds"), "s", "Time of implementations.")
    return provider
