"""What a component was linked from, as a CycloneDX 1.6 document: written by the build, read by the marketplace.

The document says nothing of time or place and has no serial number, so the same sources and lock files give the same
bytes. Parts are named by package URLs, which is what advisories about them are matched by.

Formats: https://cyclonedx.org/docs/1.6/json/ and https://github.com/package-url/purl-spec.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal
from urllib.parse import quote, unquote

from kernel.errors import KeelstoneError
from kernel.manifest import PluginManifest

SBOM_FILE = "sbom.cdx.json"
"""The member of a package, and the file in a plugin's folder where its author writes one by hand."""
SBOM_SUFFIX = ".cdx.json"
MAX_SBOM_BYTES = 1024 * 1024
MAX_PARTS, MAX_DEPTH = 5_000, 24
_READ = ("1.4", "1.5", "1.6")
_ALGORITHMS = {32: "MD5", 40: "SHA-1", 64: "SHA-256", 96: "SHA-384", 128: "SHA-512"}

PartKind = Literal["library", "framework"]


class SbomInvalid(KeelstoneError):
    """A list of parts that cannot be read, or is larger than anything real."""

    code, status, title = "sbom-invalid", 422, "The list of parts cannot be read"


@dataclass(frozen=True, slots=True, order=True)
class Part:
    """Something linked into a component. ``type`` is that of its package URL (``npm``, ``cargo``, ``golang``, ``pypi``,
    ``generic``), ``name`` the whole name as its registry writes it (``@scope/name``, ``github.com/who/what``);
    ``version`` is empty if nobody says. ``digest`` is that of its archive, in hex, where a lock file has it."""

    type: str
    name: str
    version: str = ""
    digest: str = ""
    kind: PartKind = "library"

    @property
    def purl(self) -> str:
        """Its package URL."""
        name = self.name.lower() if self.type in ("golang", "npm", "pypi") else self.name
        if self.type == "pypi":
            name = name.replace("_", "-")
        path = "/".join(quote(each, safe="") for each in name.split("/"))
        version = f"@{quote(self.version, safe='.-_~:')}" if self.version else ""
        return f"pkg:{self.type}/{path}{version}"


@dataclass(frozen=True, slots=True)
class Sbom:
    """A list of parts that was read. ``plugin``, ``version`` and ``component`` (SHA-256 in hex) are what it says it is
    about; empty if it says nothing."""

    plugin: str
    version: str
    component: str
    parts: tuple[Part, ...]


def sbom_beside(component: Path) -> Path:
    """Where the build puts the list of a component's parts."""
    return component.with_name(component.name.removesuffix(".component.wasm") + SBOM_SUFFIX)


def write_sbom(manifest: PluginManifest, component: str, parts: Iterable[Part], sdk: str) -> bytes:
    """The document about the component with the SHA-256 ``component`` (hex), built by version ``sdk`` of the SDK."""
    plugin = Part("generic", manifest.id, manifest.version)
    found = sorted({part.purl: part for part in sorted(parts)}.values())
    about = {
        "type": "application",
        "bom-ref": plugin.purl,
        "group": manifest.publisher,
        "name": manifest.short_name,
        "version": manifest.version,
        "purl": plugin.purl,
        "hashes": [{"alg": "SHA-256", "content": component}],
    }
    tool = {"type": "application", "name": "keelstone", "version": sdk}
    document = {
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "version": 1,
        "metadata": {"tools": {"components": [tool]}, "component": about},
        "components": [_plain(part) for part in found],
        "dependencies": [{"ref": plugin.purl, "dependsOn": sorted(part.purl for part in found)}],
    }
    return (json.dumps(document, indent=1, ensure_ascii=False) + "\n").encode()


def _plain(part: Part) -> dict[str, Any]:
    group, _, name = part.name.rpartition("/")
    said: dict[str, Any] = {"type": part.kind, "bom-ref": part.purl}
    said |= {"group": group} if group else {}
    said |= {"name": name} | ({"version": part.version} if part.version else {}) | {"purl": part.purl}
    return said | ({"hashes": [{"alg": _ALGORITHMS[len(part.digest)], "content": part.digest}]} if part.digest else {})


def read_sbom(data: bytes) -> Sbom:
    """The list of parts in a CycloneDX document. Parts without a package URL are left out: nothing can be matched
    with them. Raises SbomInvalid."""
    if len(data) > MAX_SBOM_BYTES:
        raise _bad("it is too large", f"at most {MAX_SBOM_BYTES:,} bytes", f"{len(data):,}")
    try:
        said = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise _bad(f"it is not JSON: {error}") from error
    if depth_of(said) > MAX_DEPTH:
        raise _bad("it is nested too deeply", f"at most {MAX_DEPTH} levels")
    if not isinstance(said, dict) or said.get("bomFormat") != "CycloneDX" or said.get("specVersion") not in _READ:
        raise _bad("it is no CycloneDX document", f"bomFormat CycloneDX and specVersion {', '.join(_READ)}")
    about = _mapping(_mapping(said.get("metadata")).get("component"))
    parts = tuple(_parts(said.get("components")))
    names = [str(about[key]) for key in ("group", "name") if about.get(key)]
    return Sbom("/".join(names), str(about.get("version", "")), _sha256(about), parts)


def _parts(listed: Any) -> Iterator[Part]:
    """Parts, those inside other parts included."""
    seen, open_ = 0, [listed]
    while open_:
        for each in _list(open_.pop()):
            seen += 1
            if seen > MAX_PARTS:
                raise _bad("it has too many parts", f"at most {MAX_PARTS}")
            if not isinstance(each, dict) or not isinstance(each.get("name"), str):
                raise _bad("a part has no name")
            open_.append(each.get("components"))
            if each.get("purl") is not None:
                yield _part(each)


def _part(said: Mapping[str, Any]) -> Part:
    type_, name, version = read_purl(said["purl"])
    digests = [str(each.get("content", "")) for each in map(_mapping, _list(said.get("hashes")))]
    digest = next((each for each in digests if len(each) in _ALGORITHMS), "")
    return Part(type_, name, version, digest, "framework" if said.get("type") == "framework" else "library")


def read_purl(purl: Any) -> tuple[str, str, str]:
    """Type, name and version (may be empty) of a package URL. Raises SbomInvalid."""
    if not isinstance(purl, str) or not purl.startswith("pkg:") or len(purl) > 500:
        raise _bad("a part's package URL is none", "pkg:TYPE/NAME@VERSION", str(purl)[:100])
    rest = purl[4:].partition("#")[0].partition("?")[0].strip("/")
    type_, _, rest = rest.partition("/")
    # A scope's at sign is escaped, so that the last one parts name and version.
    path, at, version = rest.rpartition("@")
    name = "/".join(unquote(each) for each in (path if at else rest).split("/") if each)
    if not type_ or not name:
        raise _bad("a part's package URL is none", "pkg:TYPE/NAME@VERSION", purl[:100])
    return type_.lower(), name, unquote(version) if at else ""


def depth_of(said: Any) -> int:
    """How deeply plain data is nested."""
    depth, level = 0, [said]
    while level:
        depth += 1
        level = [
            inner
            for each in level
            if isinstance(each, dict | list)
            for inner in (each.values() if isinstance(each, dict) else each)
            if isinstance(inner, dict | list)
        ]
    return depth


def _sha256(said: Mapping[str, Any]) -> str:
    hashes = map(_mapping, _list(said.get("hashes")))
    return next((str(each.get("content")) for each in hashes if each.get("alg") == "SHA-256"), "")


def _mapping(said: Any) -> Mapping[str, Any]:
    return said if isinstance(said, dict) else {}


def _list(said: Any) -> list[Any]:
    if said is None:
        return []
    if not isinstance(said, list):
        raise _bad("its parts are no list")
    return said


def _bad(problem: str, expected: str | None = None, found: str | None = None) -> SbomInvalid:
    return SbomInvalid(
        f"The list of parts cannot be read: {problem}.",
        file=SBOM_FILE,
        expected=expected or "a CycloneDX document in JSON",
        found=found,
        fix="Build again with `keelstone plugin build`: it writes one.",
    )
