"""A Python guest's source in the place of its component, for the seconds that building one takes.

Freezing CPython and compiling it takes half a minute, which is no time between saving and looking. So
the loop first offers a component that is empty but for the name of a folder; a development platform
runs what lies there in its own process, behind the same gate of host calls (``sandbox.native``). The
real component follows as soon as it is built.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

from kernel.manifest import PluginManifest
from plugin_sdk.testing.memory import MemoryGuest

_HEADER = b"\0asm\x0d\0\x01\0"
_NAME = b"keelstone-source"


def source_component(folder: Path, manifest: PluginManifest) -> bytes:
    """The stand-in for what lies in ``folder`` now. Raises BuildFailed if Python does not import it."""
    assert manifest.build is not None
    MemoryGuest(folder, manifest).check()
    digest = hashlib.sha256()
    for file in sorted((folder / manifest.build.source).parent.rglob("*.py")):
        digest.update(str(file).encode() + b"\0" + file.read_bytes())
    told = json.dumps({"folder": str(folder), "digest": digest.hexdigest()}).encode()
    content = bytes([len(_NAME)]) + _NAME + told
    return _HEADER + b"\0" + _leb(len(content)) + content


def source_folder(component: bytes) -> Path | None:
    """The folder that a stand-in names; None for a real component."""
    start = component.find(_NAME, 0, len(_HEADER) + len(_NAME) + 8)
    if start < 0 or len(component) > 4_096:
        return None
    try:
        return Path(json.loads(component[start + len(_NAME) :])["folder"])
    except (ValueError, KeyError, TypeError):
        return None


def _leb(value: int) -> bytes:
    out = bytearray()
    while True:
        byte, value = value & 0x7F, value >> 7
        out.append(byte | (0x80 if value else 0))
        if not value:
            return bytes(out)
