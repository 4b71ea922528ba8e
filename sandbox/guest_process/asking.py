"""The outside as the guest process has it: whatever a call needs from there is asked of the platform."""

from __future__ import annotations

import base64
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any, TypeVar

from pydantic import TypeAdapter

from kernel.context import Context
from kernel.errors import KeelstoneError
from kernel.manifest import HttpCapability
from kernel.ports import (
    AiAnswer,
    AiModels,
    AiRequest,
    KvValue,
    Notice,
    Notifier,
    SecretSource,
    ServiceCalls,
)
from sandbox.guest_process import wire
from sandbox.hostcalls import TOLD, HostServices
from sandbox.outgoing import EgressRefused, EgressRequest, EgressResponse

T = TypeVar("T")
Asker = Callable[[wire.Wanted], Awaitable[Any]]
"""Sends one question of a call and waits for the answer, JSON-ready. Raises what :func:`failure` gives."""

PORTS: Mapping[str, type[Any]] = {
    "secrets": SecretSource,
    "ai": AiModels,
    "notify": Notifier,
    "services": ServiceCalls,
}
"""Ports that plugins publish services under, by the interface whose host calls need them."""
_FAILURES = {code: kind for kind, code in TOLD.items()}


def failure(code: str, message: str) -> KeelstoneError:
    """The platform's own error that a host call's gate takes for the failure ``code``."""
    return _FAILURES.get(code, KeelstoneError)(message)


def services_of(run: wire.Run, ask: Asker) -> HostServices:
    """What the host calls of one call reach outside."""
    ports: dict[type[Any], Any] = {
        SecretSource: _Secrets(ask),
        AiModels: _Models(ask),
        Notifier: _Notices(ask),
        ServiceCalls: _Services(ask),
    }
    offered = {PORTS[name]: ports[PORTS[name]] for name in run.offers if name in PORTS}
    return HostServices(
        kv=_Kv(ask) if "kv" in run.offers else None,
        egress=_Sender(ask) if "http" in run.offers else None,
        event_schema=run.schemas.get,
        find=offered.get,
    )


class _Kv:
    def __init__(self, ask: Asker) -> None:
        self._ask = ask

    async def get(self, tenant: str, plugin: str, key: str) -> KvValue | None:
        return (await self.get_many(tenant, plugin, (key,))).get(key)

    async def get_many(self, tenant: str, plugin: str, keys: Sequence[str]) -> dict[str, KvValue]:
        return _VALUES.validate_python(await self._ask(wire.KvGet(tuple(keys))))

    async def list_keys(self, tenant: str, plugin: str, prefix: str, limit: int) -> list[str]:
        found: list[str] = await self._ask(wire.KvList(prefix, limit))
        return found

    async def usage(self, tenant: str, plugin: str) -> tuple[int, int]:
        keys, used = await self._ask(wire.KvUsage())
        return keys, used


class _Secrets:
    """Gives what stands for the values; the platform puts those in, and takes them out of the answer."""

    def __init__(self, ask: Asker) -> None:
        self._ask = ask

    async def secrets(self, tenant: str, plugin: str) -> Mapping[str, str]:
        found: dict[str, str] = await self._ask(wire.Secrets())
        return found


class _Sender:
    def __init__(self, ask: Asker) -> None:
        self._ask = ask

    async def send(
        self,
        request: EgressRequest,
        capability: HttpCapability,
        settings: Mapping[str, Any],
        *,
        budget: int,
        seconds: float,
        count: Callable[[int], None],
        visit: Callable[[str, str], None],
    ) -> EgressResponse:
        answer = await self._ask(
            wire.Send(
                request.method,
                request.url,
                request.headers,
                base64.b64encode(request.body).decode(),
                tuple((secret.name, secret.placeholder) for secret in request.secrets),
                budget,
                seconds,
            )
        )
        sent = _SENT.validate_python(answer)
        count(sent.count)
        for method, host in sent.visits:
            visit(method, host)
        used = {secret.name: secret.used for secret in request.secrets}
        for name in sent.used:
            used[name](name)
        if sent.refused is not None:
            raise EgressRefused(*sent.refused)
        return EgressResponse(sent.status, sent.headers, base64.b64decode(sent.body))


class _Models:
    def __init__(self, ask: Asker) -> None:
        self._ask = ask

    async def complete(self, request: AiRequest) -> AiAnswer:
        wanted = wire.Complete(request.model, request.text, request.system, request.max_tokens)
        return _ANSWER.validate_python(await self._ask(wanted))


class _Notices:
    def __init__(self, ask: Asker) -> None:
        self._ask = ask

    async def notify(self, notice: Notice) -> str:
        return str(await self._ask(wire.Notify(notice.channel, notice.recipient, notice.subject, notice.body)))


class _Services:
    def __init__(self, ask: Asker) -> None:
        self._ask = ask

    async def call(self, context: Context, plugin: str, method: str, payload: str) -> str:
        return str(await self._ask(wire.CallService(plugin, method, payload, context.remaining())))


_VALUES: TypeAdapter[dict[str, KvValue]] = TypeAdapter(dict[str, KvValue])
_ANSWER: TypeAdapter[AiAnswer] = TypeAdapter(AiAnswer)
_SENT: TypeAdapter[wire.Sent] = TypeAdapter(wire.Sent)
