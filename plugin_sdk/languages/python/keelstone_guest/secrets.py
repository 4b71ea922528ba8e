"""Capability ``secrets``: have secrets sent that the plugin cannot read."""

from __future__ import annotations

from .host import bindings, call

_host = bindings("secrets")


def placeholder(name: str) -> str:
    """Text that stands for the secret in this call's requests: ask in each call. Raises HostError."""
    found: str = call(_host, "secrets", "placeholder", name)
    return found
