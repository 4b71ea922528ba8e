"""Takes the module loader out of what componentize-qjs makes.

Its components consist of two: the engine, and a stub whose functions ``resolve`` and ``load`` answer the
engine's import of ``local:init/module-loader`` with a trap, because a bundle has nothing left to load.
The stub brings a linear memory of its own, and the sandbox gives a component one. So the engine's
component is taken out of the pair, and the two imported functions are replaced by the engine's own
trampolines: a script that imports at run time calls itself until its stack ends, and traps as before.

Index spaces stay as they are: the imported instance becomes an empty one, an alias of its functions
becomes an alias of any other function, a ``canon lower`` becomes an alias of a core function. Format:
https://github.com/WebAssembly/component-model/blob/main/design/mvp/Binary.md.
"""

from __future__ import annotations

from collections.abc import Iterator

from plugin_sdk.toolchain.errors import BuildFailed
from plugin_sdk.toolchain.world import COMPONENT, Reader, sections

_LOADER = "local:init/module-loader"
_CORE_INSTANCES, _COMPONENTS, _INSTANCES, _ALIASES, _CANONS, _IMPORTS = 2, 4, 5, 6, 8, 10
_FUNCTION, _INSTANCE = 1, 5


def without_module_loader(component: bytes) -> bytes:
    """The engine's component alone, importing no loader. Raises BuildFailed if it is not as expected."""
    nested = [reader.data for kind, reader in sections(component, COMPONENT) if kind == _COMPONENTS]
    engine = max(nested, key=len, default=component)
    if _LOADER.encode() not in engine:
        return engine
    try:
        return _rewritten(engine)
    except (IndexError, KeyError, StopIteration, ValueError) as error:
        raise BuildFailed(
            "The JavaScript engine is not of the shape that was pinned.",
            found=str(error),
            fix="Use the pinned componentize-qjs: delete the toolchain folder and build again.",
        ) from error


def _rewritten(engine: bytes) -> bytes:
    loader = _loader_instance(engine)
    other = next(a for a in _aliases(engine) if a.function and a.instance != loader)
    trampolines = _trampolines(engine)
    out = bytearray(COMPONENT)
    lowered: dict[int, str] = {}  # function index -> resolve or load
    functions = 0
    for kind, reader in sections(engine, COMPONENT):
        if kind == _IMPORTS:
            names = []
            for _ in range(reader.u32()):
                reader.byte()
                names.append(reader.name())
                functions += reader.data[reader.at] == _FUNCTION
                reader.component_description()
            if _LOADER in names:
                if names != [_LOADER]:
                    raise ValueError("the loader is imported together with others")
                out += _section(_INSTANCES, b"\x01\x01\x00")
                continue
        elif kind == _ALIASES:
            body = bytearray(reader.data[: _after_count(reader.data)])
            for alias in _aliases_of(reader.data):
                if alias.function:
                    if alias.instance == loader:
                        lowered[functions] = alias.name
                        alias = other
                    functions += 1
                body += alias.raw
            out += _section(kind, bytes(body))
            continue
        elif kind == _CANONS:
            for raw, function in _canons_of(reader.data):
                functions += raw[0] == 0
                if function in lowered:
                    out += _section(_ALIASES, b"\x01" + trampolines[lowered[function]])
                else:
                    out += _section(_CANONS, b"\x01" + raw)
            continue
        elif kind == 11:
            # An export of a function is one more function.
            copy = Reader(reader.data)
            for _ in range(copy.u32()):
                copy.byte()
                copy.name()
                functions += copy.byte() == _FUNCTION
                copy.u32()
                if copy.byte():
                    raise ValueError("an export with a type")
        out += _section(kind, reader.data)
    if set(lowered.values()) != {"resolve", "load"}:
        raise ValueError(f"the loader's functions are {sorted(lowered.values())}")
    return bytes(out)


class _Alias:
    """One alias: ``function`` if it is of a component function, with the instance and name it comes from."""

    def __init__(self, reader: Reader) -> None:
        begin = reader.at
        sort = reader.byte()
        self.core_function = sort == 0 and reader.byte() == 0  # a core sort has two bytes
        target = reader.byte()
        self.instance = reader.u32()
        self.name = ""
        if target in (0, 1):
            self.name = reader.name()
        else:
            reader.u32()
        self.function = sort == _FUNCTION and target == 0
        self.raw = reader.data[begin : reader.at]


def _aliases_of(data: bytes) -> Iterator[_Alias]:
    reader = Reader(data)
    for _ in range(reader.u32()):
        yield _Alias(reader)


def _aliases(engine: bytes) -> Iterator[_Alias]:
    for kind, reader in sections(engine, COMPONENT):
        if kind == _ALIASES:
            yield from _aliases_of(reader.data)


def _loader_instance(engine: bytes) -> int:
    """The index of the imported instance."""
    count = 0
    for kind, reader in sections(engine, COMPONENT):
        if kind == _INSTANCES:
            count += reader.u32()
        elif kind == _IMPORTS:
            for _ in range(reader.u32()):
                reader.byte()
                name = reader.name()
                if name == _LOADER:
                    return count
                count += reader.data[reader.at] == _INSTANCE
                reader.component_description()
    raise KeyError(_LOADER)


def _trampolines(engine: bytes) -> dict[str, bytes]:
    """For resolve and load: the alias of the core function that the engine is linked to."""
    core: list[bytes] = []
    for kind, reader in sections(engine, COMPONENT):
        if kind == _ALIASES:
            core += [alias.raw for alias in _aliases_of(reader.data) if alias.core_function]
        elif kind == _CANONS:
            core += [raw for raw, _ in _canons_of(reader.data) if raw[0] != 0]
        elif kind == _CORE_INSTANCES:
            for _ in range(reader.u32()):
                exports = reader.byte()
                if not exports:
                    reader.u32()
                found = {}
                for _ in range(reader.u32()):
                    name, sort, index = reader.name(), reader.byte(), reader.u32()
                    found[name] = (sort, index)
                if exports and set(found) == {"resolve", "load"}:
                    return {name: core[index] for name, (_, index) in found.items()}
    raise KeyError("resolve, load")


def _canons_of(data: bytes) -> Iterator[tuple[bytes, int | None]]:
    """Each definition, with the component function that it lowers."""
    reader = Reader(data)
    for _ in range(reader.u32()):
        begin, function = reader.at, None
        kind = reader.byte()
        if kind in (0, 1):
            reader.byte()
            index = reader.u32()
            for _ in range(reader.u32()):
                if reader.byte() in (3, 4, 5, 7):
                    reader.u32()
            if kind == 0:
                reader.u32()
            else:
                function = index
        elif kind in (2, 3, 4):
            reader.u32()
        else:
            raise ValueError(f"a canonical definition of kind {kind:#x}")
        yield reader.data[begin : reader.at], function


def _section(kind: int, body: bytes) -> bytes:
    return bytes([kind]) + _u32(len(body)) + body


def _u32(value: int) -> bytes:
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def _after_count(data: bytes) -> int:
    reader = Reader(data)
    reader.u32()
    return reader.at
