"""Rust: the guest library, the plugin and a generated root as three crates, to a component of some 30 KiB.

``rustc`` is called directly: a plugin has the standard library and ``keelstone``, no crates besides.
The guest library is compiled once for all plugins; paths are mapped to the plugin's folder, so the
same sources and compiler give the same bytes everywhere.
"""

from __future__ import annotations

import hashlib
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

from kernel.manifest import PluginManifest
from plugin_sdk.sbom import Part
from plugin_sdk.toolchain.component import lay_library, make_component
from plugin_sdk.toolchain.errors import BuildFailed, compiler_said
from plugin_sdk.toolchain.fetch import Tool, Toolchains
from plugin_sdk.toolchain.linked.vendored import crates
from plugin_sdk.toolchain.payloads import hooks_named, payload_types
from plugin_sdk.toolchain.typed import rust as typed

LIBRARY = Path(__file__).parent.parent / "languages" / "rust"
_FLAGS = ("--edition", "2021", "-C", "opt-level=z", "-C", "panic=abort", "-C", "codegen-units=1", "--color", "never")
_ERROR = re.compile(r"^error.*\n(?:.*\n)??\s+--> (\S+):(\d+):\d+", re.MULTILINE)
_MISSING = re.compile(r"cannot find function `(\w+)` in crate `plugin`")


def compile_component(folder: Path, stage: Path, manifest: PluginManifest, tools: Toolchains) -> bytes:
    """The component of the plugin in ``folder``. Raises BuildFailed or ToolchainUnavailable."""
    assert manifest.build is not None
    rustc = tools.rust()
    hooks = hooks_named(manifest.hooks)
    library = lay_library(folder, LIBRARY, manifest, {"payloads.rs": typed.payloads(payload_types())})
    keelstone = _compiled_library(folder, library, rustc, tools)
    here = stage.relative_to(folder).as_posix()
    entry = stage / "entry.rs"
    entry.write_text(typed.entry(hooks, logs=manifest.capabilities.log is not None), encoding="utf-8")
    extern = ("--extern", f"keelstone={keelstone}")
    for arguments in (
        ("--crate-name", "plugin", "--crate-type", "rlib", manifest.build.source, "--out-dir", here),
        (
            *("--crate-name", "entry", "--crate-type", "cdylib", f"{here}/entry.rs", "-o", f"{here}/core.wasm"),
            *("--extern", f"plugin={here}/libplugin.rlib"),
            *("-C", "lto=fat", "-C", "strip=symbols", "-C", "link-arg=-zstack-size=262144"),
        ),
    ):
        done = rustc.run(*_FLAGS, *arguments, *extern, cwd=folder)
        if done.returncode:
            raise _compiler_error(done, manifest)
    return make_component(stage / "core.wasm", stage, manifest, tools)


def linked_in(folder: Path, stage: Path, manifest: PluginManifest, tools: Toolchains) -> Iterator[Part]:
    """The standard library, and the crates whose sources lie beside the plugin's: no others are linked."""
    assert manifest.build is not None
    said = re.match(r"rustc (\S+)", _version(tools.rust(), folder))
    yield Part("generic", "rust", said.group(1) if said else "", kind="framework")
    yield from crates((folder / manifest.build.source).parent, folder)


def _compiled_library(folder: Path, library: Path, rustc: Tool, tools: Toolchains) -> Path:
    digest = hashlib.sha256(repr((rustc.command, _version(rustc, folder), _FLAGS)).encode())
    for path in sorted(library.glob("*.rs")):
        digest.update(path.name.encode() + b"\0" + path.read_bytes())
    compiled = tools.folder / "rust-libraries" / digest.hexdigest()[:32] / "libkeelstone.rlib"
    if not compiled.is_file():
        compiled.parent.mkdir(parents=True, exist_ok=True)
        scratch = compiled.with_name(f"part-{hashlib.sha256(str(folder).encode()).hexdigest()[:16]}.rlib")
        done = rustc.run(
            *(*_FLAGS, "--crate-name", "keelstone", "--crate-type", "rlib", "--cap-lints", "allow"),
            *(f"{library.relative_to(folder).as_posix()}/lib.rs", "-o", str(scratch)),
            cwd=folder,
        )
        if done.returncode:
            raise BuildFailed("The guest library does not compile.", found="\n" + done.stderr.strip()[:4000])
        scratch.replace(compiled)
    return compiled


def _version(rustc: Tool, folder: Path) -> str:
    return rustc.run("--version", cwd=folder).stdout


def _compiler_error(done: subprocess.CompletedProcess[str], manifest: PluginManifest) -> BuildFailed:
    missing = _MISSING.search(done.stderr)
    detail = f"No function implements {missing.group(1)}." if missing else "Rust does not compile."
    fix = "Write one `pub fn` for each hook under [hooks], with the hook's name."
    place = None if missing else _ERROR.search(done.stderr)
    return compiler_said(detail, done.stderr, place, manifest, fix if missing else None)
