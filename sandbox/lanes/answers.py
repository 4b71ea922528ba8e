"""What a call came to, whichever lane ran it: the outcome, or the error that it must be."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sandbox.errors import GuestError, GuestOutputInvalid, GuestOutputTooLarge

if TYPE_CHECKING:
    from sandbox.hostcalls import HostCalls

MAX_MESSAGE = 2_000
"""Bytes of a guest's own error message that are kept."""


class Outcome:
    """A guest's answer, its wall time in microseconds, and bytes of linear memory at its end."""

    __slots__ = ("memory_bytes", "output", "wall_us")

    def __init__(self, output: str, wall_us: int, memory_bytes: int) -> None:
        self.output, self.wall_us, self.memory_bytes = output, wall_us, memory_bytes


def no_result(host: HostCalls) -> GuestOutputInvalid:
    """The guest's answer is not a result."""
    return GuestOutputInvalid(
        "The guest's answer is not a result.",
        plugin=host.call.plugin,
        hook=host.call.hook,
        tenant=host.call.context.tenant,
        expected="result<string, string>",
        found="a value of another type",
        fix="Build it against plugin_sdk/wit/keelstone.wit.",
    )


def own_failure(host: HostCalls, message: bytes) -> GuestError:
    """The guest reported a failure in its own words."""
    text = message.decode("utf-8", "replace")
    return GuestError(
        f"The plugin reported a failure: {text or '(no message)'}",
        plugin=host.call.plugin,
        hook=host.call.hook,
        tenant=host.call.context.tenant,
        fix="The message is the plugin's own; its log may say more.",
    )


def too_large(host: HostCalls, size: int) -> GuestOutputTooLarge:
    """The guest's answer has ``size`` bytes, more than it may."""
    limit = host.limits.output
    return GuestOutputTooLarge(
        "The plugin answered too much.",
        plugin=host.call.plugin,
        hook=host.call.hook,
        tenant=host.call.context.tenant,
        expected=f"at most {limit} bytes (limits.output_kb)",
        found=f"{size} bytes",
        fix="Answer less, or raise limits.output_kb in plugin.toml.",
        extra={"limit": "output", "allowed": limit, "used": size},
    )
