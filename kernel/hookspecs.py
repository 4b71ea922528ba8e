"""Every hook of the platform, one sentence each. This page is the whole extension surface.

``contribute`` hooks run once at boot, synchronously; ``filter``, ``decide`` and ``observe`` hooks
run per request or event and are implemented by built-ins, extensions and guests alike. An
implementation may be sync or async, and may leave out arguments that it does not need.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal, TypeVar

import pluggy
from pydantic import BaseModel

from kernel import payloads
from kernel.context import Context
from kernel.errors import UnknownHook

CONTRACT_GENERATIONS = ("1.0.0", "1.1.0")
"""SemVer of every generation of the contract that is served, oldest first: ``requires.kernel`` in a
manifest is a range over them, and a plugin runs if it admits one. Generations of one major version
only add; what is dropped or changed begins another."""

HOOK_CONTRACT_VERSION = CONTRACT_GENERATIONS[-1]
"""SemVer of this page."""

PROJECT = "keelstone"
HookKind = Literal["contribute", "filter", "decide", "observe"]
FailurePolicy = Literal["fail_open", "fail_closed"]
F = TypeVar("F", bound=Callable[..., Any])

_marker = pluggy.HookspecMarker(PROJECT)
hookimpl = pluggy.HookimplMarker(PROJECT)


@dataclass(frozen=True, slots=True)
class HookSpec:
    """What the dispatcher must know about one hook. ``deadline_ms`` bounds each implementation."""

    name: str
    kind: HookKind
    summary: str
    payload: type[BaseModel] | None = None
    result: type[BaseModel] | None = None
    on_failure: FailurePolicy = "fail_open"
    deadline_ms: int = 1_000

    @property
    def for_guests(self) -> bool:
        """Whether sandboxed guests may implement it."""
        return self.kind != "contribute"


def _hook(
    kind: HookKind,
    payload: type[BaseModel] | None = None,
    result: type[BaseModel] | None = None,
    on_failure: FailurePolicy = "fail_open",
    deadline_ms: int = 1_000,
) -> Callable[[F], F]:
    def mark(function: F) -> F:
        summary = " ".join((function.__doc__ or "").split())
        spec = HookSpec(function.__name__, kind, summary, payload, result, on_failure, deadline_ms)
        function.declared_hook = spec  # type: ignore[attr-defined]
        return _marker(function)

    return mark


class HookSpecs:
    """The specifications, as pluggy reads them."""

    # ------------------------------------------------------------------ contribute (boot)

    @_hook("contribute")
    def contribute_routes(self) -> Any:
        """REST routers, each a ``plugin_sdk.web.Routes``, mounted under /api/v1."""

    @_hook("contribute")
    def contribute_graphql(self) -> Any:
        """GraphQL query and mutation classes, each a ``plugin_sdk.web.GraphQL``."""

    @_hook("contribute")
    def contribute_event_handlers(self) -> Any:
        """Consumers of events, each an ``EventHandler``: idempotent, ordered by stream."""

    @_hook("contribute")
    def contribute_projections(self) -> Any:
        """Read models built from events, each a ``Projection`` that can be rebuilt."""

    @_hook("contribute")
    def contribute_tables(self) -> Any:
        """The plugin's tables and migrations, one ``plugin_sdk.data.Schema``."""

    @_hook("contribute")
    def contribute_health_checks(self) -> Any:
        """Checks that must pass before the platform is ready, each a ``HealthCheck``."""

    @_hook("contribute")
    def contribute_services(self) -> Any:
        """What guests may call of this plugin, each a ``ServiceMethod`` (since 1.1)."""

    @_hook("contribute")
    def starting(self) -> Any:
        """Work to do once tables are there and before the platform is ready; may be async."""

    @_hook("contribute")
    def stopping(self) -> Any:
        """Work to do when the platform stops; may be async."""

    # ------------------------------------------------------------------ filter (request)

    @_hook("filter", payload=payloads.UserDraft, on_failure="fail_closed")
    def user_creating(self, payload: payloads.UserDraft, context: Context) -> Any:
        """A person is about to be registered: change the draft or refuse it."""

    @_hook("filter", payload=payloads.UserDraft, on_failure="fail_closed")
    def user_updating(self, payload: payloads.UserDraft, context: Context) -> Any:
        """A person's profile is about to change: change the draft or refuse it."""

    @_hook("filter", payload=payloads.TenantDraft, on_failure="fail_closed")
    def tenant_creating(self, payload: payloads.TenantDraft, context: Context) -> Any:
        """A tenant is about to be provisioned: change the draft or refuse it."""

    # ------------------------------------------------------------------ decide (request)

    @_hook("decide", payload=payloads.AccessRequest, result=payloads.AccessDecision, on_failure="fail_closed")
    def access_deciding(self, payload: payloads.AccessRequest, context: Context) -> Any:
        """May the principal do this: the first answer wins, and can deny what roles allow, never the reverse."""

    @_hook("decide", payload=payloads.InstallRequest, result=payloads.InstallDecision, on_failure="fail_closed")
    def plugin_installing(self, payload: payloads.InstallRequest, context: Context) -> Any:
        """A verified release is about to be installed: policy may refuse it."""

    # ------------------------------------------------------------------ observe (after commit)

    @_hook("observe", payload=payloads.EventView, deadline_ms=30_000)
    def event_received(self, payload: payloads.EventView, context: Context) -> Any:
        """An event of a type in the manifest's ``events.subscribes`` was committed."""


def _collect() -> dict[str, HookSpec]:
    found = {}
    for name, member in vars(HookSpecs).items():
        spec = getattr(member, "declared_hook", None)
        if spec is not None:
            found[name] = spec
    return found


HOOKS: dict[str, HookSpec] = _collect()
"""Every hook by name."""


def hook_spec(name: str) -> HookSpec:
    """The hook of that name. Raises UnknownHook with the names there are."""
    try:
        return HOOKS[name]
    except KeyError:
        raise UnknownHook(
            f"There is no hook {name!r}.",
            hook=name,
            expected=", ".join(HOOKS),
            found=name,
            fix="See docs/reference/hooks.md.",
        ) from None
