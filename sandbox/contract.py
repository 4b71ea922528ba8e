"""The host's side of the contract: which interfaces a guest may import, with their exact types.

Mirrors ``plugin_sdk/wit/keelstone.wit``; a test compares the two. An import outside this page is
refused before anything is compiled or run.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

from kernel.manifest import PluginManifest
from sandbox.abi import Shape, shape_text, signature_text
from sandbox.errors import ImportNotCovered

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


KEELSTONE: dict[str, dict[str, Signature]] = {
    "types": {},
    "log": {"write": Signature((("enum", "debug", "info", "warn", "error"), "string"))},
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
"""Interfaces of ``keelstone:plugin``; each name but ``types`` is also its capability's."""

_OURS = re.compile(r"keelstone:plugin/([a-z-]+)@1\.0\.[0-9]+")
_WASI = re.compile(r"wasi:(cli|clocks|random|io|filesystem|sockets)/([a-z0-9-]+)@0\.2\.[0-9]+")


def keelstone_interface(name: str) -> str | None:
    """``kv`` for ``keelstone:plugin/kv@1.0.0``; None for anything else."""
    found = _OURS.fullmatch(name)
    return found[1] if found and found[1] in KEELSTONE else None


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
        interface = keelstone_interface(name)
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
            expected="keelstone:plugin/...@1.0 and WASI 0.2's cli, clocks, random, io, filesystem, sockets",
            found=name,
            fix="Build it with `keelstone plugin build`; reach the network with keelstone:plugin/http.",
        )
