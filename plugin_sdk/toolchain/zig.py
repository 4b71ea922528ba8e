"""Zig: one root module of ours over the plugin's, to a component of some 40 KiB (most of it std.json).

The target is wasm32-wasi, so that ``std`` has a clock, chance and standard output; what a plugin uses
of them goes through our own adapter (see component.py). Paths are relative to the plugin's folder.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from kernel.manifest import PluginManifest
from plugin_sdk.sbom import Part
from plugin_sdk.toolchain.component import lay_library, make_component
from plugin_sdk.toolchain.errors import BuildFailed, compiler_said
from plugin_sdk.toolchain.fetch import PINS, Toolchains, pinned
from plugin_sdk.toolchain.linked.vendored import zig_packages
from plugin_sdk.toolchain.payloads import hooks_named, payload_types
from plugin_sdk.toolchain.typed import zig as typed

LIBRARY = Path(__file__).parent.parent / "languages" / "zig"
_FLAGS = ("-target", "wasm32-wasi", "-fno-entry", "-rdynamic", "-fstrip", "--stack", "262144")
_SMALL, _QUICK = ("-OReleaseSmall",), ("-ODebug", "-fno-llvm")
"""Zig's own backend takes a tenth of the time, for five times the size and with all safety checks."""
_ERROR = re.compile(r"^(\S[^:\n]*\.zig):(\d+):\d+: error: (.*)$", re.MULTILINE)


def compile_component(folder: Path, stage: Path, manifest: PluginManifest, tools: Toolchains) -> bytes:
    """The component of the plugin in ``folder``. Raises BuildFailed or ToolchainUnavailable."""
    assert manifest.build is not None
    zig = tools.zig()
    hooks = hooks_named(manifest.hooks)
    library = lay_library(
        folder,
        LIBRARY,
        manifest,
        {
            "payloads.zig": typed.payloads(payload_types()),
            "keelstone_entry.zig": typed.entry(hooks, logs=manifest.capabilities.log is not None),
        },
    )
    core, inside = stage / "core.wasm", library.relative_to(folder).as_posix()
    done = zig.run(
        "build-exe",
        *_FLAGS,
        *(_QUICK if tools.quick else _SMALL),
        *("--dep", "keelstone", "--dep", "plugin", f"-Mroot={inside}/keelstone_entry.zig"),
        *("--dep", "keelstone", f"-Mplugin={manifest.build.source}"),
        f"-Mkeelstone={inside}/keelstone.zig",
        f"-femit-bin={core.relative_to(folder).as_posix()}",
        cwd=folder,
    )
    if done.returncode or not core.is_file():
        raise _compiler_error(done.stderr or done.stdout, manifest)
    return make_component(core, stage, manifest, tools)


def linked_in(folder: Path, stage: Path, manifest: PluginManifest, tools: Toolchains) -> Iterator[Part]:
    """The standard library, and the packages whose sources lie beside the plugin's."""
    assert manifest.build is not None
    yield Part("pypi", *pinned(PINS / "zig.txt"), kind="framework")
    yield from zig_packages((folder / manifest.build.source).parent, folder)


def _compiler_error(output: str, manifest: PluginManifest) -> BuildFailed:
    place = _ERROR.search(output)
    missing = place and "has no member named" in place.group(3) and any(h in place.group(3) for h in manifest.hooks)
    fix = "Write one `pub fn` for each hook under [hooks], with the hook's name: " + ", ".join(sorted(manifest.hooks))
    return compiler_said("Zig does not compile.", output, place, manifest, fix if missing else None)
