"""What the sandbox's rows share: guests from tests/guests, called without a platform around them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import wasmtime
from wasmtime.component import Component

from kernel.context import Context
from kernel.manifest import PluginManifest, manifest_from_dict
from kernel.ports import GuestCall
from kernel.settings import Settings
from sandbox.engine import EngineShape, SandboxEngine
from sandbox.guest import Guest
from sandbox.hostcalls import HostCalls, HostServices
from sandbox.policy import effective_limits

GUESTS = Path(__file__).parents[1] / "guests"
PAYLOAD = '{"text":"' + "a" * 1_013 + '"}'
"""1 KiB of JSON."""
MEMORY = ((1, 0),)
"""The number of the one memory, as compiling finds and proves it for components like these."""


def manifest(name: str = "echo", **changes: Any) -> PluginManifest:
    """A manifest that asks for nothing."""
    base = {
        "manifest": 1,
        "id": "bench/" + name.replace("_", "-"),
        "version": "1.0.0",
        "name": name.title(),
        "summary": "A guest of the benchmarks",
        "license": "Apache-2.0",
        "hooks": {"user_creating": {}},
    }
    return manifest_from_dict(base | changes)


def component(name: str) -> bytes:
    """The bytes of a guest."""
    return bytes(wasmtime.wat2wasm((GUESTS / f"{name}.wat").read_text()))


class Bare:
    """One guest with an engine of its own, called with everything that a call needs and no dispatch."""

    def __init__(self, name: str, settings: Settings | None = None, **changes: Any) -> None:
        settings = settings or Settings()
        self.engine = SandboxEngine(EngineShape.of(settings))
        self.guest = Guest(Component(self.engine.engine, component(name)), self.engine, MEMORY)
        self.manifest = manifest(name, **changes)
        self.limits = effective_limits(self.manifest.limits, settings)
        self.services = HostServices()
        self.call = GuestCall(self.manifest.id, "1.0.0", "", self.manifest, "user_creating", PAYLOAD, Context("acme"))

    def host(self) -> HostCalls:
        """The gate of one call."""
        return HostCalls(self.call, self.limits, self.services)

    def fresh(self, payload: str = PAYLOAD, seconds: float = 1.0) -> str:
        """One call in a fresh instance: store, limits, deadline, instance, call, drop."""
        return self.guest.run("user_creating", payload, self.host(), seconds).output

    def close(self) -> None:
        """Give the pool back."""
        self.engine.close()
