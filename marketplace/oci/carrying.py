"""Carrying plugins to and from OCI registries: what is pulled is verified as a bundle is, and so is what tools pull."""

from __future__ import annotations

import asyncio
import hashlib
import os
import tempfile
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

from kernel.errors import NotFound, ValidationFailed
from kernel.files import write_durably
from kernel.settings import Settings
from marketplace.connect import max_package_bytes, open_client
from marketplace.errors import VerificationFailed
from marketplace.mirror.bundle import BundleFile
from marketplace.mirror.exporting import Wanted
from marketplace.mirror.here import exporter_here
from marketplace.mirror.opening import BundleShelf
from marketplace.mirror.reading import read_about
from marketplace.moments import utc_text
from marketplace.oci.artifact import (
    BUNDLE,
    CREATED,
    PLUGIN,
    WASM,
    Descriptor,
    check_blob,
    digest_of,
    listed_in,
    make_artifact,
    read_descriptor,
    read_document,
    tag_of,
)
from marketplace.oci.layout import LayoutStore
from marketplace.oci.reference import Reference, Store, read_reference
from marketplace.oci.remote import RemoteStore
from plugin_sdk.services import VerifiedPackage

MAX_REFERRERS = 100
"""How many of what refers to a component (signatures, lists of parts, ...) are looked at."""
_NO_PLUGIN = "Pull what `keelstone marketplace oci push` put there."


def push_here(settings: Settings, plugin: str, version: str, target: str) -> dict[str, Any]:
    """Put a release of the marketplace that the settings name at ``target``, verified; what came of it.

    Without a tag in ``target``, the version is it. Raises NotFound, ValidationFailed, VerificationFailed,
    BackendUnavailable or Forbidden.
    """
    reference = read_reference(target)
    if reference.digest is not None:
        raise ValidationFailed("A digest is what comes of a push.", expected="a tag, or nothing", found=target)
    package = asyncio.run(_fetched(settings, plugin, version))
    with tempfile.TemporaryDirectory(prefix="keelstone-oci-") as folder:
        file = Path(folder) / "bundle"
        with exporter_here(settings) as exporter:
            made = exporter.export(file, [Wanted(plugin, f"={version}")])["made"]
        bundle = file.read_bytes()
    assert package.published is not None
    published = utc_text(package.published)
    artifact = make_artifact(package.manifest, package.component, bundle, published, made)
    tag = reference.tag or tag_of(version)
    with _store(settings, reference) as store:
        manifests = (artifact.component.digest, artifact.plugin.digest)
        for digest, body in artifact.blobs.items():
            if digest not in manifests:
                store.put_blob(Descriptor("application/octet-stream", digest, len(body)), body)
        store.put_manifest(artifact.component, artifact.blobs[manifests[0]], tag=tag, subject=None)
        store.put_manifest(artifact.plugin, artifact.blobs[manifests[1]], tag=None, subject=artifact.component)
    at = f"{reference.host or 'oci:'}{'/' if reference.host else ''}{reference.place}"
    return {
        "plugin": plugin,
        "version": version,
        "pushed": f"{at}:{tag}",
        "component": f"{at}@{manifests[0]}",
        "package": f"{at}@{manifests[1]}",
    }


async def _fetched(settings: Settings, plugin: str, version: str) -> VerifiedPackage:
    client = open_client(settings)
    try:
        return await client.fetch(plugin, version)
    finally:
        await client.close()


def pull_here(settings: Settings, source: str, folder: Path, *, older: bool = False) -> dict[str, Any]:
    """Pull a plugin, verify it from a root that is trusted here, and keep it in ``folder`` as a bundle to install from.

    Raises NotFound, ValidationFailed, BundleCorrupt, BundleOutdated, VerificationFailed, BackendUnavailable or
    Forbidden; then nothing is kept.
    """
    reference = read_reference(source)
    wanted = reference.digest or reference.tag
    if wanted is None:
        raise ValidationFailed("Which one is not said.", expected=f"{source}:TAG or {source}@sha256:...", found=source)
    with _store(settings, reference) as store:
        component, carried = _find(store, wanted)
        limit = settings.max_bundle_mb * 1024 * 1024
        if carried.size > limit:
            raise ValidationFailed(
                "The artifact is too large.",
                expected=f"at most {limit:,} bytes",
                found=f"{carried.size:,} bytes",
                fix="If you expect it to be, raise KEELSTONE_MAX_BUNDLE_MB.",
            )
        data = check_blob(carried, store.blob(carried))
    folder.mkdir(parents=True, exist_ok=True)
    descriptor, temporary = tempfile.mkstemp(prefix=".", dir=folder)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(data)
        package = asyncio.run(_verified(settings, Path(temporary), component, older))
    finally:
        os.unlink(temporary)
    manifest = package.manifest
    out = folder / f"{manifest.id.replace('/', '.')}-{manifest.version}.bundle"
    write_durably(out, data)
    found = digest_of(package.component)
    links = [*package.chain, f"artifact: its component is the layer {found}, which WebAssembly tools pull"]
    return {"plugin": manifest.id, "version": manifest.version, "file": str(out), "chain": links}


def _find(store: Store, wanted: str) -> tuple[Descriptor, Descriptor]:
    """The component's layer and the bundle's, of the artifact named ``wanted``."""
    body = _read(store, wanted)
    document = read_document(body)
    if document.get("artifactType") == PLUGIN:
        subject = read_descriptor(document.get("subject"))
        return _layer(check_blob(subject, store.manifest(subject.digest)), WASM), _layer(body, BUNDLE)
    subject_digest = digest_of(body)
    referrers = list(store.referrers(subject_digest))[:MAX_REFERRERS]
    for each in sorted(referrers, key=lambda each: each.annotations.get(CREATED, ""), reverse=True):
        found = check_blob(each, store.manifest(each.digest))
        # Some registries list other types than the manifests have.
        about = read_document(found)
        if about.get("artifactType") == PLUGIN and read_descriptor(about.get("subject")).digest == subject_digest:
            return _layer(body, WASM), _layer(found, BUNDLE)
    raise NotFound(f"No signed plugin refers to the artifact {wanted}.", found=subject_digest, fix=_NO_PLUGIN)


def _read(store: Store, wanted: str) -> bytes:
    body = store.manifest(wanted)
    if wanted.startswith("sha256:") and digest_of(body) != wanted:
        raise VerificationFailed(
            "artifact", "the manifest is not the one that was asked for.", expected=wanted, found=digest_of(body)
        )
    return body


def _layer(manifest: bytes, media_type: str) -> Descriptor:
    layers = listed_in(manifest, "layers")
    if len(layers) != 1 or layers[0].media_type != media_type:
        kinds = ", ".join(each.media_type[:80] for each in layers)
        raise ValidationFailed(
            "The artifact is no plugin.", expected=f"one layer {media_type}", found=kinds, fix=_NO_PLUGIN
        )
    return layers[0]


async def _verified(settings: Settings, file: Path, component: Descriptor, older: bool) -> VerifiedPackage:
    with BundleFile(file, max_package_bytes(settings)) as bundle:
        releases = [(plugin, each) for plugin, versions in read_about(bundle)["releases"].items() for each in versions]
    if len(releases) != 1:
        raise ValidationFailed("The artifact has not one release.", expected="one", found=str(len(releases)))
    async with BundleShelf(settings).opened(file, older=older) as market:
        package = await market.fetch(*releases[0])
    if hashlib.sha256(package.component).hexdigest() != component.digest.removeprefix("sha256:"):
        raise VerificationFailed(
            "artifact",
            "the component that WebAssembly tools would pull is not the one in the signed package.",
            plugin=package.manifest.id,
            expected=digest_of(package.component),
            found=component.digest,
            fix="Somebody changed what the registry has. Run nothing of it.",
        )
    return package


@contextmanager
def _store(settings: Settings, reference: Reference) -> Iterator[Store]:
    store: Store
    if reference.host is None:
        store = LayoutStore(Path(reference.place))
    else:
        user, password = settings.oci_user, settings.oci_password
        sign_in = (user, password.get_secret_value()) if user and password else None
        store = RemoteStore(reference.host, reference.place, sign_in)
    with closing(store):
        yield store
