"""Capability ``kv``: small durable state, private to this plugin and tenant.

Values are strings; ``get_json`` and ``set_json`` keep anything that JSON can say. The writes of one
call are saved together, and only if the call succeeds. Every function raises HostError.
"""

from __future__ import annotations

import json
from typing import Any

from .host import bindings, call

_host = bindings("kv")


def get(key: str) -> str | None:
    """The value of ``key``, or None."""
    found: str | None = call(_host, "kv", "get", key)
    return found


def set(key: str, value: str) -> None:
    """Write one value."""
    call(_host, "kv", "set", key, value)


def delete(key: str) -> None:
    """Remove one key; nothing happens if there is none."""
    call(_host, "kv", "delete", key)


def keys(prefix: str = "", limit: int = 100) -> list[str]:
    """Keys that begin with ``prefix``, in order, at most ``limit``."""
    return list(call(_host, "kv", "list_keys", prefix, limit))


def get_json(key: str, otherwise: Any = None) -> Any:
    """The value of ``key`` as a Python value, or ``otherwise`` if there is none."""
    found = get(key)
    return otherwise if found is None else json.loads(found)


def set_json(key: str, value: Any) -> None:
    """Write a Python value as JSON."""
    set(key, json.dumps(value, ensure_ascii=False, separators=(",", ":"), sort_keys=True))
