"""Reading a component's outside without compiling it: its imports, and how it is built.

The binary format is that of the component model's `Binary.md`
(https://github.com/WebAssembly/component-model/blob/main/design/mvp/Binary.md). Only section
headers, import names and core modules' memory sections are read; everything else is skipped by its
length, so a file of any size is read in one pass.
"""

from __future__ import annotations

from dataclasses import dataclass

from sandbox.errors import BadComponent

_COMPONENT = b"\0asm\x0d\x00\x01\x00"
_CORE_MODULE = b"\0asm\x01\x00\x00\x00"
_MODULE_SECTION, _CORE_INSTANCE_SECTION, _COMPONENT_SECTION, _IMPORT_SECTION = 1, 2, 4, 10
_CORE_MEMORIES = 5
_MOST = 10_000
"""Sections of one level and items of one section: a CPython guest has some hundreds."""

_LONGEST_NAME = 1_000
_PAGE = 16
"""A page's size as a power of two; there are smaller ones, none larger."""


class _Reader:
    """A cursor over bytes; every read is checked against the end."""

    def __init__(self, data: bytes, start: int, end: int) -> None:
        self.data, self.at, self.end = data, start, end

    def byte(self) -> int:
        if self.at >= self.end:
            raise ValueError("it ends too early")
        self.at += 1
        return self.data[self.at - 1]

    def number(self) -> int:
        value = shift = 0
        while True:
            part = self.byte()
            value |= (part & 0x7F) << shift
            if not part & 0x80:
                return value
            shift += 7
            if shift > 63:
                raise ValueError("a number is too long")

    def count(self) -> int:
        value = self.number()
        if value > _MOST:
            raise ValueError(f"more than {_MOST} items in a section")
        return value

    def text(self) -> str:
        return self.raw(self.number()).decode("utf-8")

    def raw(self, size: int) -> bytes:
        if size > self.end - self.at:
            raise ValueError("it ends too early")
        self.at += size
        return self.data[self.at - size : self.at]

    def sections(self) -> list[tuple[int, _Reader]]:
        found = []
        while self.at < self.end:
            kind, size = self.byte(), self.number()
            if size > self.end - self.at:
                raise ValueError(f"section {kind} ends after the file")
            found.append((kind, _Reader(self.data, self.at, self.at + size)))
            self.at += size
            if len(found) > _MOST:
                raise ValueError(f"more than {_MOST} sections")
        return found


@dataclass(frozen=True, slots=True)
class Outline:
    """What is visible of a component. ``memories`` is None if its instances cannot be numbered:
    otherwise (n-th core instance, m-th memory of its module) for every memory it will have."""

    imports: tuple[str, ...]
    memories: tuple[tuple[int, int], ...] | None
    least_memory: int
    """Bytes of linear memory that its largest module is born with."""


def imports_of(component: bytes) -> list[str]:
    """Names of everything the component imports, in order. Raises BadComponent."""
    return list(outline(component).imports)


def outline(component: bytes) -> Outline:
    """Read a component's outside. Raises BadComponent if it is not one."""
    if component[:8] != _COMPONENT:
        core = component[:8] == _CORE_MODULE
        raise BadComponent(
            "The file is not a WebAssembly component.",
            expected="a component (binary version 0x0d, layer 1)",
            found="a core module" if core else f"bytes {component[:8].hex(' ') or 'none'}",
            fix="Build it with `keelstone plugin build`, which wraps the module in a component.",
        )
    try:
        return _outline(_Reader(component, 8, len(component)))
    except (ValueError, IndexError, UnicodeDecodeError) as error:
        raise BadComponent(
            f"The component is damaged ({error}).",
            expected="a well-formed component",
            found=f"{len(component)} bytes",
            fix="Build and publish it again.",
        ) from error


def _outline(reader: _Reader) -> Outline:
    imports: list[str] = []
    modules: list[list[int]] = []
    memories: list[tuple[int, int]] = []
    instances = 0
    flat = True
    for kind, body in reader.sections():
        if kind == _IMPORT_SECTION:
            imports += _imports(body)
        elif kind == _MODULE_SECTION:
            modules.append(_memories_of(body))
        elif kind == _CORE_INSTANCE_SECTION:
            for module in _instantiated(body):
                if module >= len(modules):
                    flat = False
                else:
                    memories += [(instances, m) for m in range(len(modules[module]))]
                instances += 1
        elif kind == _COMPONENT_SECTION and _CORE_MODULE in body.data[body.at : body.end]:
            flat = False
    least = max((sum(sizes) for sizes in modules), default=0)
    return Outline(tuple(imports), tuple(memories) if flat else None, least)


def _imports(body: _Reader) -> list[str]:
    names = []
    for _ in range(body.count()):
        form = body.byte()
        names.append(_checked_name(body.text()))
        if form == 2:
            body.text()
        elif form not in (0, 1):
            raise ValueError(f"an import name of an unknown form {form}")
        _skip_type(body)
    return names


def _checked_name(name: str) -> str:
    # Names are quoted in errors and logs: nobody needs one that fills a page.
    if len(name) > _LONGEST_NAME:
        raise ValueError(f"an import's name has {len(name)} characters")
    return name


def _skip_type(body: _Reader) -> None:
    kind = body.byte()
    if kind == 0:
        body.byte()
        body.number()
    elif kind in (1, 4, 5):
        body.number()
    elif kind == 2 or kind == 3:
        # A bound: 0 with the index it equals, 1 without (a fresh resource), or a value type.
        if body.byte() == 0 or kind == 2:
            body.number()
    else:
        raise ValueError(f"an import of an unknown kind {kind}")


def _instantiated(body: _Reader) -> list[int]:
    """Indexes of the modules instantiated by a core instance section, in order."""
    found = []
    for _ in range(body.count()):
        if body.byte() == 0:
            found.append(body.number())
            for _ in range(body.count()):
                body.text()
                body.byte()
                body.number()
        else:
            for _ in range(body.count()):
                body.text()
                body.byte()
                body.number()
    return found


def _memories_of(module: _Reader) -> list[int]:
    """Least sizes, in bytes, of the memories that a core module defines itself."""
    if module.raw(8) != _CORE_MODULE:
        raise ValueError("a core module is not one")
    sizes = []
    for kind, body in module.sections():
        if kind == _CORE_MEMORIES:
            for _ in range(body.count()):
                flags, pages = body.byte(), body.number()
                if flags & 1:
                    body.number()
                page = body.number() if flags & 8 else _PAGE
                # A number as a shift is a number of that many bits: seven bytes could ask for gigabytes.
                if page > _PAGE:
                    raise ValueError(f"memory pages of 2**{page} bytes")
                sizes.append(pages << page)
    return sizes
