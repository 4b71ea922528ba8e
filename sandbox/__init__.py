"""The WebAssembly host: runs strangers' plugins, each call in a fresh instance, deny by default."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from kernel.manifest import PluginManifest
    from kernel.ports import GuestRuntime, KvStore
    from kernel.settings import Settings
    from sandbox.hostcalls import EventSchemas, Interposer
    from sandbox.native import Native
    from sandbox.runtime import LogSink

__all__ = ["inspect_component", "open_runtime"]

SWITCH_SECONDS = 0.000_5
"""How long a thread that answers host calls may keep the interpreter from the event loop (Python's own is 5 ms)."""


def open_runtime(
    settings: Settings,
    *,
    kv: KvStore | None = None,
    event_schema: EventSchemas | None = None,
    log: LogSink | None = None,
    find: Callable[[type[Any]], Any] | None = None,
    now: Callable[[], int] = time.time_ns,
    monotonic: Callable[[], int] = time.monotonic_ns,
    random: Callable[[int], bytes] = os.urandom,
    interposer: Interposer | None = None,
    instead_of_network: str | None = None,
    native: Native | None = None,
) -> GuestRuntime:
    """The host, ready to prepare and call guests. Close it when done.

    Artifacts live in ``settings.home / "artifacts"``. Without ``kv`` the host call answers
    ``unavailable``. ``event_schema`` answers a type's registered JSON Schema; without it, or where it
    answers None, the one in the guest's own manifest holds. ``log`` takes every line a guest writes.
    ``find`` answers a service published under a port of kernel.ports, or None: secrets, language models,
    messages, other plugins' services and tenants' plans come from it. ``now`` and ``monotonic`` are the
    guests' clocks, in nanoseconds, ``random`` gives so many random bytes.
    ``interposer`` and ``instead_of_network`` (``host:port``) are for authors' tests; with ``native`` the
    guest is that function in this process, behind the same gate, and nothing is sandboxed. Otherwise the
    interpreter switches threads every half millisecond from then on, in the whole process.
    """
    # wasmtime is a large library: processes that never call a guest do not load it.
    from sandbox.egress import Egress
    from sandbox.hostcalls import HostServices

    egress = Egress(settings.http_private_allow, instead=instead_of_network)
    services = HostServices(
        kv=kv,
        egress=egress,
        event_schema=event_schema,
        find=find or (lambda _port: None),
        now=now,
        monotonic=monotonic,
        random=random,
        interposer=interposer,
    )
    if native is not None:
        from sandbox.native import NativeRuntime

        return NativeRuntime(settings, services, native, log)
    from sandbox.runtime import SandboxRuntime

    sys.setswitchinterval(min(sys.getswitchinterval(), SWITCH_SECONDS))
    # A process of its own has clocks and chance of its own; an author's tests want theirs.
    usual = (now, monotonic, random, interposer) == (time.time_ns, time.monotonic_ns, os.urandom, None)
    apart = settings.sandbox_guest_process and usual
    return SandboxRuntime(settings, settings.home / "artifacts", services, log, apart=apart)


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
