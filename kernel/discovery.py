"""Finds built-ins and trusted extensions through entry points (stevedore), once at boot."""

from __future__ import annotations

import importlib.util
import logging
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from stevedore import NamedExtensionManager

from kernel.errors import ManifestError, PluginFailed, ResolutionConflict
from kernel.manifest import PluginManifest, load_manifest
from kernel.resolver import kernel_fits, start_order
from kernel.versions import parse_range

PLUGINS = "keelstone.plugins"
COMMANDS = "keelstone.commands"
GUEST_RUNTIME = "keelstone.guest_runtime"
COMPONENT_INSPECTOR = "keelstone.component_inspector"
CONTRACT_CHECKER = "keelstone.contract_checker"

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Found:
    """A plugin found by entry point: its manifest, its folder and how to get its start function."""

    manifest: PluginManifest
    folder: Path
    load: Callable[[], Any]


@dataclass(frozen=True, slots=True)
class HeldBack:
    """A plugin that is there and does not start, and why."""

    plugin: str
    reason: str


def find_plugins() -> list[Found]:
    """Every plugin on the path; reads manifests, imports no plugin. Raises ManifestError."""
    found: list[Found] = []
    for point in entry_points(PLUGINS):
        folder = _folder(point.value)
        manifest = load_manifest(folder)
        if manifest.kind == "guest":
            raise ManifestError(
                f"{manifest.id} is found by entry point and says it is a guest.",
                plugin=manifest.id,
                file=str(folder),
                expected='kind = "builtin" or "extension"',
                found='kind = "guest"',
            )
        twin = next((f for f in found if f.manifest.id == manifest.id), None)
        if twin is not None:
            raise ManifestError(
                f"Two packages on the path are the plugin {manifest.id}.",
                plugin=manifest.id,
                file=str(folder),
                expected=f"one package, e.g. {twin.folder}",
                found=f"{twin.folder} and {folder}",
                fix="Uninstall one of the two.",
            )
        found.append(Found(manifest, folder, point.load))
    return sorted(found, key=lambda f: f.manifest.id)


def choose(found: Iterable[Found], disabled: Iterable[str]) -> tuple[list[Found], list[HeldBack]]:
    """Those that start, in start order, and those held back: disabled, or missing a requirement."""
    off = set(disabled)
    present = {f.manifest.id: f for f in found}
    held = [HeldBack(p, "left out by KEELSTONE_PLUGINS_DISABLED") for p in sorted(off & present.keys())]
    held += [HeldBack(p, "named in KEELSTONE_PLUGINS_DISABLED and not there") for p in sorted(off - present.keys())]
    running = {p: f for p, f in present.items() if p not in off}
    while True:
        broken = {p: reason for p, f in running.items() if (reason := _missing(f.manifest, running))}
        if not broken:
            break
        for plugin, reason in sorted(broken.items()):
            held.append(HeldBack(plugin, reason))
            del running[plugin]
    try:
        order = start_order(f.manifest for f in running.values())
    except ResolutionConflict as error:
        raise PluginFailed(f"The built-in plugins cannot start: {error.detail}", plugin=error.plugin) from error
    return [running[m.id] for m in order], held


def _missing(manifest: PluginManifest, running: dict[str, Found]) -> str | None:
    if not kernel_fits(manifest):
        return f"needs kernel {manifest.requires.kernel}"
    for plugin, wanted in manifest.requires.plugins.items():
        other = running.get(plugin)
        if other is None:
            return f"requires {plugin} {wanted}, which is not running"
        if other.manifest.semver not in parse_range(wanted):
            return f"requires {plugin} {wanted}, there is {other.manifest.version}"
    return None


class EntryPoint:
    """One entry point, loaded only on request."""

    def __init__(self, name: str, value: str, load: Callable[[], Any]) -> None:
        self.name = name
        self.value = value
        self.load = load


def entry_points(group: str) -> list[EntryPoint]:
    """Entry points of a group by name, without importing any of them (stevedore's cached scan)."""
    manager: NamedExtensionManager[Any] = NamedExtensionManager(group, names=[])
    return [EntryPoint(e.name, e.value, e.load) for e in sorted(manager.list_entry_points(), key=lambda e: e.name)]


def load_entry_point(group: str, name: str) -> Any:
    """The object behind one entry point. Raises PluginFailed if there is none or it fails to load."""
    for point in entry_points(group):
        if point.name == name:
            try:
                return point.load()
            except Exception as error:
                raise PluginFailed(f"Entry point {group}:{name} ({point.value}) does not load: {error}") from error
    raise PluginFailed(
        f"There is no entry point {name!r} in {group}.", fix="Reinstall Keelstone: its package metadata is incomplete."
    )


def _folder(value: str) -> Path:
    module = value.partition(":")[0]
    package = module.rpartition(".")[0]
    spec = importlib.util.find_spec(package)
    if spec is None or not spec.submodule_search_locations:
        raise ManifestError(f"Entry point {value} names a package that is not there.", file=package)
    return Path(next(iter(spec.submodule_search_locations)))
