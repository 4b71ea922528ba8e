"""The package: the archive of one version of one plugin, as it is signed and distributed.

Members, all at the top unless the manifest names a settings schema in a folder:

=====================  ==========================================================
plugin.toml            the manifest (first member)
component.wasm         the WebAssembly component
README.md              for people, Markdown
CHANGELOG.md           for people, Markdown (optional)
<manifest.settings>    JSON Schema 2020-12 of the tenant's settings (if the manifest names one)
icon.svg or icon.png   at most one (optional)
screenshots/*          PNG or WebP, as far as the manifest names them
sbom.cdx.json          what the component was linked from, as a CycloneDX document
=====================  ==========================================================

Nothing else may be inside. The same folder and component always give the same bytes.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from kernel.manifest import MANIFEST_FILE, PluginManifest, load_manifest, parse_manifest
from marketplace.archive import is_inner_path, read_archive, write_archive
from marketplace.errors import PackageContentInvalid, PackageMembersInvalid, PackageTooLarge, VerificationFailed
from marketplace.icon import check_png, check_svg
from marketplace.references import problem_with_references
from marketplace.screenshots import MAX_SCREENSHOT_BYTES, Screenshot, read_screenshots
from plugin_sdk.sbom import MAX_SBOM_BYTES, SBOM_FILE, SbomInvalid, read_sbom, sbom_beside
from plugin_sdk.services import VerifiedPackage

SUFFIX = ".keelstone"
SCHEMA_DRAFT = "https://json-schema.org/draft/2020-12/schema"
COMPONENT, README, CHANGELOG = "component.wasm", "README.md", "CHANGELOG.md"
ICONS = ("icon.svg", "icon.png")
DEFAULT_MAX_BYTES = 32 * 1024 * 1024
_COMPONENT_MAGIC = b"\x00asm\x0d\x00\x01\x00"
_CORE_MAGIC = b"\x00asm\x01\x00\x00\x00"
_TEXT_LIMIT = 512 * 1024
_LIMITS = {
    MANIFEST_FILE: 64 * 1024,
    README: _TEXT_LIMIT,
    CHANGELOG: _TEXT_LIMIT,
    SBOM_FILE: MAX_SBOM_BYTES,
    **dict.fromkeys(ICONS, 256 * 1024),
}
_SCHEMA_LIMIT = 256 * 1024


@dataclass(frozen=True, slots=True)
class Package:
    """A package whose form has been checked (not its signature). ``digest`` is SHA-256 in hex."""

    data: bytes = field(repr=False)
    digest: str
    manifest: PluginManifest
    manifest_bytes: bytes = field(repr=False)
    component: bytes = field(repr=False)
    readme: str = field(repr=False)
    changelog: str = field(repr=False)
    settings_schema: Mapping[str, Any] | None
    icon: bytes | None = field(repr=False)
    screenshots: tuple[Screenshot, ...] = ()
    sbom: bytes | None = field(repr=False, default=None)
    """The list of the component's parts, not looked into: the rules do."""

    @property
    def file_name(self) -> str:
        """``<publisher>.<name>-<version>.keelstone``."""
        return package_file_name(self.manifest)

    @property
    def manifest_digest(self) -> str:
        """SHA-256 of plugin.toml's bytes, in hex."""
        return hashlib.sha256(self.manifest_bytes).hexdigest()

    @property
    def component_digest(self) -> str:
        """SHA-256 of the component, in hex."""
        return hashlib.sha256(self.component).hexdigest()

    def vouched_for(self, chain: Sequence[str]) -> VerifiedPackage:
        """The package as an installer takes it, with the links of ``chain`` that vouch for it."""
        return VerifiedPackage(
            manifest=self.manifest,
            digest=self.digest,
            component=self.component,
            readme=self.readme,
            changelog=self.changelog,
            settings_schema=self.settings_schema,
            icon=self.icon,
            chain=tuple(chain),
        )


def package_file_name(manifest: PluginManifest) -> str:
    """The name a package file has: ``<publisher>.<name>-<version>.keelstone``."""
    return f"{manifest.publisher}.{manifest.short_name}-{manifest.version}{SUFFIX}"


def component_path(folder: Path, short_name: str) -> Path:
    """Where ``keelstone plugin build`` leaves the component of the plugin in ``folder``."""
    return folder / "build" / f"{short_name}.component.wasm"


def build_package(folder: Path, component: bytes, *, max_bytes: int = DEFAULT_MAX_BYTES) -> bytes:
    """The package of the plugin in ``folder`` with its built ``component``.

    Takes the members listed at the top of this page and leaves sources, tests and build output
    out. Raises what :func:`read_package` raises: a package that could not be read is never built.
    """
    manifest = load_manifest(folder)
    found: dict[str, bytes] = {MANIFEST_FILE: (folder / MANIFEST_FILE).read_bytes(), COMPONENT: component}
    pictures = {each.file for each in manifest.screenshots}
    for name in sorted({README, CHANGELOG, *ICONS, *pictures, *([manifest.settings] if manifest.settings else [])}):
        path = folder / name
        if is_inner_path(name) and path.is_file():
            found[name] = path.read_bytes()
    sbom = _sbom(folder, manifest, component)
    data = write_archive(found if sbom is None else found | {SBOM_FILE: sbom})
    read_package(data, max_bytes=max_bytes)
    return data


def whole_package(chunks: Iterable[bytes], digest: str, size: int, plugin: str | None = None) -> bytes:
    """The package in ``chunks``, if it is the one with ``digest`` and ``size`` in bytes. Raises VerificationFailed."""
    data = bytearray()
    for chunk in chunks:
        data += chunk
        if len(data) > size:
            raise VerificationFailed(
                "package", "more bytes come than were published.", plugin=plugin, expected=f"{size:,} bytes"
            )
    found = hashlib.sha256(data).hexdigest()
    if found != digest:
        raise VerificationFailed(
            "package",
            "the bytes are not those that were published.",
            plugin=plugin,
            expected=f"sha256 {digest}",
            found=f"sha256 {found}, {len(data):,} bytes",
            fix="Try again; if it stays so, tell the marketplace's operator.",
        )
    return bytes(data)


def package_member(data: bytes, name: str) -> bytes | None:
    """One member of a package that was checked before, or None. Raises PackageCorrupt or PackageTooLarge."""
    return read_archive(data, len(data)).get(name)


def _sbom(folder: Path, manifest: PluginManifest, component: bytes) -> bytes | None:
    """The list of parts that the build wrote of this very component, else the one that the author keeps in the folder
    for a component built elsewhere."""
    built = sbom_beside(component_path(folder, manifest.short_name))
    try:
        said = built.read_bytes()
        if read_sbom(said).component == hashlib.sha256(component).hexdigest():
            return said
    except (FileNotFoundError, SbomInvalid):
        pass
    by_hand = folder / SBOM_FILE
    return by_hand.read_bytes() if by_hand.is_file() else None


def read_package(data: bytes, *, max_bytes: int = DEFAULT_MAX_BYTES) -> Package:
    """Check every border of ``data`` and return what is inside. Signatures are checked elsewhere.

    Raises PackageCorrupt, PackageTooLarge, PackageMembersInvalid, PackageContentInvalid or
    ManifestError, each naming the member.
    """
    members = read_archive(data, max_bytes)
    for name in (MANIFEST_FILE, COMPONENT, README):
        if name not in members:
            raise PackageMembersInvalid(
                f"The package has no {name}.",
                file=name,
                expected=f"{MANIFEST_FILE}, {COMPONENT} and {README}",
                found=", ".join(members) or "nothing",
                fix=f"Add {name} to the plugin's folder and sign again.",
            )
    _check_size(MANIFEST_FILE, members[MANIFEST_FILE], _LIMITS[MANIFEST_FILE])
    manifest = parse_manifest(members[MANIFEST_FILE])
    _check_members(manifest, members)
    _check_component(manifest, members[COMPONENT])
    icon = next((name for name in ICONS if name in members), None)
    if icon is not None:
        (check_svg if icon.endswith(".svg") else check_png)(members[icon], icon)
    return Package(
        data=data,
        digest=hashlib.sha256(data).hexdigest(),
        manifest=manifest,
        manifest_bytes=members[MANIFEST_FILE],
        component=members[COMPONENT],
        readme=_text(members, README),
        changelog=_text(members, CHANGELOG),
        settings_schema=_settings_schema(manifest, members),
        icon=members[icon] if icon else None,
        screenshots=read_screenshots(manifest, members),
        sbom=members.get(SBOM_FILE),
    )


def _check_members(manifest: PluginManifest, members: Mapping[str, bytes]) -> None:
    if manifest.settings is not None:
        if manifest.settings in _LIMITS or manifest.settings == COMPONENT or not is_inner_path(manifest.settings):
            raise PackageMembersInvalid(
                "manifest.settings names a member that cannot be a settings schema.",
                plugin=manifest.id,
                found=manifest.settings,
                fix='Use a file of its own, e.g. settings = "settings.schema.json".',
            )
        if manifest.settings not in members:
            raise PackageMembersInvalid(
                f"The manifest names {manifest.settings} as its settings schema, but the package has none.",
                plugin=manifest.id,
                file=manifest.settings,
                fix="Add the file, or take `settings` out of plugin.toml.",
            )
    pictures = {each.file for each in manifest.screenshots}
    allowed = {MANIFEST_FILE, COMPONENT, README, CHANGELOG, SBOM_FILE, *ICONS, *pictures, manifest.settings}
    for name, data in members.items():
        if name not in allowed:
            raise PackageMembersInvalid(
                f"Member {name!r} does not belong in a package.",
                plugin=manifest.id,
                file=name,
                expected=", ".join(sorted(n for n in allowed if n)),
                found=name,
            )
        if name != COMPONENT:
            _check_size(name, data, _LIMITS.get(name, MAX_SCREENSHOT_BYTES if name in pictures else _SCHEMA_LIMIT))
    if all(name in members for name in ICONS):
        raise PackageMembersInvalid("A package has one icon, not two.", plugin=manifest.id, found=", ".join(ICONS))


def _check_size(name: str, data: bytes, limit: int) -> None:
    if len(data) > limit:
        raise PackageTooLarge(
            f"Member {name} is too large.",
            file=name,
            expected=f"at most {limit:,} bytes",
            found=f"{len(data):,} bytes",
        )


def _check_component(manifest: PluginManifest, component: bytes) -> None:
    if component.startswith(_COMPONENT_MAGIC):
        return
    core = component.startswith(_CORE_MAGIC)
    raise PackageContentInvalid(
        f"{COMPONENT} is {'a core WebAssembly module' if core else 'not WebAssembly'}.",
        plugin=manifest.id,
        file=COMPONENT,
        expected="a WebAssembly component (\\0asm 0d 00 01 00)",
        found=component[:8].hex(" ") or "nothing",
        fix="Build it with `keelstone plugin build`.",
    )


def _text(members: Mapping[str, bytes], name: str) -> str:
    try:
        return members.get(name, b"").decode("utf-8")
    except UnicodeDecodeError as error:
        raise PackageContentInvalid(f"{name} is not UTF-8 text: {error}.", file=name) from error


def _settings_schema(manifest: PluginManifest, members: Mapping[str, bytes]) -> Mapping[str, Any] | None:
    """The settings schema, checked to be an object's JSON Schema of draft 2020-12."""
    if manifest.settings is None:
        return None
    from jsonschema_rs import Draft202012Validator, RegexOptions

    def bad(problem: str) -> PackageContentInvalid:
        return PackageContentInvalid(
            f"The settings schema {manifest.settings} {problem}.",
            plugin=manifest.id,
            file=manifest.settings,
            expected='a JSON Schema of draft 2020-12 with "type": "object"',
        )

    try:
        schema = json.loads(_text(members, manifest.settings))
    except (ValueError, RecursionError) as error:
        # ValueError: a number of 5,000 digits is JSON, and too much for Python.
        raise bad(f"is not JSON: {error}") from error
    if not isinstance(schema, dict) or schema.get("type") != "object":
        raise bad("does not describe an object")
    if schema.get("$schema", SCHEMA_DRAFT) != SCHEMA_DRAFT:
        raise bad(f"is of another draft, {str(schema['$schema'])[:100]}")
    problem = problem_with_references(schema)
    if problem is not None:
        raise bad(problem)
    try:
        # Compiled as the platform will: no pattern that backtracks, nothing fetched.
        Draft202012Validator(schema, offline=True, pattern_options=RegexOptions())
    except ValueError as error:
        raise bad(f"is not valid: {getattr(error, 'message', error)}") from error
    return schema
