"""What the platform answers its guest process: only what a call under way may ask for, of that call's tenant alone."""

from __future__ import annotations

import base64
import binascii
import secrets
from collections.abc import Mapping
from typing import Any

from kernel.errors import KeelstoneError
from kernel.ports import AiModels, AiRequest, GuestCall, Notice, Notifier, SecretSource, ServiceCalls
from kernel.service_calls import acting_as
from sandbox.calltime import MOST_GIVEN
from sandbox.guest_process import wire
from sandbox.guest_process.asking import PORTS
from sandbox.hostcalls import HostServices, Refused, told_as
from sandbox.outgoing import EgressRefused, EgressRequest
from sandbox.policy import MAX_BATCH, MAX_KEY_CHARS, MAX_LISTED_KEYS, EffectiveLimits
from sandbox.secrets import Masker, Secret


def offers(call: GuestCall, services: HostServices) -> tuple[str, ...]:
    """The interfaces that the call may use and that somebody answers."""
    found = [name for name, port in PORTS.items() if granted(call, name) and services.find(port) is not None]
    found += [n for n, answered in (("kv", services.kv), ("http", services.egress)) if answered and granted(call, n)]
    return tuple(found)


def schemas(call: GuestCall, services: HostServices) -> dict[str, dict[str, Any]]:
    """The registered schemas of the event types that the call may emit."""
    events = call.manifest.capabilities.events
    if events is None or services.event_schema is None or not granted(call, "events"):
        return {}
    return {name: dict(found) for name in events.emits if (found := services.event_schema(name)) is not None}


def granted(call: GuestCall, interface: str) -> bool:
    """Whether the manifest asks for the interface and the tenant has granted it."""
    return interface in call.grants and getattr(call.manifest.capabilities, interface, None) is not None


class Answers:
    """Answers what one call asks for. The answers are JSON-ready; a :class:`Refused` is its failure."""

    def __init__(self, call: GuestCall, limits: EffectiveLimits, services: HostServices) -> None:
        self._call, self._limits, self._services = call, limits, services
        self._secrets: dict[str, str] | None = None
        self._http_bytes = 0

    async def to(self, wanted: wire.Wanted) -> Any:
        """The answer. Raises Refused."""
        if not granted(self._call, wanted.what.partition(".")[0]):
            raise Refused("not-granted", f"this tenant has not granted it to {self._call.plugin}")
        try:
            return await self._answer(wanted)
        except KeelstoneError as error:
            raise Refused(told_as(error), error.detail) from error

    async def _answer(self, wanted: wire.Wanted) -> Any:
        call = self._call
        tenant, plugin = call.context.tenant, call.plugin
        match wanted:
            case wire.Secrets():
                # A value that is not there cannot be read: what stands for it means nothing to anybody else.
                return {name: secrets.token_hex(16) for name in await self._values()}
            case wire.Send():
                return await self._send(wanted)
            case wire.Complete(model, text, system, max_tokens):
                capability = call.manifest.capabilities.ai
                if capability is None or model not in capability.models:
                    raise Refused("denied", "the model is not among capabilities.ai.models")
                most = min(max_tokens, self._limits.ai_tokens)
                return await self._port(AiModels).complete(AiRequest(tenant, plugin, model, text, system, most))
            case wire.Notify(channel, recipient, subject, body):
                notify = call.manifest.capabilities.notify
                if notify is None or channel not in notify.channels:
                    raise Refused("denied", "the channel is not among capabilities.notify.channels")
                return await self._port(Notifier).notify(Notice(tenant, plugin, channel, recipient, subject, body))
            case wire.CallService(provider, method, payload, seconds):
                services = call.manifest.capabilities.services
                if services is None or method not in services.calls.get(provider, ()):
                    raise Refused("denied", "the method is not among capabilities.services.calls")
                context = acting_as(call.context, plugin).within(seconds)
                return await self._port(ServiceCalls).call(context, provider, method, payload)
            case _:
                return await self._look_up(wanted, tenant, plugin)

    async def _look_up(self, wanted: wire.KvGet | wire.KvList | wire.KvUsage, tenant: str, plugin: str) -> Any:
        kv = self._services.kv
        if kv is None:
            raise Refused("unavailable", "there is no key-value store")
        match wanted:
            case wire.KvGet(keys):
                if len(keys) > 2 * MAX_BATCH or any(len(key) > MAX_KEY_CHARS for key in keys):
                    raise Refused("invalid", "too many keys, or too long ones")
                if len(keys) == 1:
                    found = await kv.get(tenant, plugin, keys[0])
                    return {} if found is None else {keys[0]: found}
                return await kv.get_many(tenant, plugin, keys)
            case wire.KvList(prefix, limit):
                return await kv.list_keys(tenant, plugin, prefix[:MAX_KEY_CHARS], min(limit, 2 * MAX_LISTED_KEYS))
            case wire.KvUsage():
                return await kv.usage(tenant, plugin)

    def _port(self, port: type[Any]) -> Any:
        found = self._services.find(port)
        if found is None:
            raise Refused("unavailable", "no installed plugin answers it")
        return found

    async def _values(self) -> Mapping[str, str]:
        if self._secrets is None:
            source = self._port(SecretSource)
            self._secrets = dict(await source.secrets(self._call.context.tenant, self._call.plugin))
        return self._secrets

    async def _send(self, wanted: wire.Send) -> wire.Sent:
        capability, egress = self._call.manifest.capabilities.http, self._services.egress
        if capability is None or egress is None:
            raise Refused("unavailable", "there is no way out")
        values: Mapping[str, str] = {}
        uses = self._call.manifest.capabilities.secrets
        if uses is not None and granted(self._call, "secrets") and self._services.find(SecretSource) is not None:
            values = await self._values()
        used: list[str] = []
        known = {} if uses is None else uses.names
        hidden = tuple(
            Secret(name, mark, values[name], known[name], used.append)
            for name, mark in wanted.secrets
            if name in values and name in known
        )
        visits: list[tuple[str, str]] = []
        before, mask = self._http_bytes, Masker(values)
        try:
            body = base64.b64decode(wanted.body, validate=True)
            answer = await egress.send(
                EgressRequest(wanted.method, wanted.url, wanted.headers, body, hidden),
                capability,
                self._call.settings,
                budget=min(wanted.budget, self._limits.http - before),
                seconds=min(wanted.seconds, self._limits.time_ms / 1_000 + MOST_GIVEN),
                count=self._count,
                visit=lambda method, host: visits.append((method, host)),
            )
        except binascii.Error as error:
            raise Refused("invalid", f"the body is not base64: {error}") from None
        except EgressRefused as refused:
            return wire.Sent(
                self._http_bytes - before, tuple(visits), tuple(used), refused=(refused.code, refused.message)
            )
        return wire.Sent(
            self._http_bytes - before,
            tuple(visits),
            tuple(used),
            answer.status,
            tuple((mask(name), mask(value)) for name, value in answer.headers),
            base64.b64encode(mask(answer.body.decode("utf-8", "replace")).encode()).decode(),
        )

    def _count(self, size: int) -> None:
        self._http_bytes += size
