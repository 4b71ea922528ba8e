"""The last steps that most languages share: a laid-out guest library, and from core module to component."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path

from kernel.manifest import PluginManifest
from plugin_sdk.toolchain.errors import BuildFailed
from plugin_sdk.toolchain.fetch import Toolchains
from plugin_sdk.toolchain.world import PACKAGE, VERSION, core_imports, generation, interface

ADAPTER = Path(__file__).parent / "preview1"
"""WASI preview 1, for what a language's own library asks of a system: see preview1.wat."""
PREVIEW1 = "wasi_snapshot_preview1"


def lay_library(folder: Path, library: Path, manifest: PluginManifest, generated: Mapping[str, str]) -> Path:
    """Bring ``build/keelstone`` of the plugin into line with the guest library and the generated files.

    Guest libraries name the newest generation of the contract; here they are given the manifest's.
    It all stays after the build, for the author's editor. A file that is right already is left alone:
    compilers tell by its time whether to compile it anew.
    """
    target = folder / "build" / "keelstone"
    newest, ours = f"@{VERSION}".encode(), f"@{generation(manifest)}".encode()
    wanted = {
        path.relative_to(library).as_posix(): path.read_bytes().replace(newest, ours)
        for path in library.rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    wanted |= {name: text.encode() for name, text in generated.items()}
    if target.is_dir():
        for path in target.rglob("*"):
            if path.is_file() and path.relative_to(target).as_posix() not in wanted:
                path.unlink()
    for name, content in wanted.items():
        path = target / name
        if not path.is_file() or path.read_bytes() != content:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)
    return target


def make_component(
    core: Path, stage: Path, manifest: PluginManifest, tools: Toolchains, *, encoding: str = "utf8"
) -> bytes:
    """The component of the core module ``core`` in ``stage``, whose ``wit/`` has the composed world.

    Raises BuildFailed (also for a host call that the manifest does not ask for) or ToolchainUnavailable.
    """
    needs_preview1 = check_imports(core.read_bytes(), manifest)
    wasm_tools = tools.wasm_tools()
    embedded, component = stage / "embedded.wasm", stage / "component.wasm"
    adapt: tuple[str, ...] = ()
    if needs_preview1:
        adapter = stage / "preview1.wasm"
        shutil.copytree(ADAPTER, stage / "preview1", dirs_exist_ok=True)
        made = wasm_tools.run(
            *("component", "embed", "-w", "adapter", "preview1/wit", "preview1/preview1.wat", "-o", adapter.name),
            cwd=stage,
        )
        assert not made.returncode, made.stderr  # our own file: it has a test
        adapt = ("--adapt", f"{PREVIEW1}={adapter.name}")
    for arguments in (
        ("component", "embed", "--encoding", encoding, "-w", "guest", "wit", core.name, "-o", embedded.name),
        ("component", "new", embedded.name, *adapt, "-o", component.name),
    ):
        done = wasm_tools.run(*arguments, cwd=stage)
        if done.returncode:
            raise BuildFailed(
                "The compiled module does not become a component.",
                plugin=manifest.id,
                found=done.stderr.strip()[:2000],
                fix="Export nothing but hook functions from the source named under [build].",
            )
    return component.read_bytes()


def check_imports(core: bytes, manifest: PluginManifest) -> bool:
    """Refuse host calls that the manifest does not ask for. True if the module needs WASI preview 1."""
    version = generation(manifest)
    allowed = {interface(name, version) for name in manifest.capabilities.asked()}
    needs_preview1 = False
    for name in core_imports(core):
        if name == PREVIEW1:
            needs_preview1 = True
        elif name not in allowed:
            refuse_import(name, manifest)
    return needs_preview1


def refuse_import(name: str, manifest: PluginManifest) -> None:
    """Say what is wrong with importing the interface ``name``. Always raises BuildFailed."""
    capability = name.removeprefix(f"{PACKAGE}/").partition("@")[0]
    if not name.startswith(f"{PACKAGE}/"):
        raise BuildFailed(
            f"The source imports from {name!r}, which the host does not have.",
            plugin=manifest.id,
            found=name,
            fix='Use the host calls of the guest library "keelstone"; nothing else of the machine is here.',
        )
    raise BuildFailed(
        f"The source uses `{capability}`, which the manifest does not ask for.",
        plugin=manifest.id,
        expected=", ".join(manifest.capabilities.asked()) or "no capability",
        found=capability,
        fix=f'Add [capabilities.{capability}] with why = "..." to plugin.toml, or take the call out.',
    )
