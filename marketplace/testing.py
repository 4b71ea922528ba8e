"""Plugins and registries for tests: ours, and those of whoever builds on the marketplace."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from pathlib import Path

from kernel.manifest import load_manifest
from marketplace.keys import SigningKey, generate_key
from marketplace.package import build_package, read_package
from marketplace.publishing import SignedPackage
from marketplace.signing import sign_release
from plugin_sdk.sbom import SBOM_FILE, Part, write_sbom

EMPTY_COMPONENT = b"\x00asm\x0d\x00\x01\x00"
"""The smallest WebAssembly component: well-formed, without imports and exports."""

_MANIFEST = """\
manifest = 1
id = "{plugin}"
version = "{version}"
name = "{name}"
summary = "{summary}"
license = "Apache-2.0"
keywords = ["{keywords}"]
settings = "settings.schema.json"
{extra}
[hooks.{hook}]
{more}
"""


def write_plugin(
    folder: Path,
    plugin: str = "acme/guard",
    version: str = "1.0.0",
    *,
    name: str = "Guard",
    summary: str = "Keeps unwanted things outside the house.",
    keywords: str = "safety",
    hook: str = "user_creating",
    extra: str = "",
    more: str = "",
    readme: str = "# Guard\n\nIt watches the door.\n",
) -> Path:
    """A complete plugin folder. ``extra`` goes among the manifest's first keys, ``more`` at its end."""
    folder.mkdir(parents=True, exist_ok=True)
    manifest = _MANIFEST.format(
        plugin=plugin, version=version, name=name, summary=summary, keywords=keywords, hook=hook, extra=extra, more=more
    )
    schema = {"type": "object", "properties": {"strict": {"type": "boolean"}}}
    for file, text in {
        "plugin.toml": manifest,
        "README.md": readme,
        "CHANGELOG.md": f"## {version}\n\nFirst.\n",
        "settings.schema.json": json.dumps(schema),
    }.items():
        (folder / file).write_text(text, encoding="utf-8")
    return folder


def make_signed(
    folder: Path,
    key: SigningKey | None = None,
    component: bytes = EMPTY_COMPONENT,
    *,
    parts: Iterable[Part] | None = (),
) -> SignedPackage:
    """The signed package of a plugin folder, without the validator's opinion; with a list of ``parts``, unless None."""
    if parts is not None:
        said = write_sbom(load_manifest(folder), hashlib.sha256(component).hexdigest(), parts, "test")
        (folder / SBOM_FILE).write_bytes(said)
    package = read_package(build_package(folder, component))
    return SignedPackage(package, sign_release(package, key or generate_key()))
