"""Go modules that were linked in, as ``go list -deps`` names them: with their hashes from ``go.sum``, and the standard
library, about which there are advisories too."""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from plugin_sdk.sbom import Part
from plugin_sdk.toolchain.fetch import Tool


def modules_of(go: Tool, stage: Path, env: Mapping[str, str], sums: Path) -> Iterator[Part]:
    """The modules behind the program ``./entry`` in ``stage``; ``sums`` is the plugin's ``go.sum``."""
    hashes = _hashes(sums)
    version = go.run("env", "GOVERSION", cwd=stage, env=env).stdout.strip().removeprefix("go")
    yield Part("golang", "stdlib", version, kind="framework")
    done = go.run("list", "-deps", "-json=Module", "./entry", cwd=stage, env=env)
    for said in _documents(done.stdout):
        module = said.get("Module") or {}
        module = module.get("Replace") or module
        name, version = module.get("Path", ""), module.get("Version", "")
        # Modules of the workspace have no version: the plugin itself, and the guest library. Neither has what a
        # module was replaced with in the plugin's own folder; that is the plugin's.
        if name and version:
            yield Part("golang", name, version, hashes.get((name, version), ""))


def _hashes(sums: Path) -> dict[tuple[str, str], str]:
    """SHA-256 of modules' contents (Go's ``h1``), in hex."""
    found = {}
    for line in sums.read_text(encoding="utf-8").splitlines() if sums.is_file() else ():
        name, _, rest = line.partition(" ")
        version, _, said = rest.partition(" ")
        if said.startswith("h1:"):
            try:
                found[name, version] = base64.b64decode(said[3:], validate=True).hex()
            except binascii.Error:
                continue
    return found


def _documents(text: str) -> Iterator[dict[str, Any]]:
    """One JSON document after the other."""
    decoder, at = json.JSONDecoder(), 0
    while at < len(text):
        if text[at].isspace():
            at += 1
            continue
        said, at = decoder.raw_decode(text, at)
        yield said
