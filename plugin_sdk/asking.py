"""What a plugin asks for, in words for people: what it would do, its author's reason, and the worst that could come.

The consent page, the command line and the marketplace's pages say it with the same words.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from kernel.manifest import PluginManifest

_PLAIN = {
    "ai": "ask language models ({models}), up to {ai_tokens} tokens a call",
    "clock": "know what time it is",
    "config": "read the settings that you make for it",
    "events": "emit its own events: {emits}",
    "http": "send requests ({methods}) to {hosts}",
    "kv": "keep up to {kv_keys} small values of its own for your tenant",
    "log": "write lines to its log, which you can read",
    "notify": "send messages to people over {channels}, up to {notices} a call",
    "random": "draw random numbers",
    "secrets": "have secrets that you enter sent for it, without reading them: {secrets}",
    "services": "ask other plugins, in your tenant: {calls}",
}
_WORST = {
    "ai": "It could show what it is given to the models' providers, and spend tokens.",
    "clock": "It could behave differently at another time.",
    "config": "It could use your settings for something you did not expect.",
    "events": "It could emit misleading events of its own types.",
    "http": "It could send what it is given (people's names and addresses included) to those hosts.",
    "kv": "It could keep what it is given until you uninstall it with its data.",
    "log": "It could write personal data into its log.",
    "notify": "It could send your people messages that mislead them, in your name.",
    "random": "It could behave differently from call to call.",
    "secrets": "It could do, at those hosts, whatever the secrets allow.",
    "services": "It could learn what those plugins tell it about your people and your tenant.",
}


@dataclass(frozen=True, slots=True)
class Asked:
    """One capability that a plugin asks for. ``what`` goes on after "wants to"; ``why`` is the author's sentence."""

    name: str
    what: str
    why: str
    worst: str


def asked_for(manifest: PluginManifest) -> Iterator[Asked]:
    """Everything that the plugin asks for, by name."""
    for name, capability in manifest.capabilities.asked().items():
        limits = manifest.limits
        values: dict[str, Any] = {
            "kv_keys": limits.kv_keys,
            "ai_tokens": limits.ai_tokens,
            "notices": limits.notices,
            "secrets": "; ".join(
                f"{secret} to {', '.join(map(_host, use.hosts))}"
                for secret, use in getattr(capability, "names", {}).items()
            ),
            "calls": "; ".join(
                f"{other}: {', '.join(methods)}" for other, methods in getattr(capability, "calls", {}).items()
            ),
        }
        for key in ("hosts", "methods", "emits", "models", "channels"):
            values[key] = ", ".join(_host(h) for h in getattr(capability, key, ()))
        yield Asked(name, _PLAIN[name].format(**values), capability.why, _WORST[name])


def _host(value: str) -> str:
    name = value.removeprefix("setting:")
    return value if name == value else f"the host in your setting {name}"
