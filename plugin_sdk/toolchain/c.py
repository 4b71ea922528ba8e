"""C: clang as Zig's package ships it, with wasi-libc, to a component of a few KiB.

The C library asks for WASI only where a plugin prints or reads a clock; that goes through our own
adapter (see component.py). Paths are relative to the plugin's folder, so the same sources and pins
give the same bytes everywhere.
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
from plugin_sdk.toolchain.payloads import hooks_named, payload_types
from plugin_sdk.toolchain.typed import c as typed

LIBRARY = Path(__file__).parent.parent / "languages" / "c"
_FLAGS = (
    *(
        "-target",
        "wasm32-wasi",
        "-mexec-model=reactor",
        "-std=c17",
        "-Oz",
        "-g0",
        "-Wl,--strip-all",
        "-Wl,-z,stack-size=262144",
    ),
    *("-Wall", "-Wextra", "-Werror=implicit-function-declaration", "-Werror=int-conversion"),
    *("-Werror=incompatible-pointer-types", "-fno-caret-diagnostics", "-Wno-unused-command-line-argument"),
)
_ERROR = re.compile(r"^(\S[^:\n]*\.[ch]):(\d+):\d+: (?:fatal )?error:", re.MULTILINE)
_UNDEFINED = re.compile(r"undefined symbol: (\w+)")


def compile_component(folder: Path, stage: Path, manifest: PluginManifest, tools: Toolchains) -> bytes:
    """The component of the plugin in ``folder``. Raises BuildFailed or ToolchainUnavailable.

    Compiled is every ``.c`` file in the folder of the source named under [build].
    """
    assert manifest.build is not None
    zig = tools.zig()
    hooks, types = hooks_named(manifest.hooks), payload_types()
    library = lay_library(
        folder,
        LIBRARY,
        manifest,
        {
            "keelstone_payloads.h": typed.header(types),
            "keelstone_hooks.h": typed.hooks_header(hooks, types),
            "keelstone_entry.c": typed.source(hooks, types),
        },
    )
    sources = [*sorted((folder / manifest.build.source).parent.rglob("*.c")), *sorted(library.glob("*.c"))]
    core = stage / "core.wasm"
    done = zig.run(
        "cc",
        *_FLAGS,
        *("-I", library.relative_to(folder).as_posix()),
        *(path.relative_to(folder).as_posix() for path in sources),
        *("-o", core.relative_to(folder).as_posix()),
        cwd=folder,
    )
    if done.returncode or not core.is_file():
        raise _compiler_error(done.stderr or done.stdout, manifest)
    return make_component(core, stage, manifest, tools)


def linked_in(folder: Path, stage: Path, manifest: PluginManifest, tools: Toolchains) -> Iterator[Part]:
    """The C library, as the compiler ships it."""
    yield Part("pypi", *pinned(PINS / "zig.txt"), kind="framework")


def _compiler_error(output: str, manifest: PluginManifest) -> BuildFailed:
    missing = sorted(set(_UNDEFINED.findall(output)) & set(manifest.hooks))
    detail = "C does not compile." if not missing else f"No function implements {', '.join(missing)}."
    fix = "Write one function for each hook under [hooks], as build/keelstone/keelstone_hooks.h declares it."
    return compiler_said(detail, output, _ERROR.search(output), manifest, fix if missing else None)
