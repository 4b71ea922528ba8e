"""Least privilege: what a plugin asks for against what it used, and the narrower manifest that would do."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Protocol

from plugin_sdk import ALL_TENANTS, NotFound, PluginManifest, parse_version
from plugin_sdk.services import ActivationControl, Database, KvStore, Transaction

ENOUGH_CALLS = 1_000
HEADROOM = 2.0
_HIT = "limit-"


@dataclass(slots=True)
class Observed:
    """What a plugin version did, for one tenant or for several together."""

    plugin: str
    version: str
    calls: int = 0
    peaks: dict[str, int] = field(default_factory=dict)
    uses: dict[str, int] = field(default_factory=dict)
    first_at: datetime | None = None
    last_at: datetime | None = None
    tenants: list[str] = field(default_factory=list)

    def join(self, other: Observed) -> None:
        """Take in what was observed elsewhere."""
        self.calls += other.calls
        for name, peak in other.peaks.items():
            self.peaks[name] = max(peak, self.peaks.get(name, 0))
        for name, count in other.uses.items():
            self.uses[name] = self.uses.get(name, 0) + count
        self.first_at = min(filter(None, (self.first_at, other.first_at)), default=None)
        self.last_at = max(filter(None, (self.last_at, other.last_at)), default=None)
        self.tenants += other.tenants


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that could be narrower (``less``), or that was too tight (``more``)."""

    what: str
    asked: Any
    used: Any
    proposed: Any
    advice: str
    direction: str = "less"


@dataclass(frozen=True, slots=True)
class Advice:
    """What was found. ``manifest`` is the proposed part of plugin.toml; ``deny`` are capabilities that the
    tenant granted and that were never used; ``enough`` says whether that many calls tell much."""

    plugin: str
    version: str
    tenant: str | None
    calls: int
    first_at: datetime | None
    last_at: datetime | None
    enough: bool
    findings: tuple[Finding, ...]
    deny: tuple[str, ...]
    manifest: str


class ProfileRepository(Protocol):
    """What was observed."""

    async def observed(self, transaction: Transaction, plugin: str) -> list[Observed]:
        """One for each tenant and version in the transaction's scope."""
        ...


class Advisor:
    """Advises on what is stored."""

    def __init__(
        self,
        database: Database,
        repository: ProfileRepository,
        control: ActivationControl,
        kv: KvStore,
        flush: Callable[[], Any],
    ) -> None:
        self._database = database
        self._repository = repository
        self._control = control
        self._kv = kv
        self._flush = flush

    async def advise(self, plugin: str, tenant: str | None, version: str | None = None) -> Advice:
        """On the version last seen, or the one named. Raises NotFound if it was never called."""
        await self._flush()
        async with self._database.read(tenant or ALL_TENANTS) as transaction:
            found = await self._repository.observed(transaction, plugin)
        if version is not None:
            found = [o for o in found if parse_version(o.version) == parse_version(version)]
        # The newest release that can still be looked up.
        by_version = sorted({o.version for o in found}, key=parse_version, reverse=True)
        for name in by_version:
            mine = [o for o in found if o.version == name]
            known = self._known(plugin, name, [t for o in mine for t in o.tenants])
            if known is not None:
                break
        else:
            raise NotFound(
                f"Nothing has been observed of {plugin} {version or ''}".rstrip() + " that is active now.",
                plugin=plugin,
                tenant=tenant,
                fix="Activate it, let it work for a while, and ask again.",
            )
        manifest, grants = known
        observed = Observed(plugin, name)
        for one in mine:
            observed.join(one)
        stored = (0, 0)
        for owner in observed.tenants:
            keys, size = await self._kv.usage(owner, plugin)
            stored = (max(stored[0], keys), max(stored[1], size))
        return advise(manifest, observed, tenant=tenant, grants=grants if tenant else None, stored=stored)

    def _known(self, plugin: str, version: str, tenants: Iterable[str]) -> tuple[PluginManifest, frozenset[str]] | None:
        for tenant in tenants:
            for manifest, grants in self._control.active(tenant):
                if manifest.id == plugin and manifest.version == version:
                    return manifest, grants
        return None


def advise(
    manifest: PluginManifest,
    observed: Observed,
    *,
    tenant: str | None = None,
    grants: frozenset[str] | None = None,
    stored: tuple[int, int] = (0, 0),
) -> Advice:
    """Compare; pure. ``stored`` are keys and bytes kept by the plugin now."""
    used = _by_capability(observed.uses)
    asked = manifest.capabilities.asked()
    findings: list[Finding] = []
    proposed: dict[str, dict[str, Any]] = {}
    for name, capability in asked.items():
        mine = used.get(name, {})
        if not mine:
            findings.append(
                Finding(f"capabilities.{name}", "asked for", "never", None, f"Leave out capabilities.{name}.")
            )
            continue
        narrowed, more = _narrow(name, capability.model_dump(exclude_none=True), mine)
        proposed[name] = narrowed
        findings += more
    limits, more = _limits(manifest, observed, stored)
    findings += more
    deny = tuple(sorted(n for n in asked if n not in used and (grants is None or n in grants)))
    return Advice(
        plugin=manifest.id,
        version=manifest.version,
        tenant=tenant,
        calls=observed.calls,
        first_at=observed.first_at,
        last_at=observed.last_at,
        enough=observed.calls >= ENOUGH_CALLS,
        findings=tuple(findings),
        deny=deny,
        manifest=_toml(proposed, limits),
    )


def _by_capability(uses: Mapping[str, int]) -> dict[str, dict[str, int]]:
    found: dict[str, dict[str, int]] = {}
    for name, count in uses.items():
        if not name.startswith(_HIT):
            found.setdefault(name.partition(".")[0], {})[name] = count
    return found


def _words(mine: Mapping[str, int], function: str) -> list[list[str]]:
    return [name.split()[1:] for name in mine if name.split()[0] == function and len(name.split()) > 1]


# capability -> (key in the manifest, host call whose words name what was used)
_LISTS = {
    "events": ("emits", "events.emit"),
    "ai": ("models", "ai.complete"),
    "notify": ("channels", "notify.send"),
}


def _narrow(name: str, asked: dict[str, Any], mine: Mapping[str, int]) -> tuple[dict[str, Any], list[Finding]]:
    findings: list[Finding] = []
    narrowed = dict(asked)

    def change(key: str, wanted: Any, advice: str) -> None:
        if wanted and wanted != asked[key]:
            narrowed[key] = wanted
            said = asked[key] if not isinstance(asked[key], dict) else sorted(asked[key])
            shown = wanted if not isinstance(wanted, dict) else sorted(wanted)
            findings.append(Finding(f"capabilities.{name}.{key}", list(said), list(shown), list(shown), advice))

    if name == "http":
        sent = [w for w in _words(mine, "http.send") if len(w) == 2]
        if any("(others)" in n for n in mine):
            return narrowed, findings
        hosts = {host for _, host in sent}
        methods = {method for method, _ in sent}
        change("hosts", _hosts(asked["hosts"], hosts), "Name the hosts that it really calls.")
        change("methods", tuple(m for m in asked["methods"] if m in methods), "Allow the methods that it really uses.")
    elif name in _LISTS:
        key, function = _LISTS[name]
        seen = {words[0] for words in _words(mine, function)}
        change(key, tuple(v for v in asked[key] if v in seen), "Name what it really uses.")
    elif name == "secrets":
        seen = {words[0] for words in _words(mine, "secrets.use")}
        change(
            "names", {n: s for n, s in asked["names"].items() if n in seen}, "Ask for the secrets that it really uses."
        )
    elif name == "services":
        called = {(w[0], w[1]) for w in _words(mine, "services.call") if len(w) == 2}
        wanted = {
            plugin: tuple(m for m in methods if (plugin, m) in called)
            for plugin, methods in asked["calls"].items()
            if any((plugin, m) in called for m in methods)
        }
        change("calls", wanted, "Name the methods that it really calls.")
    return narrowed, findings


def _hosts(asked: Iterable[str], used: set[str]) -> tuple[str, ...]:
    """The asked hosts that were used; a wildcard becomes the hosts that it stood for."""
    left = set(used)
    wanted: list[str] = []
    for host in asked:
        if host in left:
            wanted.append(host)
            left.discard(host)
    for host in asked:
        if host.startswith("*."):
            stood_for = sorted(h for h in left if h.partition(":")[0].endswith(host[1:].partition(":")[0]))
            wanted += stood_for
            left -= set(stood_for)
    if left:
        # They came from settings, whose values differ by tenant.
        wanted += [host for host in asked if host.startswith("setting:")]
    return tuple(wanted)


def _limits(
    manifest: PluginManifest, observed: Observed, stored: tuple[int, int]
) -> tuple[dict[str, int], list[Finding]]:
    peaks, present = observed.peaks, manifest.limits
    kib = 1_024
    seen = {
        "time_ms": peaks.get("wall_us", 0) / 1_000,
        "memory_mb": peaks.get("memory_bytes", 0) / (kib * kib),
        "input_kb": peaks.get("input_bytes", 0) / kib,
        "output_kb": peaks.get("output_bytes", 0) / kib,
        "host_calls": float(peaks.get("host_calls", 0)),
        "http_kb": peaks.get("http_bytes", 0) / kib,
        "kv_kb": stored[1] / kib,
        "kv_keys": float(stored[0]),
        "events": float(peaks.get("events", 0)),
        "log_lines": float(peaks.get("log_lines", 0)),
        "ai_tokens": float(peaks.get("ai_tokens", 0)),
    }
    hits = {name.removeprefix(_HIT): count for name, count in observed.uses.items() if name.startswith(_HIT)}
    chosen: dict[str, int] = {}
    findings: list[Finding] = []
    for name, peak in seen.items():
        now = getattr(present, name, None)
        if now is None:
            continue
        if _was_hit(name, hits):
            more = _round_up(now * HEADROOM)
            chosen[name] = more
            advice = f"It came up against limits.{name}: consider {more}."
            findings.append(Finding(f"limits.{name}", now, _shown(peak), more, advice, "more"))
            continue
        least = 1 if name in ("time_ms", "memory_mb", "input_kb", "output_kb") else 0
        wanted = max(least, _round_up(peak * HEADROOM))
        if name == "time_ms":
            wanted = max(wanted, 10)
        if wanted < now:
            chosen[name] = wanted
            advice = f"The most was {_shown(peak)}: limits.{name} = {wanted} leaves twice that."
            findings.append(Finding(f"limits.{name}", now, _shown(peak), wanted, advice))
    return chosen, findings


# How the host spells a limit in its refusal, where that is not the manifest's name with hyphens.
_CODES = {"kv_kb": "kv-bytes", "http_kb": "http"}


def _was_hit(name: str, hits: Mapping[str, int]) -> bool:
    return _CODES.get(name, name.replace("_", "-")) in hits


def _shown(value: float) -> float | int:
    return int(value) if value == int(value) else round(value, 2)


def _round_up(value: float) -> int:
    """Up to two significant digits: a limit is a round number."""
    if value <= 0:
        return 0
    if value < 10:
        return math.ceil(value)
    step: int = 10 ** (int(math.log10(value)) - 1)
    return math.ceil(value / step) * step


def _toml(capabilities: Mapping[str, Mapping[str, Any]], limits: Mapping[str, int]) -> str:
    parts = []
    for name, values in sorted(capabilities.items()):
        nested = {k: v for k, v in values.items() if isinstance(v, Mapping)}
        lines = [f"[capabilities.{name}]"]
        lines += [f"{key} = {_literal(value)}" for key, value in values.items() if key not in nested]
        for key, table in nested.items():
            lines.append(f"{key} = {_literal(table)}")
        parts.append("\n".join(lines))
    if limits:
        parts.append("\n".join(["[limits]", *(f"{name} = {value}" for name, value in limits.items())]))
    return "\n\n".join(parts) + "\n" if parts else ""


def _literal(value: Any) -> str:
    if isinstance(value, Mapping):
        return "{ " + ", ".join(f'"{k}" = {_literal(v)}' for k, v in value.items()) + " }"
    if isinstance(value, (list, tuple)):
        return "[" + ", ".join(_literal(v) for v in value) + "]"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, (int, float)):
        return str(value)
    escaped = str(value).replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n").replace("\t", "\\t")
    return f'"{escaped}"'
