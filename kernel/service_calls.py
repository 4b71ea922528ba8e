"""What built-in plugins and extensions offer to guests: named methods with a typed payload.

A guest reaches a method only if its manifest names it and its tenant granted that; the method gets
the caller's tenant and the calling plugin as principal, and must act in that tenant alone.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass, replace
from typing import Any

import orjson
from pydantic import BaseModel, ValidationError

from kernel.context import Context, Principal
from kernel.errors import Conflict, Forbidden, ServiceMissing, ValidationFailed

MAX_NESTED = 16
"""Service calls of one piece of work that may be under way at once: a method that comes to a guest
that calls the method again would otherwise go round until its deadline."""


@dataclass(frozen=True, slots=True)
class ServiceMethod:
    """One method. ``run`` gets the context and the checked payload; it answers a model, something that
    JSON can say, or None. Raises what it documents: a guest sees NotFound as `not-found`, ValidationFailed
    as `invalid`, Forbidden and Rejected as `denied`, anything else as `unavailable`."""

    name: str
    summary: str
    payload: type[BaseModel]
    run: Callable[[Context, Any], Awaitable[Any]]


class ServiceBook:
    """Implements :class:`kernel.ports.ServiceCalls`. ``offered_in`` tells whether a plugin is on in a tenant."""

    def __init__(self, offered_in: Callable[[str, str], bool] = lambda _tenant, _plugin: True) -> None:
        self._methods: dict[tuple[str, str], ServiceMethod] = {}
        self._offered_in = offered_in
        self._under_way: Counter[str] = Counter()

    def add(self, plugin: str, method: ServiceMethod) -> None:
        """Offer a method. Raises Conflict if the plugin has one of that name."""
        if (plugin, method.name) in self._methods:
            raise Conflict(f"{plugin} offers {method.name} twice.", plugin=plugin, hook="contribute_services")
        self._methods[plugin, method.name] = method

    def methods(self) -> Iterable[tuple[str, ServiceMethod]]:
        """Everything on offer, by plugin and name."""
        return [(plugin, self._methods[plugin, name]) for plugin, name in sorted(self._methods)]

    async def call(self, context: Context, plugin: str, method: str, payload: str) -> str:
        """The method's answer as JSON. Raises ServiceMissing, ValidationFailed, or what the method raises."""
        found = self._methods.get((plugin, method))
        if found is None or not self._offered_in(context.tenant, plugin):
            raise ServiceMissing(
                f"{plugin} offers no {method} in this tenant.",
                expected=", ".join(f"{p} {m.name}" for p, m in self.methods()) or "nothing is offered",
                found=f"{plugin} {method}",
            )
        try:
            given = found.payload.model_validate_json(payload)
        except ValidationError as error:
            problems = "; ".join(
                f"{'.'.join(map(str, e['loc'])) or 'payload'}: {e['msg']}" for e in error.errors(include_url=False)[:5]
            )
            raise ValidationFailed(f"{plugin} {method}: {problems}.", expected=found.payload.__name__) from error
        work = context.correlation_id
        if self._under_way[work] >= MAX_NESTED:
            raise Forbidden("Service calls call each other too deeply.", expected=f"at most {MAX_NESTED} under way")
        self._under_way[work] += 1
        try:
            answer = await found.run(context, given)
        finally:
            self._under_way[work] -= 1
            if not self._under_way[work]:
                del self._under_way[work]
        return (
            answer.model_dump_json() if isinstance(answer, BaseModel) else orjson.dumps(answer, default=_plain).decode()
        )


def _plain(value: Any) -> Any:
    if isinstance(value, BaseModel):
        return value.model_dump(mode="json")
    raise TypeError(f"{type(value).__name__} is not JSON")


def acting_as(context: Context, plugin: str) -> Context:
    """The same work, done by ``plugin``: what it may do must not depend on who happens to have caused it."""
    return replace(context, principal=Principal(id=plugin, kind="plugin", tenant=context.tenant))
