"""Capability ``notify``: messages to people."""

from __future__ import annotations

from .host import bindings, call

_host = bindings("notify")


def send(channel: str, recipient: str, subject: str, body: str) -> str:
    """The message's id, once it is accepted for delivery. Raises HostError."""
    notice = None
    if _host is not None:
        notice = _host.Notice(channel=channel, recipient=recipient, subject=subject, body=body)
    found: str = call(_host, "notify", "send", notice)
    return found
