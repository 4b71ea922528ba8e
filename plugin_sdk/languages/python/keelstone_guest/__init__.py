"""Keelstone's guest library for Python: everything a sandboxed plugin's source may import.

Mark one function per hook of the manifest; it gets a typed payload and answers in plain Python::

    from keelstone_guest import Reject, UserDraft, hook

    @hook("user_creating")
    def tidy(draft: UserDraft) -> UserDraft:
        if not draft.name.strip():
            raise Reject("Please tell us your name.")
        return draft.replace(name=" ".join(draft.name.split()))

A *filter* returns the changed payload, or None to keep it, or raises :class:`Reject`. A *decide*
returns :class:`Allow`, :class:`Deny`, or None for no opinion. An *observe* returns None; any exception
means "not done", and the event comes again later.

Host calls are modules named like the capabilities: ``log``, ``config``, ``kv``, ``http``, ``events``,
``secrets``, ``ai``, ``notify``, ``clock``, ``random``, ``services``.
They raise :class:`HostError` when the host refuses.
"""

from . import ai, clock, config, events, http, kv, log, notify, random, secrets, services
from .dispatch import hook
from .host import HostError
from .payloads import AccessRequest, EventView, InstallRequest, TenantDraft, UserDraft
from .replies import Allow, Deny, Reject

__all__ = [
    "AccessRequest",
    "Allow",
    "Deny",
    "EventView",
    "HostError",
    "InstallRequest",
    "Reject",
    "TenantDraft",
    "UserDraft",
    "ai",
    "clock",
    "config",
    "events",
    "hook",
    "http",
    "kv",
    "log",
    "notify",
    "random",
    "secrets",
    "services",
]
