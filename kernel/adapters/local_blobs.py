"""BlobStore in a folder: content-addressed, written atomically, checked when read."""

from __future__ import annotations

import asyncio
import hashlib
import re
from pathlib import Path
from urllib.parse import urlsplit

from kernel.errors import BackendUnavailable, ConfigurationError, ValidationFailed
from kernel.files import write_durably
from kernel.settings import Settings

_DIGEST = re.compile(r"^[0-9a-f]{64}$")


class LocalBlobs:
    """Blobs under ``folder/ab/abcdef…``."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    async def put(self, data: bytes) -> str:
        """Store; the SHA-256 digest in hex. A damaged copy of the same blob is replaced.

        A caller that is cancelled meanwhile goes when the blob is there: what it cleans up would come back otherwise.
        """
        writing = asyncio.ensure_future(asyncio.to_thread(self._put, data))
        try:
            return await asyncio.shield(writing)
        except asyncio.CancelledError:
            await asyncio.wait((writing,))
            raise

    async def get(self, digest: str) -> bytes | None:
        """The bytes, or None. Raises BackendUnavailable if they no longer match their digest."""
        return await asyncio.to_thread(self._get, digest)

    async def delete(self, digest: str) -> None:
        """Delete if it is there."""
        await asyncio.to_thread(self._path(digest).unlink, missing_ok=True)

    def _put(self, data: bytes) -> str:
        digest = hashlib.sha256(data).hexdigest()
        path = self._path(digest)
        try:
            whole = path.read_bytes() == data
        except FileNotFoundError:
            whole = False
        if not whole:
            write_durably(path, data)
        return digest

    def _get(self, digest: str) -> bytes | None:
        path = self._path(digest)
        try:
            data = path.read_bytes()
        except FileNotFoundError:
            return None
        found = hashlib.sha256(data).hexdigest()
        if found != digest:
            raise BackendUnavailable(
                "A stored blob was damaged.",
                file=path.name,
                expected=digest,
                found=found,
                fix="Install the plugin again.",
            )
        return data

    def _path(self, digest: str) -> Path:
        if not _DIGEST.fullmatch(digest):
            raise ValidationFailed("Not a blob's digest.", expected="64 hexadecimal digits", found=digest[:80])
        return self._folder / digest[:2] / digest


def open_blobs(settings: Settings) -> LocalBlobs:
    """The store that the settings name. Raises ConfigurationError."""
    if settings.blob_url is None:
        return LocalBlobs(settings.home / "blobs")
    parts = urlsplit(settings.blob_url)
    if parts.scheme != "file":
        raise ConfigurationError(
            "KEELSTONE_BLOB_URL names a store that is not supported.",
            expected="file:///folder",
            found=f"{parts.scheme}://...",
        )
    return LocalBlobs(Path(parts.path))
