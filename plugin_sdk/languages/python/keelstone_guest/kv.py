"""Capability ``kv``: small durable state, private to this plugin and tenant.

Values are strings; ``get_json`` and ``set_json`` keep anything that JSON can say. The writes of one
call are saved together, and only if the call succeeds. Every function raises HostError.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
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


def set_if(key: str, value: str, expected: str | None) -> bool:
    """Write only if the key has the value ``expected`` (None: there is no such key). False if it has not."""
    done: bool = call(_host, "kv", "set_if", key, value, expected)
    return done


def set_for(key: str, value: str, seconds: int) -> None:
    """Write a value that is gone after so many seconds."""
    call(_host, "kv", "set_for", key, value, seconds)


def get_many(keys: Iterable[str]) -> list[str | None]:
    """The values of several keys, in the order asked for; None where there is none."""
    return list(call(_host, "kv", "get_many", list(keys)))


def set_many(values: Mapping[str, str]) -> None:
    """Write several values: all of them, or none."""
    entries = [] if _host is None else [_host.Entry(key=key, value=value) for key, value in values.items()]
    call(_host, "kv", "set_many", entries)


def get_json(key: str, otherwise: Any = None) -> Any:
    """The value of ``key`` as a Python value, or ``otherwise`` if there is none."""
    found = get(key)
    return otherwise if found is None else json.loads(found)


def set_json(key: str, value: Any) -> None:
    """Write a Python value as JSON."""
    set(key, json.dumps(value, ensure_ascii=False, separators=(",", ":"), sort_keys=True))
