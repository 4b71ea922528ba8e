"""What publishing runs: the contract of every hook that a release's manifest claims, in the sandbox.

The same checks as ``keelstone plugin test``; found by the marketplace through the entry point
``keelstone.contract_checker``. Its HTTP ends at a server of the check's own, so nothing leaves.
"""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from kernel.errors import KeelstoneError
from kernel.manifest import PluginManifest
from kernel.ports import GuestCall, GuestResult
from plugin_sdk.profile import HookProfile, Trial
from plugin_sdk.testing.contract import contract_checks
from plugin_sdk.testing.guest import Guest

MOST_SECONDS = 150.0
"""For compiling and all calls together. CPython takes ten on a quiet machine."""
_PATIENCE = 3


def check_contract(component: bytes, manifest: PluginManifest, schema: Mapping[str, Any] | None) -> Trial:
    """What the component does not keep of its manifest's hooks, and what each hook needed at most.

    Blocks for a second or, with a large runtime inside, half a minute: call it in a thread.
    """
    return asyncio.run(_check(component, manifest, schema))


async def _check(component: bytes, manifest: PluginManifest, schema: Mapping[str, Any] | None) -> Trial:
    profiler = Profiler()
    with tempfile.TemporaryDirectory(prefix="keelstone-contract-") as scratch:
        file = Path(scratch) / "component.wasm"
        file.write_bytes(component)
        guest = Guest(
            Path(scratch),
            component=file,
            manifest=manifest,
            schema=schema,
            tenant="contract",
            patience=_PATIENCE,
            metered=True,
        )
        guest.watch(profiler)
        try:
            async with asyncio.timeout(MOST_SECONDS), guest:
                await guest.start()
                checks = await contract_checks(guest)
        except TimeoutError:
            return Trial([f"its hooks could not all be tried within {MOST_SECONDS:.0f} seconds"])
        except KeelstoneError as error:
            return Trial([str(error)])
    problems = [f"{check.name}: {check.problem}" for check in checks if not check.passed]
    return Trial(problems, {hook: profiler.profile[hook] for hook in manifest.hooks if hook in profiler.profile})


class Profiler:
    """Watches a guest's calls, and keeps the most that each hook needed of one."""

    def __init__(self) -> None:
        self.profile: dict[str, HookProfile] = {}

    def __call__(self, call: GuestCall, came_to: GuestResult | KeelstoneError) -> None:
        """See ``Guest.watch``."""
        if not isinstance(came_to, GuestResult):
            return
        used, known = came_to.usage, self.profile.get(call.hook, HookProfile(0, 0, 0))
        self.profile[call.hook] = HookProfile(
            max(known.fuel, used.fuel),
            max(known.memory_bytes, used.memory_bytes),
            max(known.output_bytes, len(came_to.output.encode())),
        )
