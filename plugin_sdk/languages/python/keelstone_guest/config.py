"""Capability ``config``: the tenant's settings for this plugin, after defaults."""

from __future__ import annotations

import json
from typing import Any

from .host import bindings, call

_host = bindings("config")


def get(key: str, otherwise: Any = None) -> Any:
    """One setting as a Python value, or ``otherwise`` if it is not set. Raises HostError."""
    found = call(_host, "config", "get", key)
    return otherwise if found is None else json.loads(found)
