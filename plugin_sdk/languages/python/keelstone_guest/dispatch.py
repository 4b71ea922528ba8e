"""From `handle(hook, payload)` to the plugin's function, and its answer back to JSON."""

from __future__ import annotations

import json
import os
import random
import traceback
from collections.abc import Callable, Mapping
from types import ModuleType
from typing import Any, TypeVar

from . import (
    log,
    preload,  # noqa: F401 - its imports are its purpose
)
from .payload import Payload
from .payloads import AccessRequest, EventView, InstallRequest, TenantDraft, UserDraft
from .replies import Reject, decide_reply, filter_reply, observe_reply

F = TypeVar("F", bound=Callable[..., Any])
Reply = Callable[[object], dict[str, Any]]

HOOKS: Mapping[str, tuple[type[Payload], Reply]] = {
    "user_creating": (UserDraft, filter_reply),
    "user_updating": (UserDraft, filter_reply),
    "tenant_creating": (TenantDraft, filter_reply),
    "access_deciding": (AccessRequest, decide_reply),
    "plugin_installing": (InstallRequest, decide_reply),
    "event_received": (EventView, observe_reply),
}
"""Every hook that a guest can implement: its payload, and how its answer becomes a reply."""

_MARK = "__keelstone_hooks__"
_ENCODER = json.JSONEncoder(ensure_ascii=False, separators=(",", ":"))


class GuestFailure(Exception):
    """What `handle` reports as its error: one line for the log and the caller."""


def hook(name: str) -> Callable[[F], F]:
    """Mark a function as the plugin's implementation of the hook ``name``. Raises ValueError."""
    if name not in HOOKS:
        raise ValueError(f"there is no hook {name!r}; there are: {', '.join(HOOKS)}")

    def mark(function: F) -> F:
        setattr(function, _MARK, (*getattr(function, _MARK, ()), name))
        return function

    return mark


class Dispatcher:
    """A plugin module's implementations by hook. Raises ValueError if two claim one hook."""

    def __init__(self, plugin: ModuleType) -> None:
        self._awake = False
        self._functions: dict[str, Callable[[Any], object]] = {}
        for function in vars(plugin).values():
            for name in getattr(function, _MARK, ()):
                if self._functions.setdefault(name, function) is not function:
                    raise ValueError(f"two functions of {plugin.__name__} implement {name}")

    @property
    def hooks(self) -> tuple[str, ...]:
        """The hooks that are implemented."""
        return tuple(sorted(self._functions))

    def handle(self, name: str, payload: str) -> str:
        """The JSON reply. Raises GuestFailure."""
        function = self._functions.get(name)
        if function is None:
            raise GuestFailure(f"this plugin does not implement {name}")
        if not self._awake:
            # The interpreter was frozen at build time with its random state: each instance begins anew.
            random.seed(os.urandom(16))
            self._awake = True
        model, reply = HOOKS[name]
        try:
            answer = reply(function(model.from_json(json.loads(payload))))
        except Reject as refusal:
            if reply is not filter_reply:
                raise GuestFailure(f"{name} is not a filter, so it cannot reject") from None
            answer = {"reject": {"reason": refusal.reason}}
        except Exception as error:
            if log.available():
                log.error(traceback.format_exc(limit=-8))
            raise GuestFailure(f"{type(error).__name__}: {error}") from None
        return _ENCODER.encode(answer)
