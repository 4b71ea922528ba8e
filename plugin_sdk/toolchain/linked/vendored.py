"""Other people's code in the folder of a plugin's source, in languages that link what lies there: each copy is named
by the file in which its ecosystem says what it is.

What has no such file is named by a list that its author writes: ``<anything>.cdx.json`` beside it.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterator, Mapping
from email.parser import HeaderParser
from pathlib import Path
from typing import Any

from plugin_sdk.sbom import SBOM_SUFFIX, Part, SbomInvalid, read_sbom
from plugin_sdk.toolchain.errors import BuildFailed

_ZON_NAME = re.compile(r'\.name\s*=\s*(?:\.(\w+)|\.?@?"([^"]+)")')
_ZON_VERSION = re.compile(r'\.version\s*=\s*"([^"]+)"')


def crates(source: Path, plugin: Path) -> Iterator[Part]:
    """Copies of crates, with their checksums from the plugin's ``Cargo.lock``."""
    sums = _cargo_lock(plugin)
    for file in _found(source, "Cargo.toml"):
        said = _toml(file).get("package")
        if isinstance(said, Mapping) and file.parent not in (source, plugin):
            name, version = str(said.get("name", "")), said.get("version")
            version = version if isinstance(version, str) else ""
            if name:
                yield Part("cargo", name, version, sums.get((name, version), ""))


def distributions(source: Path) -> Iterator[Part]:
    """Copies of Python distributions, as installers leave them: with their metadata."""
    for pattern in ("*.dist-info/METADATA", "*.egg-info/PKG-INFO"):
        for file in _found(source, pattern):
            said = HeaderParser().parsestr(file.read_text(encoding="utf-8", errors="replace"), headersonly=True)
            if said["Name"]:
                yield Part("pypi", said["Name"], said["Version"] or "")


def zig_packages(source: Path, plugin: Path) -> Iterator[Part]:
    """Copies of Zig packages."""
    for file in _found(source, "build.zig.zon"):
        if file.parent not in (source, plugin):
            text = file.read_text(encoding="utf-8", errors="replace")
            name, version = _ZON_NAME.search(text), _ZON_VERSION.search(text)
            if name:
                yield Part("generic", name.group(1) or name.group(2), version.group(1) if version else "")


def told(source: Path, plugin_id: str) -> Iterator[Part]:
    """What the author's own lists in the source's folder name. Raises BuildFailed if one cannot be read."""
    for file in _found(source, f"*{SBOM_SUFFIX}"):
        try:
            yield from read_sbom(file.read_bytes()).parts
        except SbomInvalid as error:
            raise BuildFailed(
                f"{file.name} cannot be read: {error}",
                plugin=plugin_id,
                file=file.name,
                expected="a CycloneDX document that names what is vendored here",
                found=str(error),
            ) from error


def _found(source: Path, pattern: str) -> list[Path]:
    return [path for path in sorted(source.rglob(pattern)) if path.is_file()]


def _cargo_lock(plugin: Path) -> dict[tuple[str, str], str]:
    listed = _toml(plugin / "Cargo.lock").get("package")
    return {
        (str(each.get("name")), str(each.get("version"))): str(each["checksum"])
        for each in (listed if isinstance(listed, list) else ())
        if isinstance(each, Mapping) and each.get("checksum")
    }


def _toml(path: Path) -> Mapping[str, Any]:
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
