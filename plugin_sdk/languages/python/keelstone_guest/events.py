"""Capability ``events``: emit events of the types that the manifest declares."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from .host import bindings, call

_host = bindings("events")


def emit(event_type: str, data: Mapping[str, Any]) -> None:
    """Emit one event; it is saved if the call succeeds. Raises HostError."""
    call(_host, "events", "emit", event_type, json.dumps(data, ensure_ascii=False))
