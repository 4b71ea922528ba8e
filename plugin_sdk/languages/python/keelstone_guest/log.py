"""Capability ``log``: lines for the plugin's log, seen by the tenant's admin and the operator."""

from __future__ import annotations

from .host import bindings, call

_host = bindings("log")


def _write(level: str, message: str) -> None:
    call(_host, "log", "write", getattr(_host.Level, level) if _host else level, str(message))


def debug(message: str) -> None:
    """A line for whoever looks for a fault."""
    _write("DEBUG", message)


def info(message: str) -> None:
    """A line that says what was done."""
    _write("INFO", message)


def warn(message: str) -> None:
    """A line about something odd that did not stop the work."""
    _write("WARN", message)


def error(message: str) -> None:
    """A line about something that failed."""
    _write("ERROR", message)


def available() -> bool:
    """Whether the manifest asks for the capability."""
    return _host is not None
