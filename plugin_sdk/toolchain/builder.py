"""One build: check the manifest, stage, compile, remember what was built from what."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path, PurePosixPath
from types import MappingProxyType
from typing import Protocol

from kernel.errors import KeelstoneError, ManifestError
from kernel.hookspecs import hook_spec
from kernel.manifest import PluginManifest, load_manifest
from plugin_sdk.sbom import Part, SbomInvalid, read_sbom, sbom_beside, write_sbom
from plugin_sdk.toolchain import assemblyscript, c, golang, javascript, python, rust, zig
from plugin_sdk.toolchain.errors import BuildFailed
from plugin_sdk.toolchain.fetch import PINS, Toolchains
from plugin_sdk.toolchain.linked.vendored import told
from plugin_sdk.toolchain.payloads import guest_hooks, payload_types
from plugin_sdk.toolchain.world import SOURCE_MAP, WIT, capabilities_of, component_imports, compose_world

BUILD = "build"
"""Folder of everything generated, inside the plugin's folder."""

_SUFFIXES = {
    "assemblyscript": ".ts",
    "c": ".c",
    "go": ".go",
    "javascript": ".js",
    "python": ".py",
    "rust": ".rs",
    "typescript": ".ts",
    "zig": ".zig",
}


_LOCKS = ("package-lock.json", "node_modules/.package-lock.json", "Cargo.lock")
"""Files outside the source's folder that say what is linked in."""


class Compiler(Protocol):
    """One language's way from source to component. ``LIBRARY`` is the guest library it compiles in."""

    @property
    def LIBRARY(self) -> Path: ...

    def compile_component(self, folder: Path, stage: Path, manifest: PluginManifest, tools: Toolchains) -> bytes:
        """The component. Raises BuildFailed or ToolchainUnavailable."""
        ...

    def linked_in(self, folder: Path, stage: Path, manifest: PluginManifest, tools: Toolchains) -> Iterable[Part]:
        """What of others is in the component, asked when it is compiled and ``stage`` is as that left it."""
        ...


_COMPILERS: Mapping[str, Compiler] = MappingProxyType(
    {
        "assemblyscript": assemblyscript,
        "c": c,
        "go": golang,
        "javascript": javascript,
        "python": python,
        "rust": rust,
        "typescript": javascript,
        "zig": zig,
    }
)


@dataclass(frozen=True, slots=True)
class BuiltComponent:
    """A component file. ``digest`` is its SHA-256 in hex, ``size`` its bytes, ``imports`` the
    capabilities it uses, ``unused`` those that the manifest asks for in vain; ``fresh`` says whether
    it was compiled now or was up to date. ``sbom`` is the list of its ``parts``: package URLs of what others made."""

    path: Path
    digest: str
    size: int
    imports: tuple[str, ...]
    unused: tuple[str, ...]
    fresh: bool
    sbom: Path
    parts: tuple[str, ...]


def built_component(folder: Path, manifest: PluginManifest) -> Path:
    """Where ``keelstone plugin build`` puts the component."""
    return folder / BUILD / f"{manifest.short_name}.component.wasm"


def build_plugin(folder: Path, tools: Toolchains | None = None, *, force: bool = False) -> BuiltComponent:
    """Build the plugin in ``folder``, or find that nothing changed since the last time.

    Raises ManifestError, BuildFailed or ToolchainUnavailable.
    """
    return compile_with(_COMPILERS, folder, tools or Toolchains(), force=force)


def quick_component(folder: Path, tools: Toolchains) -> bytes:
    """A component of the plugin as it is now, made in the shortest time: to be looked at, not to be published. What
    :func:`build_plugin` keeps is not touched. Raises as it does.
    """
    folder = folder.resolve()
    manifest = load_manifest(folder)
    _source(folder, manifest)
    assert manifest.build is not None
    with _stage(folder, manifest, "stage-quick") as stage:
        return _COMPILERS[manifest.build.language].compile_component(folder, stage, manifest, tools.quickly())


def compile_with(
    compilers: Mapping[str, Compiler], folder: Path, tools: Toolchains, *, force: bool = False
) -> BuiltComponent:
    """:func:`build_plugin` with the compiler of each language given."""
    folder = folder.resolve()
    manifest = load_manifest(folder)
    source = _source(folder, manifest)
    assert manifest.build is not None
    compiler = compilers[manifest.build.language]
    target = built_component(folder, manifest)
    stamp = target.with_suffix(".json")
    key = _key(folder, source, compiler.LIBRARY)
    if not force and (known := _up_to_date(target, stamp, key)):
        return _describe(target, known, manifest, fresh=False)
    with _stage(folder, manifest, "stage") as stage:
        component = compiler.compile_component(folder, stage, manifest, tools)
        parts = [*compiler.linked_in(folder, stage, manifest, tools), *told(source.parent, manifest.id)]
        scratch = target.with_suffix(".part")
        scratch.write_bytes(component)
        scratch.replace(target)
        _keep_map(stage, target)
        digest = hashlib.sha256(component).hexdigest()
        sbom_beside(target).write_bytes(write_sbom(manifest, digest, parts, version("keelstone")))
        stamp.write_text(json.dumps({"key": key, "digest": digest}))
    return _describe(target, component, manifest, fresh=True)


@contextmanager
def _stage(folder: Path, manifest: PluginManifest, name: str) -> Iterator[Path]:
    """An empty folder with the composed world in ``wit/``. After a failure it stays: the compiler's messages point
    into it."""
    stage = folder / BUILD / name
    shutil.rmtree(stage, ignore_errors=True)
    (stage / "wit").mkdir(parents=True)
    (stage / "wit" / WIT.name).write_text(compose_world(manifest), encoding="utf-8")
    yield stage
    shutil.rmtree(stage, ignore_errors=True)


def _keep_map(stage: Path, target: Path) -> None:
    """The source map, beside the component and never in it: it finds the line of a trap's offset."""
    beside = target.with_name(f"{target.name}.map")
    if (stage / SOURCE_MAP).is_file():
        (stage / SOURCE_MAP).replace(beside)
    else:
        beside.unlink(missing_ok=True)


def _source(folder: Path, manifest: PluginManifest) -> Path:
    build = manifest.build
    if manifest.kind != "guest" or build is None:
        raise BuildFailed(
            f"{manifest.id} has nothing to build.",
            plugin=manifest.id,
            expected='kind = "guest" and a [build] table with language and source',
            found="no [build] table" if build is None else f'kind = "{manifest.kind}"',
        )
    if not manifest.hooks:
        raise ManifestError(
            f"{manifest.id} implements no hook, so it could never be called.",
            plugin=manifest.id,
            fix="Name at least one hook, e.g. [hooks.user_creating]. See docs/reference/hooks.md.",
        )
    for name in manifest.hooks:
        try:
            spec = hook_spec(name)
        except KeelstoneError as error:
            error.plugin = manifest.id
            raise
        if not spec.for_guests:
            raise ManifestError(
                f"Guests cannot implement {name}: it runs at boot, inside the platform.",
                plugin=manifest.id,
                hook=name,
                fix="Take it out of [hooks], or write a trusted extension in Python.",
            )
    path = PurePosixPath(build.source)
    suffix = _SUFFIXES[build.language]
    inside = not path.is_absolute() and ".." not in path.parts and len(path.parts) > 1
    if not inside or path.suffix != suffix or not (folder / path).is_file():
        raise BuildFailed(
            "The source named under [build] is not there.",
            plugin=manifest.id,
            file=build.source,
            expected=f"a {suffix} file in a folder of its own inside the plugin's, e.g. source/plugin{suffix}",
            found="no such file" if inside and path.suffix == suffix else build.source,
        )
    return folder / path


def _key(folder: Path, source: Path, library: Path) -> str:
    """Digest of everything that the component is made from."""
    digest = hashlib.sha256(repr((payload_types(), guest_hooks())).encode())
    files = [*_files(source.parent), *_files(library), *_files(PINS), *_files(Path(__file__).parent), WIT]
    locks = [path for name in _LOCKS if (path := folder / name).is_file()]
    for path in [folder / "plugin.toml", *locks, *files]:
        digest.update(f"{path}\n{path.stat().st_size}\n".encode())
        digest.update(path.read_bytes())
    return digest.hexdigest()


def _files(folder: Path) -> Iterator[Path]:
    for path in sorted(folder.rglob("*")):
        if path.is_file() and "__pycache__" not in path.parts and path.suffix != ".wasm":
            yield path


def _up_to_date(target: Path, stamp: Path, key: str) -> bytes | None:
    try:
        known = json.loads(stamp.read_text())
        component = target.read_bytes()
        about = read_sbom(sbom_beside(target).read_bytes()).component
    except (OSError, ValueError, SbomInvalid):
        return None
    same = known.get("key") == key and known.get("digest") == about == hashlib.sha256(component).hexdigest()
    return component if same else None


def _describe(path: Path, component: bytes, manifest: PluginManifest, *, fresh: bool) -> BuiltComponent:
    imports = capabilities_of(component_imports(component))
    return BuiltComponent(
        path=path,
        digest=hashlib.sha256(component).hexdigest(),
        size=len(component),
        imports=tuple(imports),
        unused=tuple(sorted(set(manifest.capabilities.asked()) - set(imports))),
        fresh=fresh,
        sbom=sbom_beside(path),
        parts=tuple(part.purl for part in read_sbom(sbom_beside(path).read_bytes()).parts),
    )
