"""The one import surface for plugin authors; everything else of Keelstone is not API for them.

In-process plugins (built-ins and trusted extensions) import from here, from ``plugin_sdk.data``
(tables), ``plugin_sdk.web`` (REST and GraphQL) and ``plugin_sdk.services`` (the catalogue). Guests
written in other languages have ``plugin_sdk/wit/keelstone.wit`` and ``plugin_sdk/languages/``.
"""

from kernel.activation import Activations
from kernel.background import Background
from kernel.consumers import EventHandler
from kernel.context import (
    ANONYMOUS,
    PLATFORM_TENANT,
    Context,
    Principal,
    current_context,
    new_id,
    system_context,
    use_context,
)
from kernel.errors import (
    BackendUnavailable,
    BudgetSpent,
    ConcurrencyConflict,
    Conflict,
    ConsentRequired,
    Forbidden,
    GuestFailure,
    KeelstoneError,
    LifecycleError,
    NotFound,
    PluginQuarantined,
    Rejected,
    ResolutionConflict,
    ServiceMissing,
    TenantMismatch,
    TokenExpired,
    Unauthenticated,
    ValidationFailed,
)
from kernel.events import Event, EventType, NewEvent, breaking_changes
from kernel.guests import Guests
from kernel.hooks import Dispatcher
from kernel.hookspecs import CONTRACT_GENERATIONS, HOOK_CONTRACT_VERSION, hookimpl
from kernel.lifecycle import (
    RUNNING,
    ActivationState,
    ReleaseState,
    next_activation_state,
    next_release_state,
)
from kernel.manifest import PluginManifest, load_manifest, manifest_from_dict, parse_manifest
from kernel.outcomes import Outcome
from kernel.payloads import (
    AccessDecision,
    AccessRequest,
    EventView,
    InstallDecision,
    InstallRequest,
    Reject,
    TenantDraft,
    UserDraft,
)
from kernel.permissions import OPERATOR_ROLE, ROLES, Permission, permissions_of, require, roles_table
from kernel.plain import JsonObject, Text, check_plain
from kernel.ports import ALL_TENANTS, ActivationRecord, ActivationSource, GuestRelease, UpgradeRecord
from kernel.projections import Projection
from kernel.resolver import Requirement, resolve
from kernel.service_calls import ServiceMethod
from kernel.settings import Settings
from kernel.shares import in_share
from kernel.versions import parse_range, parse_version
from plugin_sdk.contributions import GraphQL, HealthCheck, PluginContext, Routes
from plugin_sdk.services import Services

__all__ = [
    "ALL_TENANTS",
    "ANONYMOUS",
    "CONTRACT_GENERATIONS",
    "HOOK_CONTRACT_VERSION",
    "OPERATOR_ROLE",
    "PLATFORM_TENANT",
    "ROLES",
    "RUNNING",
    "AccessDecision",
    "AccessRequest",
    "ActivationRecord",
    "ActivationSource",
    "ActivationState",
    "Activations",
    "BackendUnavailable",
    "Background",
    "BudgetSpent",
    "ConcurrencyConflict",
    "Conflict",
    "ConsentRequired",
    "Context",
    "Dispatcher",
    "Event",
    "EventHandler",
    "EventType",
    "EventView",
    "Forbidden",
    "GraphQL",
    "GuestFailure",
    "GuestRelease",
    "Guests",
    "HealthCheck",
    "InstallDecision",
    "InstallRequest",
    "JsonObject",
    "KeelstoneError",
    "LifecycleError",
    "NewEvent",
    "NotFound",
    "Outcome",
    "Permission",
    "PluginContext",
    "PluginManifest",
    "PluginQuarantined",
    "Principal",
    "Projection",
    "Reject",
    "Rejected",
    "ReleaseState",
    "Requirement",
    "ResolutionConflict",
    "Routes",
    "ServiceMethod",
    "ServiceMissing",
    "Services",
    "Settings",
    "TenantDraft",
    "TenantMismatch",
    "Text",
    "TokenExpired",
    "Unauthenticated",
    "UpgradeRecord",
    "UserDraft",
    "ValidationFailed",
    "breaking_changes",
    "check_plain",
    "current_context",
    "hookimpl",
    "in_share",
    "load_manifest",
    "manifest_from_dict",
    "new_id",
    "next_activation_state",
    "next_release_state",
    "parse_manifest",
    "parse_range",
    "parse_version",
    "permissions_of",
    "require",
    "resolve",
    "roles_table",
    "system_context",
    "use_context",
]
