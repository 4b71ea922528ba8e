"""The host's side of the contract: which interfaces a guest may import, with their exact types.

Every generation of the contract that is served has its table here, and its WIT in
``plugin_sdk/wit/``; a test compares the two. An import outside this page is refused before anything
is compiled or run.

A new generation needs: its WIT, its table in GENERATIONS, its version in
``kernel.hookspecs.CONTRACT_GENERATIONS``, and in ``sandbox.hostcalls`` what it has new, and an entry
of ADAPTERS for what an older one is told otherwise. There is one implementation for all of them.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

from kernel.manifest import PluginManifest
from sandbox.abi import Shape, shape_text, signature_text
from sandbox.errors import ImportNotCovered
from sandbox.policy import MAX_LOG_CHARS

FAILURE: Shape = ("record", ("code", "string"), ("message", "string"))
HEADER: Shape = ("record", ("name", "string"), ("value", "string"))
REQUEST: Shape = (
    "record", ("method", "string"), ("url", "string"), ("headers", ("list", HEADER)), ("body", ("option", "string")),
)  # fmt: skip
RESPONSE: Shape = ("record", ("status", "u16"), ("headers", ("list", HEADER)), ("body", "string"))
HANDLE_TYPE = "(string, string) -> result<string,string>"


@dataclass(frozen=True, slots=True)
class Signature:
    """The type of one function of the host."""

    parameters: tuple[Shape, ...]
    result: Shape | None = None

    def text(self) -> str:
        """The type in one line, as the check of a compiled component sees it."""
        result = None if self.result is None else shape_text(self.result)
        return signature_text([shape_text(p) for p in self.parameters], result)


def _answers(ok: Shape | None) -> Shape:
    return ("result", ok, FAILURE)


_TEXT: Shape = "string"
ENTRY: Shape = ("record", ("key", _TEXT), ("value", _TEXT))
PROMPT: Shape = (
    "record", ("model", _TEXT), ("system", ("option", _TEXT)), ("text", _TEXT), ("max-tokens", "u32"),
)  # fmt: skip
COMPLETION: Shape = ("record", ("text", _TEXT), ("model", _TEXT), ("tokens", "u32"))
NOTICE: Shape = ("record", ("channel", _TEXT), ("recipient", _TEXT), ("subject", _TEXT), ("body", _TEXT))

Interfaces = dict[str, dict[str, Signature]]

_1_0: Interfaces = {
    "types": {},
    "log": {"write": Signature((("enum", "debug", "info", "warn", "error"), ("clipped", 4 * MAX_LOG_CHARS)))},
    "config": {"get": Signature(("string",), _answers(("option", "string")))},
    "kv": {
        "get": Signature(("string",), _answers(("option", "string"))),
        "set": Signature(("string", "string"), _answers(None)),
        "delete": Signature(("string",), _answers(None)),
        "list-keys": Signature(("string", "u32"), _answers(("list", "string"))),
    },
    "http": {"send": Signature((REQUEST,), _answers(RESPONSE))},
    "events": {"emit": Signature(("string", "string"), _answers(None))},
}

_1_1: Interfaces = _1_0 | {
    "kv": _1_0["kv"]
    | {
        "set-if": Signature(("string", "string", ("option", "string")), _answers("bool")),
        "set-for": Signature(("string", "string", "u32"), _answers(None)),
        "get-many": Signature((("list", "string"),), _answers(("list", ("option", "string")))),
        "set-many": Signature((("list", ENTRY),), _answers(None)),
    },
    "secrets": {"placeholder": Signature(("string",), _answers("string"))},
    "ai": {"complete": Signature((PROMPT,), _answers(COMPLETION))},
    "notify": {"send": Signature((NOTICE,), _answers("string"))},
    "clock": {"now": Signature((), _answers("u64")), "monotonic": Signature((), _answers("u64"))},
    "random": {"number": Signature((), _answers("u64")), "hex": Signature(("u32",), _answers("string"))},
    "services": {"call": Signature(("string", "string", "string"), _answers("string"))},
}

GENERATIONS: dict[str, Interfaces] = {"1.0": _1_0, "1.1": _1_1}
"""Interfaces of ``keelstone:plugin`` by generation; each name but ``types`` is also its capability's."""

KEELSTONE: Interfaces = {
    f"{generation}/{name}": functions for generation, table in GENERATIONS.items() for name, functions in table.items()
}
"""The same by one name, ``1.0/kv``, as :func:`keelstone_interface` gives it."""

_OURS = re.compile(r"keelstone:plugin/([a-z-]+)@([0-9]+\.[0-9]+)\.[0-9]+")
_WASI = re.compile(r"wasi:(cli|clocks|random|io|filesystem|sockets)/([a-z0-9-]+)@0\.2\.[0-9]+")


def keelstone_interface(name: str) -> str | None:
    """``1.0/kv`` for ``keelstone:plugin/kv@1.0.0``; None for anything that no generation has."""
    found = _OURS.fullmatch(name)
    interface = f"{found[2]}/{found[1]}" if found else ""
    return interface if interface in KEELSTONE else None


def wasi_interface(name: str) -> str | None:
    """``cli/environment`` for ``wasi:cli/environment@0.2.9``; None for anything that is not WASI 0.2.

    Of these, sandbox.wasi answers a harmless few; calling any other ends the call.
    """
    found = _WASI.fullmatch(name)
    return f"{found[1]}/{found[2]}" if found else None


def check_imports(imports: Iterable[str], manifest: PluginManifest) -> None:
    """Raise ImportNotCovered if the component imports more than its manifest says."""
    asked = manifest.capabilities.asked()
    for name in imports:
        _, _, interface = (keelstone_interface(name) or "").partition("/")
        if interface == "types" or interface in asked or wasi_interface(name):
            continue
        if interface:
            raise ImportNotCovered(
                f"The component imports {name}, but the manifest does not ask for the capability {interface}.",
                plugin=manifest.id,
                expected="imports of " + (", ".join(asked) or "no capability"),
                found=name,
                fix=f"Add [capabilities.{interface}] with a `why` to plugin.toml, or build without that import.",
            )
        raise ImportNotCovered(
            f"The component imports {name}, which this host does not have.",
            plugin=manifest.id,
            expected=f"keelstone:plugin/...@{' or @'.join(GENERATIONS)} and WASI 0.2's cli, clocks, random, io, "
            "filesystem, sockets",
            found=name,
            fix="Build it with `keelstone plugin build`; reach the network with keelstone:plugin/http.",
        )
