"""The prepared guests of one engine: artifacts on disk, loaded once, and the engine that runs them.

A process has one shelf, and a second one where some tenant's plan meters fuel: counting every
instruction costs a guest 4 to 32 %, and only those who are metered pay for it.
"""

from __future__ import annotations

import asyncio
from dataclasses import replace
from pathlib import Path
from typing import Literal

from kernel.manifest import PluginManifest
from kernel.settings import Settings
from sandbox.artifacts import ArtifactStore
from sandbox.engine import EngineShape, SandboxEngine
from sandbox.errors import ArtifactMissing
from sandbox.guest import Guest
from sandbox.policy import EffectiveLimits

Metering = Literal["no", "some", "all"]


class Shelf:
    """Guests by the digest of their component."""

    def __init__(self, shape: EngineShape, artifacts: Path, lane: str | None = None) -> None:
        self.engine = SandboxEngine(shape)
        self._store = ArtifactStore(artifacts, self.engine)
        self._lane = lane
        self._guests: dict[str, Guest] = {}
        self._loading: dict[str, asyncio.Lock] = {}

    def get(self, digest: str) -> Guest | None:
        """The guest, if it is loaded."""
        return self._guests.get(digest)

    def has(self, digest: str) -> bool:
        """Whether its artifact is at hand."""
        return digest in self._guests or self._store.has(digest)

    async def load(self, digest: str) -> Guest:
        """The guest, loaded if need be. Raises ArtifactMissing."""
        guest = self._guests.get(digest)
        if guest is None:
            async with self._loading.setdefault(digest, asyncio.Lock()):
                guest = self._guests.get(digest)
                if guest is None:
                    guest = await asyncio.to_thread(self._open, digest)
                    self._guests[digest] = guest
        return guest

    def _open(self, digest: str) -> Guest:
        artifact = self._store.load(digest)
        return Guest(artifact.component, self.engine, artifact.memories, artifact.imports, self._lane)

    async def make(self, digest: str, component: bytes, manifest: PluginManifest) -> Guest:
        """The guest, compiled if it never was. Raises SandboxError."""
        try:
            return await self.load(digest)
        except ArtifactMissing:
            await asyncio.to_thread(self._store.make, digest, component, manifest.id)
            return await self.load(digest)

    def let_go(self, digest: str) -> None:
        """Forget the loaded guest and leave its artifact."""
        self._guests.pop(digest, None)
        self._loading.pop(digest, None)

    async def forget(self, digest: str) -> None:
        """Delete the artifact. Calls under way keep theirs."""
        self.let_go(digest)
        await asyncio.to_thread(self._store.delete, digest)

    def close(self) -> None:
        """Let go of the guests and the engine. No call may be under way."""
        self._guests.clear()
        self.engine.close()


class Shelves:
    """The shelves of a process, as ``fuel`` says: whether no call is metered, some are, or all."""

    def __init__(self, shape: EngineShape, artifacts: Path, lane: str | None, fuel: Metering) -> None:
        # Where every call is metered, nothing is compiled for an engine that does not count.
        self._usual = Shelf(replace(shape, fuel=fuel == "all"), artifacts, lane)
        self._metered = Shelf(replace(shape, fuel=True), artifacts, lane) if fuel == "some" else None
        self._all = [shelf for shelf in (self._usual, self._metered) if shelf is not None]

    def of(self, limits: EffectiveLimits) -> Shelf:
        """The shelf for a call under ``limits``."""
        return self._usual if limits.fuel is None or self._metered is None else self._metered

    def has(self, digest: str) -> bool:
        """Whether its artifacts are at hand."""
        return all(shelf.has(digest) for shelf in self._all)

    async def make(self, digest: str, component: bytes, manifest: PluginManifest) -> Guest:
        """The guest, compiled for each engine for which it never was. Raises SandboxError."""
        for shelf in self._all:
            guest = await shelf.make(digest, component, manifest)
        return guest

    async def forget(self, digest: str) -> None:
        """Delete its artifacts. Calls under way keep theirs."""
        for shelf in self._all:
            await shelf.forget(digest)

    def let_go(self, digest: str) -> None:
        """Forget the loaded guest and leave its artifacts to whoever deletes them."""
        for shelf in self._all:
            shelf.let_go(digest)

    def interrupt(self) -> None:
        """End what the guests are at."""
        for shelf in self._all:
            shelf.engine.interrupt_all()

    def close(self) -> None:
        """Let go of the guests and the engines; blocks. No call may be under way."""
        for shelf in self._all:
            shelf.close()


def lane_of(settings: Settings) -> str | None:
    """The way into wasmtime that the settings insist on; None: the fast one where it knows the library."""
    return None if settings.sandbox_lane == "auto" else settings.sandbox_lane


def metering(settings: Settings) -> Metering:
    """Which calls of this process may be metered."""
    if settings.sandbox_caps.fuel is not None:
        return "all"
    return "some" if any(caps.fuel is not None for caps in settings.plans.values()) else "no"
