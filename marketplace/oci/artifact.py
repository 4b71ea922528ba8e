"""The two artifacts of a release: its component, as any WebAssembly tool reads it, and the signed package with proofs.

The component's manifest has one layer, because whoever reads the layout is to refuse more. The bundle with the
package, its signature and its proofs is therefore the layer of a second manifest, whose ``subject`` is the first:
registries list it as a referrer.

Sources: CNCF TAG Runtime, Wasm OCI Artifact layout; OCI image specification 1.1 (manifest, index, layout).
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from kernel.errors import ValidationFailed
from kernel.manifest import PluginManifest
from marketplace.errors import VerificationFailed
from marketplace.signing import canonical_json
from plugin_sdk.toolchain.world import component_exports, component_imports

MANIFEST = "application/vnd.oci.image.manifest.v1+json"
INDEX = "application/vnd.oci.image.index.v1+json"
WASM_CONFIG = "application/vnd.wasm.config.v0+json"
WASM = "application/wasm"
EMPTY = "application/vnd.oci.empty.v1+json"
PLUGIN = "application/vnd.keelstone.plugin.v1"
BUNDLE = "application/vnd.keelstone.bundle.v1+zip"
MAX_MANIFEST = 4 * 1024 * 1024
"""In bytes, as registries have it."""
TITLE, CREATED = "org.opencontainers.image.title", "org.opencontainers.image.created"
DIGEST = re.compile(r"^sha256:[0-9a-f]{64}$")


@dataclass(frozen=True, slots=True)
class Descriptor:
    """What points to a blob: its media type, digest (``sha256:...``) and size in bytes."""

    media_type: str
    digest: str
    size: int
    artifact_type: str | None = None
    annotations: Mapping[str, str] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        """As manifests have it."""
        said: dict[str, Any] = {"mediaType": self.media_type, "digest": self.digest, "size": self.size}
        said |= {"artifactType": self.artifact_type} if self.artifact_type else {}
        return said | ({"annotations": dict(self.annotations)} if self.annotations else {})


@dataclass(frozen=True, slots=True)
class Artifact:
    """Both artifacts of a release: the descriptors of their manifests, and ``blobs`` by digest, those among them."""

    component: Descriptor
    plugin: Descriptor
    blobs: Mapping[str, bytes] = field(repr=False)


def digest_of(body: bytes) -> str:
    """The digest by which a blob is known."""
    return f"sha256:{hashlib.sha256(body).hexdigest()}"


def tag_of(version: str) -> str:
    """A version as a tag, which has no ``+``."""
    return version.replace("+", "_")


def make_artifact(manifest: PluginManifest, component: bytes, bundle: bytes, published: str, made: str) -> Artifact:
    """The artifacts of a release. ``bundle`` has it with its proofs and was made at ``made``; ``published`` is when the
    release was (ISO 8601, UTC). The component's is always the same. Raises BuildFailed if the component is none.
    """
    blobs: dict[str, bytes] = {}

    def add(media_type: str, body: bytes, title: str | None = None) -> Descriptor:
        found = Descriptor(media_type, digest_of(body), len(body), annotations={TITLE: title} if title else {})
        blobs[found.digest] = body
        return found

    about = {
        TITLE: manifest.id,
        "org.opencontainers.image.version": manifest.version,
        "org.opencontainers.image.description": manifest.summary,
        "org.opencontainers.image.licenses": manifest.license,
        CREATED: published,
    }
    layer = add(WASM, component)
    config = {
        "created": published,
        "author": manifest.publisher,
        "architecture": "wasm",
        "os": "wasip2",
        "layerDigests": [layer.digest],
        "component": {"exports": component_exports(component), "imports": component_imports(component)},
    }
    document: dict[str, Any] = {
        "schemaVersion": 2,
        "mediaType": MANIFEST,
        "config": add(WASM_CONFIG, canonical_json(config)).to_dict(),
        "layers": [layer.to_dict()],
        "annotations": about,
    }
    subject = add(MANIFEST, canonical_json(document))
    carried = add(BUNDLE, bundle, f"{manifest.id.replace('/', '.')}-{manifest.version}.bundle")
    signed: dict[str, Any] = {
        "schemaVersion": 2,
        "mediaType": MANIFEST,
        "artifactType": PLUGIN,
        "config": add(EMPTY, b"{}").to_dict(),
        "layers": [carried.to_dict()],
        "subject": subject.to_dict(),
        "annotations": {**about, CREATED: made},
    }
    referrer = add(MANIFEST, canonical_json(signed))
    listed = Descriptor(MANIFEST, referrer.digest, referrer.size, PLUGIN, {CREATED: made})
    return Artifact(subject, listed, blobs)


def read_descriptor(said: Any) -> Descriptor:
    """A descriptor in a manifest or index. Raises ValidationFailed."""
    try:
        size, digest = said["size"], str(said["digest"])
        if type(size) is not int or size < 0 or not DIGEST.match(digest):
            raise ValueError(f"{digest[:80]}, {size} bytes")
        kind = said.get("artifactType")
        annotations = {str(name): str(value) for name, value in (said.get("annotations") or {}).items()}
        return Descriptor(str(said["mediaType"]), digest, size, None if kind is None else str(kind), annotations)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise ValidationFailed(f"This is no OCI descriptor: {error}.", expected="mediaType, digest, size") from error


def read_document(body: bytes) -> dict[str, Any]:
    """A manifest or index. Raises ValidationFailed."""
    try:
        said = json.loads(body)
        if not isinstance(said, dict) or said.get("schemaVersion") != 2:
            raise ValueError("schemaVersion is not 2")
        return said
    except (ValueError, RecursionError) as error:
        raise ValidationFailed(f"This is no OCI manifest: {error}.", expected=MANIFEST) from error


def listed_in(body: bytes, member: str) -> list[Descriptor]:
    """The descriptors in a list of a manifest (``layers``) or an index (``manifests``). Raises ValidationFailed."""
    listed = read_document(body).get(member) or []
    if not isinstance(listed, list):
        raise ValidationFailed(f"Its {member} are no list.", expected=MANIFEST)
    return [read_descriptor(each) for each in listed]


def write_index(manifests: list[Descriptor]) -> bytes:
    """An index of manifests."""
    listed = [each.to_dict() for each in manifests]
    return canonical_json({"schemaVersion": 2, "mediaType": INDEX, "manifests": listed})


def check_blob(descriptor: Descriptor, body: bytes) -> bytes:
    """``body``, if it is what the descriptor points to. Raises VerificationFailed."""
    if (len(body), digest_of(body)) != (descriptor.size, descriptor.digest):
        raise VerificationFailed(
            "artifact",
            "a blob is not the one that its manifest names.",
            expected=f"{descriptor.digest}, {descriptor.size:,} bytes",
            found=f"{digest_of(body)}, {len(body):,} bytes",
        )
    return body
