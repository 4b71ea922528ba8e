"""What a built-in plugin or extension contributes at boot, one frozen value per kind."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

from kernel.hooks import Dispatcher
from kernel.manifest import PluginManifest
from kernel.settings import Settings
from plugin_sdk.services import Services


@dataclass(frozen=True, slots=True)
class Routes:
    """REST routes: a ``fastapi.APIRouter``, mounted under /api/v1."""

    router: Any


@dataclass(frozen=True, slots=True)
class GraphQL:
    """Strawberry types whose fields join the root Query and Mutation."""

    query: type[Any] | None = None
    mutation: type[Any] | None = None


@dataclass(frozen=True, slots=True)
class HealthCheck:
    """A named check; it raises if the plugin is not ready."""

    name: str
    check: Callable[[], Awaitable[None]]


@dataclass(frozen=True, slots=True)
class PluginContext:
    """What a plugin's ``start`` function is given."""

    manifest: PluginManifest
    settings: Settings
    services: Services
    hooks: Dispatcher
