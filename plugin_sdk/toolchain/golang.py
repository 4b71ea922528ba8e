"""Go: its own compiler for wasip1, to a component of about 3 MB.

Go's runtime asks for WASI preview 1, which our own adapter answers (see component.py): its exported
allocator traps before ``_initialize``, and it takes every page that memory grows by for its own, so an
adapter that keeps state in the module's memory breaks it. Ours keeps none.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from kernel.manifest import PluginManifest
from plugin_sdk.sbom import Part
from plugin_sdk.toolchain.component import lay_library, make_component
from plugin_sdk.toolchain.errors import BuildFailed, compiler_said
from plugin_sdk.toolchain.fetch import Toolchains
from plugin_sdk.toolchain.linked.golang import modules_of
from plugin_sdk.toolchain.payloads import hooks_named, payload_types
from plugin_sdk.toolchain.typed import go as typed

LIBRARY = Path(__file__).parent.parent / "languages" / "go"
_ERROR = re.compile(r"^(\S[^:\n]*\.go):(\d+):\d+: (.*)$", re.MULTILINE)
_MISSING = re.compile(r"undefined: guest\.(\w+)")


def compile_component(folder: Path, stage: Path, manifest: PluginManifest, tools: Toolchains) -> bytes:
    """The component of the plugin in ``folder``. Raises BuildFailed or ToolchainUnavailable.

    The source's folder is the module ``guest``; its own requirements come through Go's module proxy.
    """
    assert manifest.build is not None
    go = tools.go()
    library = lay_library(folder, LIBRARY, manifest, {"payloads.go": typed.payloads(payload_types())})
    guest = (folder / manifest.build.source).parent
    if not (guest / "go.mod").is_file():
        raise BuildFailed(
            "The source's folder is no Go module.",
            plugin=manifest.id,
            file=f"{guest.relative_to(folder).as_posix()}/go.mod",
            expected='a go.mod that says "module guest"',
            found="no such file",
        )
    up = "../" * len(stage.relative_to(folder).parts)
    (stage / "entry").mkdir()
    (stage / "entry" / "main.go").write_text(typed.entry(hooks_named(manifest.hooks)), encoding="utf-8")
    (stage / "entry" / "go.mod").write_text("module entry\n\ngo 1.24\n", encoding="utf-8")
    (stage / "go.work").write_text(
        f"go 1.24\n\nuse (\n\t./entry\n\t{up}{library.relative_to(folder).as_posix()}\n"
        f"\t{up}{guest.relative_to(folder).as_posix()}\n)\n",
        encoding="utf-8",
    )
    core = stage / "core.wasm"
    done = go.run(
        *("build", "-buildmode=c-shared", "-trimpath", "-buildvcs=false", "-ldflags=-s -w -buildid="),
        *("-o", str(core), "./entry"),
        cwd=stage,
        env={"GOWORK": str(stage / "go.work")},
    )
    if done.returncode or not core.is_file():
        raise _compiler_error(done.stderr or done.stdout, up, manifest)
    return make_component(core, stage, manifest, tools)


def linked_in(folder: Path, stage: Path, manifest: PluginManifest, tools: Toolchains) -> Iterator[Part]:
    """The standard library, and the modules of which a package is in the program."""
    assert manifest.build is not None
    sums = (folder / manifest.build.source).with_name("go.sum")
    yield from modules_of(tools.go(), stage, {"GOWORK": str(stage / "go.work")}, sums)


def _compiler_error(output: str, up: str, manifest: PluginManifest) -> BuildFailed:
    output = output.replace(up, "")
    missing = _MISSING.search(output)
    detail = f"No function implements {missing.group(1)}." if missing else "Go does not compile."
    spelt = ", ".join(typed.exported(hook) for hook in sorted(manifest.hooks))
    fix = f"Export one function for each hook under [hooks], with the hook's name in Go's spelling: {spelt}"
    place = None if missing else _ERROR.search(output)
    return compiler_said(detail, output, place, manifest, fix if missing else None)
