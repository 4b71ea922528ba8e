"""The WebAssembly host: runs strangers' plugins, each call in a fresh instance, deny by default."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from kernel.manifest import PluginManifest
    from kernel.ports import GuestRuntime, KvStore
    from kernel.settings import Settings
    from sandbox.hostcalls import EventSchemas, Interposer
    from sandbox.runtime import LogSink

__all__ = ["inspect_component", "open_runtime"]


def open_runtime(
    settings: Settings,
    *,
    kv: KvStore | None = None,
    event_schema: EventSchemas | None = None,
    log: LogSink | None = None,
    interposer: Interposer | None = None,
    instead_of_network: str | None = None,
) -> GuestRuntime:
    """The host, ready to prepare and call guests. Close it when done.

    Artifacts live in ``settings.home / "artifacts"``. Without ``kv`` the host call answers
    ``unavailable``. ``event_schema`` answers a type's registered JSON Schema; without it, or where it
    answers None, the one in the guest's own manifest holds. ``log`` takes every line a guest writes.
    ``interposer`` and ``instead_of_network`` (``host:port``) are for authors' tests.
    """
    # wasmtime is a large library: processes that never call a guest do not load it.
    from sandbox.egress import Egress
    from sandbox.hostcalls import HostServices
    from sandbox.runtime import SandboxRuntime

    egress = Egress(settings.http_private_allow, instead=instead_of_network)
    services = HostServices(kv=kv, egress=egress, event_schema=event_schema, interposer=interposer)
    return SandboxRuntime(settings, settings.home / "artifacts", services, log)


def inspect_component(component: bytes, manifest: PluginManifest) -> list[str]:
    """What is wrong with a component, as far as its imports tell; empty if nothing is.

    The marketplace's validator asks this (entry point ``keelstone.component_inspector``), so that what
    could never run is refused when it is published.
    """
    from sandbox.binary import imports_of
    from sandbox.contract import check_imports
    from sandbox.errors import SandboxError

    try:
        check_imports(imports_of(component), manifest)
    except SandboxError as error:
        return [str(error)]
    return []
