"""The prepared guests of one engine: artifacts on disk, loaded once, and the engine that runs them.

A process has one shelf, and a second one where some tenant's plan meters fuel: counting every
instruction costs a guest 4 to 32 %, and only those who are metered pay for it.
"""

from __future__ import annotations

import asyncio
from pathlib import Path

from kernel.manifest import PluginManifest
from kernel.settings import Settings
from sandbox.artifacts import ArtifactStore
from sandbox.engine import EngineShape, SandboxEngine
from sandbox.errors import ArtifactMissing
from sandbox.guest import Guest


class Shelf:
    """Guests by the digest of their component. ``fuel`` says that this engine counts it."""

    def __init__(self, settings: Settings, artifacts: Path, *, fuel: bool = False) -> None:
        self.engine = SandboxEngine(EngineShape.of(settings, fuel=fuel))
        self._store = ArtifactStore(artifacts, self.engine)
        self._lane = None if settings.sandbox_lane == "auto" else settings.sandbox_lane
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

    async def forget(self, digest: str) -> None:
        """Delete the artifact. Calls under way keep theirs."""
        self._guests.pop(digest, None)
        self._loading.pop(digest, None)
        await asyncio.to_thread(self._store.delete, digest)

    def close(self) -> None:
        """Let go of the guests and the engine. No call may be under way."""
        self._guests.clear()
        self.engine.close()


def meters_fuel(settings: Settings) -> bool:
    """Whether any call of this process may be metered."""
    return settings.sandbox_caps.fuel is not None or any(caps.fuel is not None for caps in settings.plans.values())
