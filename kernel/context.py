"""The work in hand: tenant, principal, correlation id and deadline, carried by a context variable."""

from __future__ import annotations

import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field, replace
from typing import Literal

PLATFORM_TENANT = "platform"
"""The reserved tenant in which operators live; no customer can have this id."""

PrincipalKind = Literal["user", "api_key", "plugin", "system", "anonymous"]


@dataclass(frozen=True, slots=True)
class Principal:
    """Who acts: a person, an API key, a plugin or the platform itself."""

    id: str
    kind: PrincipalKind
    tenant: str
    roles: frozenset[str] = frozenset()
    permissions: frozenset[str] = frozenset()

    @property
    def is_operator(self) -> bool:
        """True for operators of the platform tenant, who may act on every tenant."""
        return self.tenant == PLATFORM_TENANT and "*" in self.permissions


ANONYMOUS = Principal(id="anonymous", kind="anonymous", tenant="")


def system_principal(tenant: str) -> Principal:
    """The platform itself, acting inside one tenant (relay, consumers, seeding)."""
    return Principal(id="system", kind="system", tenant=tenant, permissions=frozenset({"*"}))


@dataclass(frozen=True, slots=True)
class Context:
    """What every call of the kernel knows about the work it belongs to.

    ``deadline`` is a moment on :func:`time.monotonic`'s clock, in seconds.
    """

    tenant: str
    principal: Principal = ANONYMOUS
    correlation_id: str = field(default_factory=lambda: new_id())
    deadline: float = float("inf")

    def remaining(self) -> float:
        """Seconds left before the deadline; never negative."""
        return max(0.0, self.deadline - time.monotonic())

    def within(self, seconds: float) -> Context:
        """The same work with a deadline at most ``seconds`` from now."""
        return replace(self, deadline=min(self.deadline, time.monotonic() + seconds))


def system_context(tenant: str, correlation_id: str | None = None) -> Context:
    """A context for work that the platform does on its own behalf inside ``tenant``."""
    return Context(
        tenant=tenant,
        principal=system_principal(tenant),
        correlation_id=correlation_id or new_id(),
    )


def new_id() -> str:
    """A time-ordered unique id: UUID version 7 (RFC 9562), 32 hexadecimal digits."""
    random = uuid.uuid4().int
    millis = time.time_ns() // 1_000_000
    value = (millis & ((1 << 48) - 1)) << 80 | random & ((1 << 80) - 1)
    value = value & ~(0xF << 76) | 0x7 << 76
    value = value & ~(0x3 << 62) | 0x2 << 62
    return f"{value:032x}"


_current: ContextVar[Context | None] = ContextVar("keelstone_context", default=None)


def current_context() -> Context | None:
    """The context of the work in hand, or None outside any."""
    return _current.get()


@contextmanager
def use_context(context: Context) -> Iterator[Context]:
    """Make ``context`` the one in hand for the body of the ``with``."""
    token = _current.set(context)
    try:
        yield context
    finally:
        _current.reset(token)
