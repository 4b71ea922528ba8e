"""The guest's world, composed from its manifest, and what a finished module really imports.

A component imports exactly the interfaces of the capabilities that the manifest asks for, so its
imports are its true demands. The binary formats are read as in
https://webassembly.github.io/spec/core/binary/modules.html and
https://github.com/WebAssembly/component-model/blob/main/design/mvp/Binary.md.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from kernel.errors import KeelstoneError, ManifestError
from kernel.hookspecs import CONTRACT_GENERATIONS, HOOK_CONTRACT_VERSION
from kernel.manifest import PluginManifest
from kernel.resolver import contract_of
from plugin_sdk.toolchain.errors import BuildFailed

WIT = Path(__file__).parent.parent / "wit" / "keelstone.wit"
"""The newest generation of the contract; earlier ones lie in folders beside it."""
PACKAGE = "keelstone:plugin"
VERSION = HOOK_CONTRACT_VERSION
_WORLD = "world guest {"
_CORE_IMPORTS, _COMPONENT_IMPORTS, _COMPONENT_EXPORTS = 2, 10, 11
COMPONENT = b"\0asm\x0d\0\x01\0"
"""How a component begins."""
SOURCE_MAP = "source.map"
"""In the stage: what a compiler leaves that can tell the source of each instruction."""


def generation(manifest: PluginManifest) -> str:
    """The newest generation of the contract that the manifest's ``requires.kernel`` admits, e.g. ``1.1.0``.

    Raises ManifestError if it admits none.
    """
    found = contract_of(manifest)
    if found is None:
        raise ManifestError(
            f"{manifest.id} needs a kernel that this is not.",
            plugin=manifest.id,
            expected=f"a range that admits {' or '.join(CONTRACT_GENERATIONS)}",
            found=f'requires.kernel = "{manifest.requires.kernel}"',
            fix=f'Write kernel = "^{VERSION.rpartition(".")[0]}" under [requires].',
        )
    return found


def wit_of(version: str) -> Path:
    """The WIT of one generation (``1.0.0``)."""
    return WIT if version == VERSION else WIT.parent / version.rpartition(".")[0] / WIT.name


def interface(capability: str, version: str = VERSION) -> str:
    """The full name of a capability's interface, e.g. ``keelstone:plugin/kv@1.1.0``."""
    return f"{PACKAGE}/{capability}@{version}"


def compose_world(manifest: PluginManifest) -> str:
    """keelstone.wit of the manifest's generation, with the world ``guest`` importing the manifest's
    capabilities and no others. Raises ManifestError if that generation has no such capability."""
    version = generation(manifest)
    source = wit_of(version).read_text(encoding="utf-8")
    for name in manifest.capabilities.asked():
        if f"interface {name} {{" not in source:
            raise ManifestError(
                f"The capability {name} is not part of the contract's generation {version}.",
                plugin=manifest.id,
                expected=f"requires.kernel that admits {VERSION}",
                found=f'requires.kernel = "{manifest.requires.kernel}"',
                fix=f'Write kernel = "^{VERSION.rpartition(".")[0]}" under [requires].',
            )
    imports = "".join(f"    import {name};\n" for name in manifest.capabilities.asked())
    return source.replace(f"{_WORLD}\n", f"{_WORLD}\n{imports}", 1)


@contextmanager
def _damage_reported() -> Iterator[None]:
    try:
        yield
    except (IndexError, UnicodeDecodeError) as error:
        raise BuildFailed("The WebAssembly file is damaged.", found=str(error)) from error


@_damage_reported()
def core_imports(module: bytes) -> list[str]:
    """Names of the modules that a core module imports from, sorted. Raises BuildFailed."""
    names = set()
    for section, reader in sections(module, b"\0asm\x01\0\0\0"):
        if section == _CORE_IMPORTS:
            for _ in range(reader.u32()):
                names.add(reader.name())
                reader.name()
                reader.core_description()
    return sorted(names)


@_damage_reported()
def component_imports(component: bytes) -> list[str]:
    """Names of a component's imports, in order. Raises BuildFailed if it is not a component."""
    names = []
    for section, reader in sections(component, COMPONENT):
        if section == _COMPONENT_IMPORTS:
            for _ in range(reader.u32()):
                reader.byte()
                names.append(reader.name())
                reader.component_description()
    return names


@_damage_reported()
def component_exports(component: bytes) -> list[str]:
    """Names of a component's exports, in order. Raises BuildFailed if it is not a component."""
    names = []
    for section, reader in sections(component, COMPONENT):
        if section == _COMPONENT_EXPORTS:
            for _ in range(reader.u32()):
                reader.byte()
                names.append(reader.name())
                reader.export_item()
    return names


@_damage_reported()
def without_custom(module: bytes, name: str) -> bytes:
    """A core module without its custom section of that name; everything else stays where it is."""
    magic = b"\0asm\x01\0\0\0"
    if not module.startswith(magic):
        raise BuildFailed("The compiler's output is not a WebAssembly module.", found=module[:8].hex(" ") or "nothing")
    kept, reader = [magic], Reader(module)
    reader.at = len(magic)
    while reader.at < len(module):
        start = reader.at
        section = reader.byte()
        content = reader.take(reader.u32())
        if section != 0 or Reader(content).name() != name:
            kept.append(module[start : reader.at])
    return b"".join(kept)


def capabilities_of(imports: list[str]) -> list[str]:
    """The capabilities among a component's imports, sorted; type-only interfaces left out."""
    prefix = f"{PACKAGE}/"
    found = {n.removeprefix(prefix).partition("@")[0] for n in imports if n.startswith(prefix)}
    return sorted(found - {"types"})


def imports_of(component: bytes) -> tuple[str, ...] | None:
    """The capabilities that a component's code uses; None if it can't be read. Some milliseconds for a large one."""
    try:
        return tuple(capabilities_of(component_imports(component)))
    except KeelstoneError:
        return None


class Reader:
    """Reads numbers, names and descriptions from the bytes of one section."""

    def __init__(self, data: bytes) -> None:
        self.data = data
        self.at = 0

    def byte(self) -> int:
        self.at += 1
        return self.data[self.at - 1]

    def u32(self) -> int:
        """LEB128, as everywhere in both formats."""
        value = shift = 0
        while True:
            byte = self.byte()
            value |= (byte & 0x7F) << shift
            if byte < 0x80:
                return value
            shift += 7

    def take(self, count: int) -> bytes:
        if self.at + count > len(self.data):
            raise IndexError("past the end")
        self.at += count
        return self.data[self.at - count : self.at]

    def name(self) -> str:
        return self.take(self.u32()).decode("utf-8")

    def core_description(self) -> None:
        kind = self.byte()
        if kind == 0:  # function: a type index
            self.u32()
        elif kind == 1:  # table: element type, limits
            self.byte()
            self._limits()
        elif kind == 2:  # memory: limits
            self._limits()
        elif kind == 3:  # global: value type, mutability
            self.take(2)
        else:  # tag: attribute, type index
            self.byte()
            self.u32()

    def component_description(self) -> None:
        sort = self.byte()
        if sort == 0:  # core module: a second byte says so
            self.byte()
            self.u32()
        elif sort in (2, 3):  # value or type: a bound
            bound = self.byte()
            if sort == 2 or bound == 0:
                self.u32()
        else:  # function, component, instance: a type index
            self.u32()

    def export_item(self) -> None:
        """What an export is of: its sort and index, and perhaps how it is described."""
        if self.byte() == 0:  # a core sort has a second byte
            self.byte()
        self.u32()
        if self.byte() == 1:
            self.component_description()

    def _limits(self) -> None:
        flags = self.byte()
        self.u32()
        if flags & 1:
            self.u32()


def sections(binary: bytes, magic: bytes) -> Iterator[tuple[int, Reader]]:
    """Number and body of each section. Raises BuildFailed if the file does not begin with ``magic``."""
    if not binary.startswith(magic):
        raise BuildFailed(
            "The file is not the kind of WebAssembly that was expected.",
            expected=magic.hex(" "),
            found=binary[:8].hex(" ") or "nothing",
        )
    reader = Reader(binary)
    reader.at = 8
    while reader.at < len(binary):
        section = reader.byte()
        yield section, Reader(reader.take(reader.u32()))
