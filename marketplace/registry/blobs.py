"""Packages in a folder, named by their SHA-256: written whole or not at all, checked when read."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import os
import re
import time
from collections.abc import Collection
from pathlib import Path

from kernel.files import write_durably
from marketplace.errors import RegistryDamaged

DIGEST = re.compile(r"^[0-9a-f]{64}$")
ORPHAN_SECONDS = 3_600.0
"""Age from which a blob that no release names was left by a publish that died (an hour)."""


class FolderBlobs:
    """A ``kernel.ports.BlobStore`` over a local folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = self._folder = folder
        folder.mkdir(parents=True, exist_ok=True)

    def path(self, digest: str) -> Path:
        """Where a blob is, whether or not it exists. Raises ValueError if ``digest`` is not one."""
        if not DIGEST.match(digest):
            raise ValueError(f"{digest!r} is not a SHA-256 digest")
        return self._folder / digest[:2] / digest

    async def put(self, data: bytes) -> str:
        """Store ``data`` durably; its digest. A damaged copy of the same blob is replaced."""
        return await asyncio.to_thread(self.store, data)

    async def get(self, digest: str) -> bytes | None:
        """The blob, or None. Raises RegistryDamaged if its bytes have changed on disk."""
        return await asyncio.to_thread(self.read, digest)

    async def delete(self, digest: str) -> None:
        """Remove the blob if it is there."""
        with contextlib.suppress(FileNotFoundError):
            await asyncio.to_thread(self.path(digest).unlink)

    def read(self, digest: str) -> bytes | None:
        """The blob, or None; blocking. Raises RegistryDamaged as :meth:`get`."""
        path = self.path(digest)
        try:
            data = path.read_bytes()
        except FileNotFoundError:
            return None
        found = hashlib.sha256(data).hexdigest()
        if found != digest:
            raise RegistryDamaged(
                "A stored package has changed on disk.",
                file=str(path),
                expected=f"sha256 {digest}",
                found=f"sha256 {found}",
                fix="Publish the same package again, or restore the file from a backup.",
            )
        return data

    def store(self, data: bytes) -> str:
        """:meth:`put`, blocking."""
        digest = hashlib.sha256(data).hexdigest()
        path = self.path(digest)
        with contextlib.suppress(FileNotFoundError):
            if path.read_bytes() == data:
                os.utime(path)  # young again, so that no sweep takes it while a publish is under way
                return digest
        write_durably(path, data)
        return digest

    def sweep(self, keep: Collection[str]) -> int:
        """Delete blobs that are not in ``keep`` and older than an hour; the number deleted."""
        limit, count = time.time() - ORPHAN_SECONDS, 0
        for path in self._folder.glob("??/*"):
            if path.name not in keep and path.stat().st_mtime < limit:
                path.unlink(missing_ok=True)
                count += 1
        for path in self._folder.glob("??/.*"):
            if path.stat().st_mtime < limit:
                path.unlink(missing_ok=True)
                count += 1
        return count
