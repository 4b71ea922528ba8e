"""The decoder of guests' answers: any text, for any hook."""

from __future__ import annotations

from functools import cache
from typing import Any

from pydantic import BaseModel

from kernel import payloads
from kernel.context import Context
from kernel.errors import KeelstoneError
from kernel.guests import _lift
from kernel.hookspecs import HookSpec, hook_spec
from kernel.payloads import Reject
from kernel.ports import Effects, GuestCall, GuestResult, GuestUsage
from tests.fuzz.feed import told
from tests.hostile.corpus import manifest_of

HOOKS = ("user_creating", "tenant_creating", "access_deciding", "plugin_installing", "event_received")


@cache
def _prepared(hook: str) -> tuple[HookSpec, BaseModel, GuestCall]:
    asked: dict[str, BaseModel] = {
        "user_creating": payloads.UserDraft(email="ada@example.com", name="Ada"),
        "tenant_creating": payloads.TenantDraft.model_construct(slug="acme", name="Acme"),
        "access_deciding": payloads.AccessRequest.model_construct(),
        "plugin_installing": payloads.InstallRequest.model_construct(),
        "event_received": payloads.EventView.model_construct(),
    }
    manifest = manifest_of()
    call = GuestCall(manifest.id, manifest.version, "0" * 64, manifest, hook, "{}", Context(tenant="acme"))
    return hook_spec(hook), asked[hook], call


def TestOneInput(data: bytes) -> None:
    """The first byte names the hook; what comes out is what the hook promises to its caller."""
    spec, payload, call = _prepared(HOOKS[data[0] % len(HOOKS)] if data else HOOKS[0])
    result = GuestResult(data[1:].decode("utf-8", "replace"), Effects(), GuestUsage(0, 0, 0, 0))
    try:
        found: Any = _lift(spec, result, payload, call)
    except KeelstoneError as error:
        told(error)
        return
    if spec.kind == "filter":
        assert found is None or isinstance(found, (type(payload), Reject))
    elif spec.kind == "decide":
        assert found is None or (spec.result is not None and isinstance(found, spec.result))
    else:
        assert found is None
    if found is not None:
        found.model_dump_json()
