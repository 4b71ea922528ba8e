"""Logs, metrics and traces: JSON lines with correlation id and masking, counters per plugin, hook
and tenant, OpenTelemetry spans.

The hot path only appends to a queue; sums are made when somebody collects.
"""

from __future__ import annotations

import logging
import re
import sys
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator, MutableMapping
from contextlib import contextmanager
from typing import Any

import structlog
from opentelemetry import trace as otel
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector

from kernel.context import current_context
from kernel.errors import KeelstoneError
from kernel.explain import DispatchTrace
from kernel.ports import BreakerRecord, GuestCall, GuestResult, GuestUsage
from kernel.process import settled_objects
from kernel.settings import Settings
from kernel.spans import DispatchSpans

_SECRET_KEY = re.compile(r"(password|secret|token|authorization|api_?key|cookie|credential)", re.IGNORECASE)
_EMAIL = re.compile(r"\b([A-Za-z0-9._%+-])[A-Za-z0-9._%+-]*@([A-Za-z0-9.-]+\.[A-Za-z]{2,})\b")
_TOKEN = re.compile(r"\b(Bearer\s+|ksr?_|eyJ)[A-Za-z0-9._~+/=-]{8,}")
_URL_PASSWORD = re.compile(r"(://[^\s/:@]*:)[^\s/@]+(?=@)")
MASK = "***"
BUCKETS = (0.0001, 0.0005, 0.001, 0.005, 0.01, 0.05, 0.1, 0.5, 1.0, 5.0)
"""Upper bounds of the duration histograms, in seconds."""
OTHER = "other"
"""The label under which what is past a bound is summed."""
GUEST_COUNTERS = {
    "calls": "calls",
    "failures": "failed calls",
    "seconds": "run time in seconds",
    "cpu_seconds": "CPU time in seconds",
    "memory_mib_seconds": "memory over time in MiB*s",
    "host_calls": "host calls",
    "http_bytes": "bytes over HTTP",
    "kv_bytes": "bytes stored and read",
    "ai_tokens": "tokens of language models",
}
"""What is summed for each guest and tenant, and what it means."""


def mask(value: Any) -> Any:
    """``value`` with secrets and e-mail addresses hidden, at any depth; safe to write to a log."""
    if isinstance(value, str):
        value = _URL_PASSWORD.sub(lambda m: m.group(1) + MASK, value)
        return _TOKEN.sub(lambda m: m.group(1) + MASK, _EMAIL.sub(r"\1***@\2", value))
    if isinstance(value, dict):
        return {k: MASK if _SECRET_KEY.search(str(k)) else mask(v) for k, v in value.items()}
    if isinstance(value, (list, tuple, set, frozenset)):
        return [mask(v) for v in value]
    return value


def _mask_event(_: Any, __: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    masked: MutableMapping[str, Any] = mask(dict(event))
    return masked


def _add_context(_: Any, __: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    context = current_context()
    if context is not None:
        event.setdefault("correlation_id", context.correlation_id)
        event.setdefault("tenant", context.tenant)
        event.setdefault("principal", context.principal.id)
    return event


def configure_logging(settings: Settings) -> None:
    """Send structlog's and the standard library's records to standard error, masked."""
    as_json = settings.log_format == "json" or (settings.log_format == "auto" and not sys.stderr.isatty())
    level = logging.getLevelNamesMapping()[settings.log_level.upper()]
    shared: list[Any] = [
        structlog.stdlib.add_log_level,
        structlog.stdlib.add_logger_name,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        _add_context,
    ]
    render: list[Any] = (
        [structlog.processors.format_exc_info, _mask_event, structlog.processors.JSONRenderer()]
        if as_json
        else [_mask_event, structlog.dev.ConsoleRenderer()]
    )
    formatter = structlog.stdlib.ProcessorFormatter(
        processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *render],
        foreign_pre_chain=[structlog.stdlib.ExtraAdder(), *shared],
    )
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(formatter)
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level)
    for chatty in ("aiosqlite", "alembic", "uvicorn", "httpx", "httpcore", "aiokafka"):
        logging.getLogger(chatty).setLevel(max(level, logging.WARNING))
    structlog.configure(
        processors=[*shared, structlog.stdlib.ProcessorFormatter.wrap_for_formatter],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.make_filtering_bound_logger(level),
        cache_logger_on_first_use=False,
    )


class _Labels:
    """Names that get a label of their own: the first ``most``; the rest are ``other``."""

    __slots__ = ("_known", "_most")

    def __init__(self, most: int) -> None:
        self._known: set[str] = set()
        self._most = most

    def of(self, name: str) -> str:
        if name in self._known:
            return name
        if len(self._known) < self._most:
            self._known.add(name)
            return name
        return OTHER


DRAIN_AT = 64
"""Dispatches that wait to be summed. Few: each holds its payloads, and memory that is used again is warm."""


class _Series:
    __slots__ = ("buckets", "count", "errors", "seconds")

    def __init__(self) -> None:
        self.count = 0
        self.errors = 0
        self.seconds = 0.0
        self.buckets = [0] * len(BUCKETS)

    def add(self, seconds: float, failed: bool) -> None:
        self.count += 1
        self.errors += failed
        self.seconds += seconds
        for index, bound in enumerate(BUCKETS):
            if seconds <= bound:
                self.buckets[index] += 1
                break

    def cumulative(self) -> list[tuple[str, float]]:
        total, rows = 0, []
        for bound, count in zip(BUCKETS, self.buckets, strict=True):
            total += count
            rows.append((str(bound), float(total)))
        return [*rows, ("+Inf", float(self.count))]


class Telemetry(Collector):
    """Counts what happens and renders it for Prometheus; starts spans when tracing is on.

    At most ``tenant_labels`` tenants, ``plugin_labels`` plugins and ``hook_labels`` hooks get a label of
    their own; the rest are summed as ``other``, so that the number of series stays bounded.
    """

    def __init__(
        self, *, tenant_labels: int = 200, plugin_labels: int = 200, hook_labels: int = 100, queue: int = 100_000
    ) -> None:
        self._queue: deque[DispatchTrace] = deque(maxlen=queue)
        self._hooks: dict[tuple[str, str, str], _Series] = {}
        self._requests: dict[tuple[str, str, str], _Series] = {}
        self._guests: dict[tuple[str, str], list[float]] = {}
        self._breakers: Callable[[], Iterable[BreakerRecord]] = tuple
        self._tenants = _Labels(tenant_labels)
        self._plugins = _Labels(plugin_labels)
        self._hook_names = _Labels(hook_labels)
        self._tracer = otel.get_tracer("keelstone")
        self._spans: DispatchSpans | None = None
        self.registry = CollectorRegistry(auto_describe=False)
        self.registry.register(self)

    # ------------------------------------------------------------------ recording

    def dispatch(self, trace: DispatchTrace) -> None:
        """Note a dispatch (cheap: it is summed later)."""
        self._queue.append(trace)
        if self._spans is not None:
            self._spans.note(trace)
        if len(self._queue) > DRAIN_AT:
            self._drain()

    def request(self, method: str, route: str, status: int, seconds: float) -> None:
        """Note an HTTP request; ``route`` is the path's template, never the path itself."""
        self._requests.setdefault((method, route, f"{status // 100}xx"), _Series()).add(seconds, status >= 500)

    def guest(self, plugin: str, tenant: str, used: GuestUsage, failed: bool = False) -> None:
        """Note what one sandboxed call used."""
        key = (self._plugins.of(plugin), self._tenants.of(tenant))
        sums = self._guests.get(key)
        if sums is None:
            sums = self._guests[key] = [0.0] * (len(GUEST_COUNTERS) + 1)
        sums[0] += 1
        sums[1] += failed
        sums[2] += used.wall_us / 1e6
        sums[3] += used.cpu_us / 1e6
        sums[4] += used.memory_bytes * used.wall_us / 1_048_576e6
        sums[5] += used.host_calls
        sums[6] += used.http_bytes
        sums[7] += used.kv_bytes
        sums[8] += used.ai_tokens
        if used.memory_bytes > sums[9]:
            sums[9] = used.memory_bytes

    def show_breakers(self, states: Callable[[], Iterable[BreakerRecord]]) -> None:
        """Count the breakers that ``states`` gives whenever somebody collects."""
        self._breakers = states

    def guest_call(self, call: GuestCall, result: GuestResult | KeelstoneError) -> None:
        """Note a guest's call with what it came to; one that never ran has used nothing."""
        used = getattr(result, "usage", None)
        if used is not None:
            self.guest(call.plugin, call.context.tenant, used, not isinstance(result, GuestResult))

    @contextmanager
    def span(self, name: str, **attributes: Any) -> Iterator[None]:
        """A span around the body, if tracing is on."""
        if self._spans is None:
            yield
            return
        with self._tracer.start_as_current_span(name, attributes=attributes):
            yield

    # ------------------------------------------------------------------ collecting

    def _drain(self) -> None:
        while self._queue:
            trace = self._queue.popleft()
            tenant, hook = self._tenants.of(trace.tenant), self._hook_names.of(trace.hook)
            for step in trace.steps:
                series = self._hooks.setdefault((self._plugins.of(step.plugin), hook, tenant), _Series())
                series.add(step.micros / 1e6, step.outcome == "failed")

    def collect(self) -> Iterable[Metric]:
        """Everything, as prometheus_client wants it."""
        self._drain()
        labels = ["plugin", "hook", "tenant"]
        seconds = HistogramMetricFamily("keelstone_hook_seconds", "Time of hook implementations.", labels=labels)
        errors = CounterMetricFamily("keelstone_hook_errors", "Failed hook implementations.", labels=labels)
        for key, series in sorted(self._hooks.items()):
            seconds.add_metric(key, series.cumulative(), series.seconds)
            errors.add_metric(key, series.errors)
        http = HistogramMetricFamily(
            "keelstone_http_seconds", "Time of HTTP requests.", labels=["method", "route", "status"]
        )
        for route, series in sorted(self._requests.items()):
            http.add_metric(route, series.cumulative(), series.seconds)
        yield from (seconds, errors, http)
        mine = ["plugin", "tenant"]
        peak = GaugeMetricFamily("keelstone_guest_memory_peak_bytes", "Guests: most memory of a call.", labels=mine)
        guests = sorted(self._guests.items())
        for guest, used in guests:
            peak.add_metric(guest, used[-1])
        yield peak
        for index, (name, meaning) in enumerate(GUEST_COUNTERS.items()):
            family = CounterMetricFamily(f"keelstone_guest_{name}", f"Guests: {meaning}.", labels=mine)
            for guest, used in guests:
                family.add_metric(guest, used[index])
            yield family
        resting = GaugeMetricFamily(
            "keelstone_breakers_open", "Breakers that are open or being probed.", labels=["plugin", "hook"]
        )
        counted = Counter(
            (self._plugins.of(b.plugin), self._hook_names.of(b.hook)) for b in self._breakers() if b.state != "closed"
        )
        for breaker, count in sorted(counted.items()):
            resting.add_metric(breaker, count)
        yield resting
        yield GaugeMetricFamily(
            "keelstone_gc_settled_objects", "Objects that stay, which no collection walks.", value=settled_objects()
        )

    @property
    def tracing(self) -> bool:
        """Whether spans are made."""
        return self._spans is not None

    def trace_with(self, spans: DispatchSpans) -> None:
        """Make spans from now on."""
        self._tracer = spans.tracer
        self._spans = spans

    def hook_sums(self) -> list[tuple[str, str, str, dict[str, float]]]:
        """(plugin, hook, tenant, sums of calls, errors and seconds) so far, for other exporters."""
        self._drain()
        return [
            (*key, {"calls": series.count, "errors": series.errors, "seconds": series.seconds})
            for key, series in sorted(self._hooks.items())
        ]

    def render(self) -> bytes:
        """The text format of Prometheus."""
        return generate_latest(self.registry)


def start_tracing(telemetry: Telemetry, exporter: Any, service: str = "keelstone") -> DispatchSpans:
    """Send spans to ``exporter`` (an OpenTelemetry SpanExporter); returns what is to be shut down."""
    from opentelemetry.sdk.resources import Resource
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import BatchSpanProcessor

    provider = TracerProvider(resource=Resource.create({"service.name": service}))
    provider.add_span_processor(BatchSpanProcessor(exporter))
    spans = DispatchSpans(provider)
    telemetry.trace_with(spans)
    return spans
