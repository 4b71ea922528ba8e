"""Capability ``services``: what other plugins offer, in this call's tenant."""

from __future__ import annotations

import json
from typing import Any

from .host import bindings
from .host import call as _call

_host = bindings("services")


def call(plugin: str, method: str, /, **payload: Any) -> Any:
    """The answer of another plugin's method, as a Python value. Raises HostError."""
    return json.loads(_call(_host, "services", "call", plugin, method, json.dumps(payload, ensure_ascii=False)))
