"""The border to the host: finds the generated bindings and turns refusals into HostError.

Inside a component the bindings are complete for the capabilities of the manifest and absent for all
others. Outside one (unit tests of pure functions) there are none at all.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from typing import Any


class HostError(Exception):
    """The host refused or failed a call; ``code`` is stable: not-granted, invalid, denied, not-found,
    unavailable, deadline, or a limit's, which begins with ``limit-``."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(f"{code}: {message}")
        self.code = code
        self.message = message


def bindings(capability: str) -> Any:
    """The generated module of one capability, or None where the manifest does not ask for it."""
    try:
        return importlib.import_module(f"wit_world.imports.{capability}")
    except ImportError:
        return None


def call(module: Any, capability: str, function: str, *arguments: Any) -> Any:
    """The host's answer. Raises HostError."""
    if module is None:
        raise HostError(
            "not-granted",
            f"{capability}.{function} needs [capabilities.{capability}] in plugin.toml, and a component to run in",
        )
    target: Callable[..., Any] | None = getattr(module, function, None)
    if target is None:
        raise HostError("unavailable", f"{capability}.{function} is newer than this plugin's requires.kernel")
    try:
        return target(*arguments)
    except Exception as error:
        # componentize-py raises its own Err, whose value is keelstone.wit's `failure` record.
        failure: Any = getattr(error, "value", None)
        if hasattr(failure, "code") and hasattr(failure, "message"):
            raise HostError(failure.code, failure.message) from None
        raise
