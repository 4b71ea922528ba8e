"""What publishing runs: the contract of every hook that a release's manifest claims, in the sandbox.

The same checks as ``keelstone plugin test``; found by the marketplace through the entry point
``keelstone.contract_checker``. Its HTTP ends at a server of the check's own, so nothing leaves.
"""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from kernel.errors import KeelstoneError
from kernel.manifest import PluginManifest
from plugin_sdk.testing.contract import contract_checks
from plugin_sdk.testing.guest import Guest

MOST_SECONDS = 150.0
"""For compiling and all calls together. CPython takes ten on a quiet machine."""
_PATIENCE = 3


def check_contract(component: bytes, manifest: PluginManifest, schema: Mapping[str, Any] | None) -> Sequence[str]:
    """What the component does not keep of its manifest's hooks; empty if all is well.

    Blocks for a second or, with a large runtime inside, half a minute: call it in a thread.
    """
    return asyncio.run(_check(component, manifest, schema))


async def _check(component: bytes, manifest: PluginManifest, schema: Mapping[str, Any] | None) -> list[str]:
    with tempfile.TemporaryDirectory(prefix="keelstone-contract-") as scratch:
        file = Path(scratch) / "component.wasm"
        file.write_bytes(component)
        guest = Guest(
            Path(scratch), component=file, manifest=manifest, schema=schema, tenant="contract", patience=_PATIENCE
        )
        try:
            async with asyncio.timeout(MOST_SECONDS), guest:
                await guest.start()
                checks = await contract_checks(guest)
        except TimeoutError:
            return [f"its hooks could not all be tried within {MOST_SECONDS:.0f} seconds"]
        except KeelstoneError as error:
            return [str(error)]
    return [f"{check.name}: {check.problem}" for check in checks if not check.passed]
