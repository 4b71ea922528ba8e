"""What a guest wants to send, what came back, and who sends it: sandbox.egress, or a process that asks it to."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from kernel.manifest import HttpCapability
from sandbox.secrets import Secret


class EgressRefused(Exception):
    """The request was refused or failed; ``code`` is one of the contract's failure codes."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code, self.message = code, message


@dataclass(frozen=True, slots=True)
class EgressRequest:
    """What a guest wants to send."""

    method: str
    url: str
    headers: tuple[tuple[str, str], ...] = ()
    body: bytes = b""
    secrets: tuple[Secret, ...] = ()
    """Secrets whose placeholders may stand in headers and body."""


@dataclass(frozen=True, slots=True)
class EgressResponse:
    """What came back, whole."""

    status: int
    headers: tuple[tuple[str, str], ...]
    body: bytes


class Sender(Protocol):
    """The way out."""

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
        """Send within ``seconds`` and ``budget`` bytes (sent and received). Raises EgressRefused.

        ``count`` is told the bytes as they go, ``visit`` the method and host of every hop.
        """
        ...
