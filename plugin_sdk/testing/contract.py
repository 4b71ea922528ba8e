"""Generated checks: does the guest keep the contract of every hook that its manifest claims?"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from pydantic import BaseModel, ValidationError

from kernel.errors import KeelstoneError, ServiceMissing
from kernel.hookspecs import hook_spec
from kernel.manifest import PluginManifest
from kernel.payloads import DecideReply, FilterReply, ObserveReply
from plugin_sdk.testing.extension import Extension
from plugin_sdk.testing.guest import Guest
from plugin_sdk.testing.samples import sample_event, sample_payload, sample_types

_OUTWARD = frozenset({"http", "ai", "notify", "services", "secrets"})
_REPLIES: dict[str, type[BaseModel]] = {"filter": FilterReply, "decide": DecideReply, "observe": ObserveReply}


@dataclass(frozen=True, slots=True)
class Check:
    """One check and what came of it; ``problem`` is empty if it passed."""

    name: str
    problem: str = ""

    @property
    def passed(self) -> bool:
        """Whether the contract was kept."""
        return not self.problem


async def contract_checks(guest: Guest) -> list[Check]:
    """Try every claimed hook with valid samples, without grants, and an unclaimed hook.

    A guest must answer a valid payload with a valid reply, within its limits; must not crash when the
    tenant grants nothing (it may report a failure); and must refuse a hook that it does not implement.
    Where the answer depends on what a sample cannot know (others behind ``http``, ``ai`` and the like, or
    events of types that are not the platform's or its own), reporting a failure is an answer too.
    """
    checks = []
    for hook in sorted(guest.manifest.hooks):
        for label, payload in _samples(hook, guest.manifest):
            lenient = _depends(guest.manifest, payload)
            checks.append(Check(f"{label}: answers a valid payload", await _answers(guest, hook, payload, lenient)))
        payload = sample_payload(hook, guest.manifest)
        checks.append(Check(f"{hook}: survives without grants", await _survives(guest, hook, payload)))
    checks.append(Check("a hook that it does not claim: reports a failure", await _refuses(guest)))
    return checks


async def extension_checks(extension: Extension) -> list[Check]:
    """Does an extension start, contribute, and answer valid samples of every hook that its manifest claims?"""
    try:
        await extension.start()
    except ServiceMissing as missing:
        return [Check(f"starts: not tried, because only its own tests can fake {missing.expected}")]
    except Exception as error:
        return [Check("starts", f"{type(error).__name__}: {error}")]
    checks = [Check("starts")]
    for hook in sorted(extension.manifest.hooks):
        spec = hook_spec(hook)
        try:
            if spec.kind == "contribute":
                await extension.contributions(hook)
            elif spec.kind == "filter":
                await extension.filter(hook, sample_payload(hook, extension.manifest))
            elif spec.kind == "decide":
                await extension.decide(hook, sample_payload(hook, extension.manifest))
            else:
                for event_type in sample_types(extension.manifest):
                    await extension.observe(event_type, sample_event(event_type)["data"])
        except (KeelstoneError, AssertionError) as error:
            checks.append(Check(f"{hook}: answers a valid payload", str(error)))
        else:
            checks.append(Check(f"{hook}: answers a valid payload"))
    blocked = "; ".join(f"{b.culprit.place} for {b.seconds * 1000:.0f} ms" for b in extension.blocked)
    return [*checks, Check("does not block the event loop", blocked)]


def _samples(hook: str, manifest: PluginManifest) -> list[tuple[str, dict[str, Any]]]:
    if hook != "event_received":
        return [(hook, sample_payload(hook))]
    return [(f"{hook} {event_type}", sample_event(event_type)) for event_type in sample_types(manifest)]


def _depends(manifest: PluginManifest, payload: dict[str, Any]) -> bool:
    unknown = "type" in payload and not payload.get("data")
    return unknown or not _OUTWARD.isdisjoint(manifest.capabilities.asked())


async def _answers(guest: Guest, hook: str, payload: dict[str, Any], lenient: bool) -> str:
    spec = hook_spec(hook)
    try:
        output = (await guest.call(hook, payload)).output
        reply = _REPLIES[spec.kind].model_validate_json(output)
        if isinstance(reply, FilterReply) and reply.payload is not None and spec.payload is not None:
            spec.payload.model_validate(reply.payload)
        if isinstance(reply, DecideReply) and reply.answer is not None and spec.result is not None:
            spec.result.model_validate(reply.answer)
    except ValidationError as error:
        places = "; ".join(
            f"{'.'.join(map(str, e['loc'])) or 'reply'}: {e['msg']}" for e in error.errors(include_url=False)
        )
        return f"the reply does not fit: {places}"
    except KeelstoneError as error:
        return "" if lenient and error.code == "guest-error" else str(error)
    return ""


async def _survives(guest: Guest, hook: str, payload: dict[str, Any]) -> str:
    try:
        await guest.call(hook, payload, grants=())
    except KeelstoneError as error:
        # A failure that the guest reports itself is an answer; a trap or a broken limit is not.
        return "" if error.code == "guest-error" else str(error)
    return ""


async def _refuses(guest: Guest) -> str:
    unclaimed = "hook_of_another_plugin"
    try:
        output = (await guest.call_raw(unclaimed, json.dumps({}))).output
    except KeelstoneError as error:
        return "" if error.code == "guest-error" else str(error)
    return f"it answered {unclaimed} with {output[:200]}"
