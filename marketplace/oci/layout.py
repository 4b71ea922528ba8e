"""Artifacts in a folder: an OCI image layout, which tools copy to and from registries and carry as a tar file."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from kernel.errors import NotFound, ValidationFailed
from kernel.files import write_durably
from marketplace.oci.artifact import MAX_MANIFEST, Descriptor, listed_in, read_descriptor, read_document, write_index

_VERSION = {"imageLayoutVersion": "1.0.0"}
_NAME = "org.opencontainers.image.ref.name"


class LayoutStore:
    """A ``Store`` in ``folder``, which is made when something is put there. For one process at a time."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def put_blob(self, descriptor: Descriptor, body: bytes) -> None:
        """See :class:`Store`."""
        path = self._path(descriptor.digest)
        if not path.exists():
            write_durably(path, body)

    def put_manifest(self, descriptor: Descriptor, body: bytes, *, tag: str | None, subject: Descriptor | None) -> None:
        """See :class:`Store`."""
        marker = self._folder / "oci-layout"
        if marker.exists():
            self._check(marker)
        self.put_blob(descriptor, body)
        kept = [each for each in self._index() if tag is None or each.annotations.get(_NAME) != tag]
        kept = [each for each in kept if each.digest != descriptor.digest or each.annotations.get(_NAME)]
        named = {**descriptor.annotations, **({_NAME: tag} if tag else {})}
        write_durably(marker, json.dumps(_VERSION).encode())
        write_durably(self._folder / "index.json", write_index([*kept, replace(descriptor, annotations=named)]))

    def manifest(self, reference: str) -> bytes:
        """See :class:`Store`."""
        for each in self._index():
            if reference in (each.digest, each.annotations.get(_NAME)):
                return self._read(each.digest, MAX_MANIFEST)
        raise NotFound(f"There is no artifact {reference} in {self._folder}.", file=str(self._folder), found=reference)

    def blob(self, descriptor: Descriptor) -> bytes:
        """See :class:`Store`."""
        return self._read(descriptor.digest, descriptor.size)

    def referrers(self, subject: str) -> Sequence[Descriptor]:
        """See :class:`Store`."""
        found = []
        for each in self._index():
            document = read_document(self._read(each.digest, MAX_MANIFEST))
            if document.get("subject") and read_descriptor(document["subject"]).digest == subject:
                kind = document.get("artifactType")
                found.append(replace(each, artifact_type=None if kind is None else str(kind)))
        return found

    def close(self) -> None:
        """See :class:`Store`."""

    def _index(self) -> list[Descriptor]:
        path = self._folder / "index.json"
        return listed_in(path.read_bytes(), "manifests") if path.exists() else []

    def _check(self, marker: Path) -> None:
        try:
            if json.loads(marker.read_bytes())["imageLayoutVersion"].partition(".")[0] == "1":
                return
        except (ValueError, KeyError, TypeError, AttributeError):
            pass
        raise ValidationFailed(f"{self._folder} is no OCI layout that is known here.", expected=json.dumps(_VERSION))

    def _path(self, digest: str) -> Path:
        algorithm, _, value = digest.partition(":")
        return self._folder / "blobs" / algorithm / value

    def _read(self, digest: str, longest: int) -> bytes:
        path = self._path(digest)
        try:
            with path.open("rb") as file:
                return file.read(longest + 1)
        except FileNotFoundError as error:
            raise NotFound(
                f"The layout lacks the blob {digest}.", file=str(path), fix="Copy all of it again."
            ) from error
