"""npm packages whose files were linked in: found from the files, named by the nearest ``package.json``.

A lock file's integrity says what was downloaded; it is taken from ``package-lock.json``, or from the copy that npm
keeps inside ``node_modules``.
"""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from plugin_sdk.sbom import Part
from plugin_sdk.toolchain.fetch import PINS

_LOCKS = ("package-lock.json", "node_modules/.package-lock.json")


def packages_of(files: Iterable[Path], plugin: Path) -> Iterator[Part]:
    """The packages that ``files`` belong to, but for the plugin in the folder ``plugin`` itself."""
    seen: set[Path] = set()
    for file in files:
        home = _home(file, plugin)
        if home is not None and home not in seen:
            seen.add(home)
            said = _json(home / "package.json")
            yield Part("npm", str(said["name"]), str(said["version"]), _locked(home))


def pinned_package(pins: str, name: str) -> Part:
    """A package of the toolchain that ends up in every component of a language."""
    said = _json(PINS / pins / "package-lock.json")["packages"][f"node_modules/{name}"]
    return Part("npm", name, said["version"], _hex(said.get("integrity", "")), "framework")


def _home(file: Path, plugin: Path) -> Path | None:
    """The folder of the package that a file belongs to; None for the plugin's own."""
    for folder in file.parents:
        if folder == plugin:
            return None
        said = _json(folder / "package.json")
        # Packages keep further files of that name inside, which only say how their modules are read.
        if isinstance(said.get("name"), str) and isinstance(said.get("version"), str):
            return folder
    return None


def _locked(home: Path) -> str:
    """The digest of a package's archive, in hex, if a lock file has it."""
    if "node_modules" not in home.parts:
        return ""
    at = home.parts.index("node_modules")
    root, inside = Path(*home.parts[:at]), Path(*home.parts[at:]).as_posix()
    for name in _LOCKS:
        listed = _json(root / name).get("packages")
        found = listed.get(inside) if isinstance(listed, Mapping) else None
        if isinstance(found, Mapping) and found.get("integrity"):
            return _hex(str(found["integrity"]))
    return ""


def _hex(integrity: str) -> str:
    """A digest in hex, of those that Subresource Integrity lists; the last one is the strongest that npm writes."""
    try:
        return base64.b64decode(integrity.split()[-1].partition("-")[2], validate=True).hex()
    except (binascii.Error, IndexError):
        return ""


def _json(path: Path) -> Mapping[str, Any]:
    try:
        said = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return said if isinstance(said, dict) else {}
