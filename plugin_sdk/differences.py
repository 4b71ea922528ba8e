"""What another version of a plugin may do that this one may not, and the other way round, in plain words.

Computed from the manifests and, where the components are at hand, from what their code really imports. The
marketplace reads it to judge a version's number, the catalog to tell whoever consents.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass
from typing import Literal

from kernel.manifest import PluginManifest

Kind = Literal["new", "gone", "changed"]
ANY_HEADER = "http with any header"
_HOST = "http to "
_HEADER = "http with the header "
_DOES = {
    "ai": "asks language models",
    "clock": "knows what time it is",
    "config": "reads the settings that you make for it",
    "events": "emits its own events",
    "http": "sends requests to other hosts",
    "kv": "keeps small values of its own for your tenant",
    "log": "writes lines to its log",
    "notify": "sends messages to people",
    "random": "draws random numbers",
    "secrets": "has secrets that you enter sent for it",
    "services": "asks other plugins in your tenant",
}
_LIMITS = {
    "time_ms": ("time", "may now take up to {} a call", "ms", ""),
    "memory_mb": ("memory", "may now use up to {} of memory", "MB", ""),
    "host_calls": ("calls of the host", "may now make up to {} in a call", "host calls", ""),
    "http_kb": ("bytes", "may now send and receive up to {} a call", "kB", "http"),
    "kv_kb": ("bytes kept", "may now keep up to {}", "kB", "kv"),
    "kv_keys": ("values kept", "may now keep up to {}", "values", "kv"),
    "events": ("events", "may now emit up to {} a call", "events", "events"),
    "ai_tokens": ("tokens", "may now spend up to {} a call", "tokens", "ai"),
    "notices": ("messages", "may now send up to {} a call", "messages", "notify"),
    "concurrency": ("calls at once", "may now answer up to {} at once", "calls", ""),
}
"""Limits that say something to whoever consents: their words, unit, and the capability that they are about."""


@dataclass(frozen=True, slots=True)
class Change:
    """One difference. ``widens`` means that the new version may do more than the old one; ``capability`` is the
    one that it is about, or empty."""

    kind: Kind
    area: str
    words: str
    widens: bool
    capability: str = ""


def powers(manifest: PluginManifest) -> set[str]:
    """Everything that the manifest asks of the host, one line each: what a consent is about. A line begins with
    its capability's name."""
    asked = manifest.capabilities
    found = set(asked.asked())
    if asked.http is not None:
        found |= {f"{_HOST}{host}" for host in asked.http.hosts} | {f"http {name}" for name in asked.http.methods}
        if asked.http.headers is None:
            found.add(ANY_HEADER)
        else:
            found |= {f"{_HEADER}{name}" for name in asked.http.headers}
    if asked.events is not None:
        found |= {f"events {name}" for name in asked.events.emits}
    if asked.secrets is not None:
        for name, use in asked.secrets.names.items():
            found |= {f"secrets {name} to {host} in the {place}" for host in use.hosts for place in use.places}
    if asked.ai is not None:
        found |= {f"ai {name}" for name in asked.ai.models}
    if asked.notify is not None:
        found |= {f"notify {name}" for name in asked.notify.channels}
    if asked.services is not None:
        found |= {f"services {plugin}.{name}" for plugin, names in asked.services.calls.items() for name in names}
    return found


def widened(old: PluginManifest, new: PluginManifest) -> dict[str, list[str]]:
    """Capabilities that both ask for and with which the new version may do more, with those powers."""
    both = set(old.capabilities.asked()) & set(new.capabilities.asked())
    before = powers(old)
    found: dict[str, list[str]] = {}
    for power in sorted(powers(new) - before):
        capability = power.partition(" ")[0]
        if capability in both and not _covered(power, before):
            found.setdefault(capability, []).append(power)
    return found


def differences(
    old: PluginManifest,
    new: PluginManifest,
    *,
    old_imports: Collection[str] | None = None,
    new_imports: Collection[str] | None = None,
) -> list[Change]:
    """What has changed for the tenant that runs ``old`` and would run ``new``. The imports are the capabilities that
    the components' code uses (``toolchain.world.capabilities_of``); None if a component is not at hand."""
    return [
        *_capabilities(old, new, new_imports),
        *_powers(old, new),
        *_limits(old, new),
        *_names("hook", set(old.hooks), set(new.hooks), "now takes part in {}", "no longer takes part in {}"),
        *_names(
            "event",
            set(old.events.subscribes),
            set(new.events.subscribes),
            "now learns of {}",
            "no longer learns of {}",
        ),
        *_requirements(old, new),
        *_isolation(old, new),
        *_imports(old, new, old_imports, new_imports),
    ]


def sentence(changes: Iterable[Change]) -> str:
    """The changes as one line for people; what widens comes first."""
    ordered = sorted(changes, key=lambda change: not change.widens)
    return "; ".join(change.words for change in ordered)


def _capabilities(old: PluginManifest, new: PluginManifest, imports: Collection[str] | None) -> Iterator[Change]:
    before, after = set(old.capabilities.asked()), set(new.capabilities.asked())
    for name in sorted(after - before):
        unused = " (its code does not use that yet)" if imports is not None and name not in imports else ""
        yield Change("new", "capability", f"now {_DOES[name]}{unused}", True, name)
    for name in sorted(before - after):
        yield Change("gone", "capability", f"no longer {_DOES[name]}", False, name)


def _powers(old: PluginManifest, new: PluginManifest) -> Iterator[Change]:
    before, after = powers(old), powers(new)
    for power in sorted(after - before):
        words, capability = _words(power), power.partition(" ")[0]
        if words and not _covered(power, before):
            yield Change("new", _area(capability), f"now {words}", True, capability)
    for power in sorted(before - after):
        words, capability = _words(power), power.partition(" ")[0]
        # What a capability did goes with the capability, which is told by itself.
        if words and capability in new.capabilities.asked() and not _covered(power, after):
            yield Change("gone", _area(capability), f"no longer {words}", False, capability)


def _words(power: str) -> str:
    """A power as what is done with it; empty for a bare capability."""
    capability, _, rest = power.partition(" ")
    if not rest:
        return ""
    if power == ANY_HEADER:
        return "sets any header of a request"
    if power.startswith(_HOST):
        return f"reaches {_host(power.removeprefix(_HOST))}"
    if power.startswith(_HEADER):
        return f"sets the header {power.removeprefix(_HEADER)}"
    name, _, where = rest.partition(" to ")
    return {
        "http": f"sends {rest} requests",
        "events": f"emits {rest}",
        "secrets": f"has the secret {name} sent to {where}",
        "ai": f"asks the model {rest}",
        "notify": f"sends messages over {rest}",
        "services": f"asks {rest}",
    }[capability]


def _host(host: str) -> str:
    name = host.removeprefix("setting:")
    return host if name == host else f"the host in your setting {name}"


def _area(capability: str) -> str:
    return "host" if capability == "http" else "capability"


def _covered(power: str, by: Collection[str]) -> bool:
    """Whether something wider in ``by`` allows the power already."""
    if power.startswith(_HEADER):
        return ANY_HEADER in by
    if not power.startswith(_HOST):
        return False
    host = power.removeprefix(_HOST)
    patterns = [p.removeprefix(_HOST) for p in by if p.startswith(f"{_HOST}*.")]
    return any(host.endswith(pattern[1:]) for pattern in patterns)


def _limits(old: PluginManifest, new: PluginManifest) -> Iterator[Change]:
    for name, (about, words, unit, capability) in _LIMITS.items():
        before, after = getattr(old.limits, name), getattr(new.limits, name)
        if before == after or (capability and capability not in new.capabilities.asked()):
            continue
        told = words.format(_amount(after, unit))
        if after < before:
            told = f"{told.replace(' now ', ' ').replace('may ', 'may now only ', 1)}"
        area = f"limit of {about}"
        yield Change("changed", area, f"{told} (before: {_amount(before, unit)})", after > before, capability)


def _amount(value: int, unit: str) -> str:
    larger = {"kB": "MB", "ms": "s"}
    step = {"kB": 1_024, "ms": 1_000}.get(unit, 0)
    if step and value >= step and value % step == 0:
        return f"{value // step:,} {larger[unit]}"
    return f"{value:,} {unit}"


def _names(area: str, before: set[str], after: set[str], new: str, gone: str) -> Iterator[Change]:
    for name in sorted(after - before):
        yield Change("new", area, new.format(name), True)
    for name in sorted(before - after):
        yield Change("gone", area, gone.format(name), False)


def _requirements(old: PluginManifest, new: PluginManifest) -> Iterator[Change]:
    before, after = old.requires.plugins, new.requires.plugins
    for plugin in sorted({*before, *after}):
        if plugin not in before:
            yield Change("new", "required plugin", f"now needs {plugin} {after[plugin]}", True)
        elif plugin not in after:
            yield Change("gone", "required plugin", f"no longer needs {plugin}", False)
        elif before[plugin] != after[plugin]:
            words = f"now needs {plugin} {after[plugin]} (before: {before[plugin]})"
            yield Change("changed", "required plugin", words, False)


def _isolation(old: PluginManifest, new: PluginManifest) -> Iterator[Change]:
    if (old.isolation, new.isolation) == ("call", "tenant"):
        yield Change("changed", "isolation", "now remembers between calls, within your tenant", True)
    if (old.isolation, new.isolation) == ("tenant", "call"):
        yield Change("changed", "isolation", "no longer remembers between calls", False)


def _imports(
    old: PluginManifest,
    new: PluginManifest,
    before: Collection[str] | None,
    after: Collection[str] | None,
) -> Iterator[Change]:
    """What the code has come to use, or to leave, of what both versions ask for."""
    if before is None or after is None:
        return
    for name in sorted(set(old.capabilities.asked()) & set(new.capabilities.asked())):
        if name in after and name not in before:
            yield Change(
                "changed", "code", f"its code now really {_DOES[name]}; until now it only asked to", True, name
            )
        elif name in before and name not in after:
            yield Change("changed", "code", f"its code no longer {_DOES[name]}, but still asks to", False, name)
