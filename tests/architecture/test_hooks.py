"""Hooks, built-ins and the author's door."""

from __future__ import annotations

import inspect
import re
from pathlib import Path

import pytest

import plugin_sdk
import plugin_sdk.services
from kernel.discovery import PLUGINS, entry_points, find_plugins
from kernel.hookspecs import HOOKS, HookSpecs
from kernel.manifest import MANIFEST_FILE, load_manifest
from tests.support.sources import ROOT, texts

BUILTIN = ROOT / "plugins" / "builtin"
PARTS = {MANIFEST_FILE, "__init__.py", "plugin.py", "domain.py", "application.py", "infrastructure.py", "migrations"}


@pytest.mark.parametrize("hook", HOOKS)
def test_each_hook_is_tried(hook: str) -> None:
    word = re.compile(rf"\b{hook}\b")
    trials = [
        path
        for path, text in texts()
        if path.suffix == ".py"
        and path.is_relative_to(ROOT / "tests")
        and not path.is_relative_to(ROOT / "tests" / "architecture")
        and word.search(text)
    ]
    assert trials, f"no test implements or dispatches {hook}"


def test_each_hook_is_one_sentence_and_its_arguments_are_known() -> None:
    for hook in HOOKS.values():
        assert hook.summary.endswith("."), hook.name
        arguments = [p for p in inspect.signature(getattr(HookSpecs, hook.name)).parameters if p != "self"]
        assert arguments == (["payload", "context"] if hook.for_guests else []), hook.name
        assert (hook.payload is not None) == hook.for_guests, hook.name
        assert (hook.result is not None) == (hook.kind == "decide"), hook.name


def test_every_built_in_is_found_by_entry_point_and_loads() -> None:
    folders = {path.parent for path in BUILTIN.glob(f"*/{MANIFEST_FILE}")}
    assert {found.folder for found in find_plugins() if found.manifest.kind == "builtin"} == folders
    for point in entry_points(PLUGINS):
        assert callable(point.load())


@pytest.mark.parametrize("folder", sorted(p.parent for p in BUILTIN.glob(f"*/{MANIFEST_FILE}")), ids=lambda f: f.name)
def test_a_built_in_has_the_shape_of_a_built_in(folder: Path) -> None:
    manifest = load_manifest(folder)
    assert manifest.id == f"keelstone/{folder.name}"
    present = {p.name for p in folder.iterdir() if p.name != "__pycache__"}
    assert {MANIFEST_FILE, "plugin.py", "domain.py", "application.py"} <= present
    # A file that outgrew one sitting's read has siblings, or became a folder; they are modules too.
    assert all(n in PARTS or n.endswith(".py") or (folder / n / "__init__.py").is_file() for n in present)
    revisions = sorted(p.name for p in folder.glob("migrations/*.py"))
    assert [name[:4] for name in revisions] == [f"{n:04d}" for n in range(1, len(revisions) + 1)]


def test_manifests_name_hooks_that_there_are() -> None:
    manifests = [path.parent for path in ROOT.glob(f"plugin_sdk/examples/*/{MANIFEST_FILE}")]
    assert len(manifests) >= 3
    for folder in manifests:
        assert set(load_manifest(folder).hooks) <= set(HOOKS)


SURFACE = """
ALL_TENANTS ANONYMOUS AccessDecision AccessRequest ActivationRecord ActivationSource ActivationState Activations
BackendUnavailable Background BudgetSpent CONTRACT_GENERATIONS ConcurrencyConflict Conflict ConsentRequired Context
Dispatcher Event EventHandler EventType EventView Forbidden GraphQL GuestFailure GuestRelease Guests
HOOK_CONTRACT_VERSION HealthCheck InstallDecision InstallRequest JsonObject KeelstoneError LifecycleError NewEvent
NotFound OPERATOR_ROLE Outcome PLATFORM_TENANT Permission PluginContext PluginManifest PluginQuarantined Principal
Projection ROLES RUNNING Reject Rejected ReleaseState Requirement ResolutionConflict Routes ServiceMethod
ServiceMissing Services Settings TenantDraft TenantMismatch Text TokenExpired Unauthenticated UpgradeRecord UserDraft
ValidationFailed breaking_changes check_plain current_context hookimpl in_share load_manifest manifest_from_dict
new_id next_activation_state next_release_state parse_manifest parse_range parse_version permissions_of require
resolve roles_table system_context use_context
"""


def test_the_authors_door_is_what_was_agreed() -> None:
    """A name more or less here is a decision: HOOK_CONTRACT_VERSION and the changelog go with it."""
    assert sorted(plugin_sdk.__all__) == sorted(SURFACE.split())
    for module in (plugin_sdk, plugin_sdk.services):
        for name in module.__all__:
            assert getattr(module, name) is not None
