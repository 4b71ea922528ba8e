"""``market.kill``: from a revocation at the marketplace to the last of 50 platforms that has carried it out.

The marketplace is a process of its own, reached over HTTP; each platform follows it as platforms do, with a cache of
its own, and has the release installed. The figure is the slowest platform's, as the marketplace's own report of reach
has it: a round counts only if all of them are in it.
"""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import httpx

from kernel.lifecycle import ReleaseState
from kernel.settings import Settings
from marketplace.client import MarketplaceClient
from marketplace.connect import registry_folder
from marketplace.datafolder import change
from marketplace.keys import generate_key
from marketplace.namespaces import make_key_set
from marketplace.registry import Registry, RegistryReader
from marketplace.testing import make_signed, write_plugin
from marketplace.transport import HttpTransport
from plugin_sdk.services import Revocation
from plugins.builtin.catalog.domain import Release
from plugins.builtin.catalog.revocations import RevocationKeeper
from tests.benchmarks.guests import component
from tests.benchmarks.measure import absolute
from tests.services.base import free_port

PLATFORMS, ROUNDS = 50, 3
PATIENCE = 60.0
_SERVE = (
    "from marketplace.serving import serve_registry; from kernel.settings import Settings; "
    "import sys; serve_registry(Settings(), '127.0.0.1', int(sys.argv[1]), open_namespaces=False)"
)


class _Platform:
    """One platform's follower, with what it has installed."""

    def __init__(self, number: int, url: str, root: bytes, folder: Path, releases: list[Release]) -> None:
        self.client = MarketplaceClient(HttpTransport(url), folder / f"cache-{number}", root)
        self.quarantined: list[str] = []
        self._releases = releases
        name = f"platform-{number}"
        self.keeper = RevocationKeeper(lambda: self.client, self._installed, self._quarantine, lambda: name)

    async def _installed(self) -> list[Release]:
        return self._releases

    async def _quarantine(self, context: object, plugin: str, version: str, reason: str) -> None:
        self.quarantined.append(version)


async def _publish(settings: Settings) -> tuple[bytes, list[Release]]:
    registry, key = Registry.open(registry_folder(settings)), generate_key()
    await registry.register_namespace(make_key_set("acme", [key]).document)
    releases = []
    for number in range(ROUNDS):
        source = write_plugin(settings.home / "sources", "acme/guard", f"1.0.{number}")
        signed = make_signed(source, key, component("wrap"))
        await registry.publish(signed.package.data, signed.envelope)
        manifest, digest = signed.package.manifest, signed.package.digest
        releases.append(Release(manifest, digest, signed.package.component_digest, ReleaseState.INSTALLED))
    await registry.close()
    return registry.trusted_root, releases


def _revoking(version: str) -> Callable[[Registry], Awaitable[Revocation]]:
    return lambda registry: registry.revoke("acme/guard", version, "It misbehaves.")


async def _follow(settings: Settings, url: str, root: bytes, releases: list[Release]) -> list[float]:
    platforms = [_Platform(number, url, root, settings.home, releases) for number in range(PLATFORMS)]
    for platform in platforms:
        await platform.keeper.carry_out()
        platform.keeper.start()
    reader = RegistryReader.open(registry_folder(settings))
    assert reader is not None
    slowest = []
    for number in range(ROUNDS):
        await asyncio.sleep(1.0)
        version = f"1.0.{number}"
        revoked = await asyncio.to_thread(change, settings, _revoking(version))
        end = time.monotonic() + PATIENCE
        while len(reached := reader.revocations.reach(revoked.digest)[1]) < PLATFORMS and time.monotonic() < end:  # noqa: ASYNC110 - another process
            await asyncio.sleep(0.1)
        if len(reached) < PLATFORMS or not all(version in each.quarantined for each in platforms):
            raise RuntimeError(f"only {len(reached)} of {PLATFORMS} platforms were reached in {PATIENCE:.0f} s")
        slowest.append(max(each.seconds for each in reached))
    for platform in platforms:
        await platform.keeper.stop()
        await platform.client.close()
    reader.close()
    return slowest


def _serve(settings: Settings, port: int) -> subprocess.Popen[bytes]:
    environment = {name: value for name, value in os.environ.items() if not name.startswith("KEELSTONE_")}
    environment |= {"KEELSTONE_HOME": str(settings.home), "KEELSTONE_LOG_LEVEL": "warning"}
    process = subprocess.Popen(
        [sys.executable, "-c", _SERVE, str(port)], cwd=Path(__file__).parents[2], env=environment
    )
    end = time.monotonic() + PATIENCE
    while process.poll() is None and time.monotonic() < end:
        try:
            httpx.get(f"http://127.0.0.1:{port}/healthz").raise_for_status()
            return process
        except httpx.HTTPError:
            time.sleep(0.1)
    process.kill()
    raise RuntimeError("the marketplace did not come up")


def rows() -> list[dict[str, Any]]:
    """The row."""
    with tempfile.TemporaryDirectory() as home:
        settings, port = Settings(home=Path(home)), free_port()
        root, releases = asyncio.run(_publish(settings))
        process = _serve(settings, port)
        try:
            values = asyncio.run(_follow(settings, f"http://127.0.0.1:{port}", root, releases))
        finally:
            process.terminate()
            process.wait()
    unit = f"s to the last of {PLATFORMS} platforms"
    return [absolute("market.kill", values=values, unit=unit, target="<= 5 s", met=lambda value: value <= 5)]


if __name__ == "__main__":
    for each in rows():
        print(each)
