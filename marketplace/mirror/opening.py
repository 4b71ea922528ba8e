"""Opening bundles for the platform, which installs straight from one where it can reach no marketplace."""

from __future__ import annotations

import asyncio
import hashlib
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

from kernel.errors import KeelstoneError
from kernel.settings import Settings
from marketplace.connect import (
    PINNED_ROOT,
    cache_folder,
    max_package_bytes,
    registry_folder,
    trusted_root,
    trusted_witnesses,
)
from marketplace.errors import NamespaceMirrored, VerificationFailed
from marketplace.mirror.bundle import BundleFile
from marketplace.mirror.reading import is_from, read_about
from marketplace.mirror.straight import BundleMarketplace, open_bundle
from marketplace.registry import RegistryReader


class BundleShelf:
    """A ``plugin_sdk.services.BundleOpener`` by the roots that are trusted on this machine."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings

    @asynccontextmanager
    async def opened(self, file: Path, *, older: bool = False) -> AsyncIterator[BundleMarketplace]:
        """The marketplace as the bundle ``file`` shows it, frozen when that was made.

        Raises as ``open_bundle``; what it has of a namespace that resolves elsewhere is refused (NamespaceMirrored).
        """
        settings = self._settings
        root = await asyncio.to_thread(self._root, file)
        found = open_bundle(
            file,
            cache_folder(settings),
            root,
            time.time(),
            max_package_bytes(settings),
            witnesses=trusted_witnesses(settings),
            needed=settings.marketplace_witnesses_needed,
            older=older,
            refuse=self._refuse(root),
        )
        market = await asyncio.to_thread(found.__enter__)
        try:
            yield market
        except BaseException as error:
            if not await asyncio.to_thread(found.__exit__, type(error), error, error.__traceback__):
                raise
        else:
            await asyncio.to_thread(found.__exit__, None, None, None)

    def _root(self, file: Path) -> bytes:
        """The trusted root whose bundle it is. Raises VerificationFailed if there is none."""
        roots = []
        pinned = self._settings.home / PINNED_ROOT
        if pinned.exists():
            roots.append(pinned.read_bytes())
        try:
            roots.append(trusted_root(self._settings))
        except KeelstoneError:
            if not roots:
                raise
        with BundleFile(file, max_package_bytes(self._settings)) as bundle:
            for root in roots:
                if is_from(bundle, root):
                    return root
            found = read_about(bundle)["log"]
        raise VerificationFailed(
            "root",
            "the bundle is of no marketplace whose root is trusted on this machine.",
            expected=", ".join(f"root sha256 {hashlib.sha256(root).hexdigest()[:16]}" for root in roots),
            found=f"the log {found}",
            fix="Pin its root with `keelstone marketplace trust FILE`, or take it into the marketplace here with "
            "`keelstone marketplace bundle import`.",
        )

    def _refuse(self, root: bytes) -> Callable[[str], None]:
        """What refuses namespaces that resolve in the marketplace of this machine, or at another upstream of it."""
        mine = hashlib.sha256(root).hexdigest()

        def refuse(publisher: str) -> None:
            reader = None if self._settings.marketplace_url else RegistryReader.open(registry_folder(self._settings))
            if reader is None:
                return
            try:
                own = reader.metadata("1.root.json") == root
                source = reader.upstreams.source(publisher)
            finally:
                reader.close()
            if not own and source not in (None, mine):
                whose = "this marketplace's own" if source == "local" else "another upstream's"
                raise NamespaceMirrored(
                    f"The namespace {publisher} is {whose} here.",
                    found=publisher,
                    fix="Install it from the marketplace; the bundle's is somebody else's.",
                )

        return refuse
