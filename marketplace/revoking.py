"""Revoking and its reach, by whoever has the marketplace's data folder: its keys are what gives the right to."""

from __future__ import annotations

import asyncio
from dataclasses import asdict
from typing import Any

from kernel.errors import NotFound
from kernel.settings import Settings
from marketplace.connect import registry_folder
from marketplace.registry import Registry, RegistryReader
from plugin_sdk.services import Revocation


def revoke_here(settings: Settings, plugin: str, version: str, reason: str) -> Revocation:
    """End a release of the registry in the data folder; whoever serves it meanwhile tells the platforms.

    Raises NotFound, ValidationFailed, or what opening the registry raises.
    """
    _reader(settings).close()

    async def revoke() -> Revocation:
        registry = await asyncio.to_thread(Registry.open, registry_folder(settings))
        try:
            return await registry.revoke(plugin, version, reason)
        finally:
            await registry.close()

    return asyncio.run(revoke())


def reach_here(settings: Settings, digest: str) -> dict[str, Any]:
    """The revocation of a package and who has carried it out, as plain data; times in seconds. Raises NotFound."""
    reader = _reader(settings)
    try:
        revoked, reached = reader.revocations.reach(digest)
    finally:
        reader.close()
    return {
        **asdict(revoked),
        "platforms": len(reached),
        "had_it": sum(each.installed for each in reached),
        "slowest": max((each.seconds for each in reached), default=None),
        "reached": [asdict(each) for each in reached],
    }


def _reader(settings: Settings) -> RegistryReader:
    reader = RegistryReader.open(registry_folder(settings))
    if reader is None:
        raise NotFound(
            "There is no marketplace in this data folder.",
            file=str(registry_folder(settings)),
            fix="Run the command where the marketplace runs, with its KEELSTONE_HOME.",
        )
    return reader
