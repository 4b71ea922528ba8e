"""The ways into wasmtime. Both do the same, and one conformance suite runs over both.

``fast`` speaks to libwasmtime's C functions with prototypes of our own and nothing in between: a
fresh call takes half the time. It knows one version of wasmtime exactly, and stands aside for any
other. ``package`` uses the ``wasmtime`` package's own bindings, which follow their library.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from sandbox.engine import SandboxEngine
    from sandbox.hostcalls import HostCalls
    from sandbox.lanes.answers import Outcome
    from sandbox.linking import Prepared

__all__ = ["Lane", "LiveInstance", "lane_for", "lane_report"]


class LiveInstance(Protocol):
    """One instance that serves several calls, one at a time, from whatever thread."""

    def call(self, hook: str, payload: str, host: HostCalls, seconds: float) -> Outcome:
        """Call ``handle``. After any error but the guest's own the instance must be dropped."""
        ...

    def drop(self) -> None:
        """Free the instance; once, and not while it is called."""
        ...


class Lane(Protocol):
    """Calls of one prepared component."""

    name: str

    def fresh(self, hook: str, payload: str, host: HostCalls, seconds: float) -> Outcome:
        """Call ``handle`` in an instance of its own. Raises one of the sandbox's errors, never a bare trap.

        ``seconds`` bounds everything, the component's own start functions and host calls included.
        The thread's stack must be larger than the engine's WebAssembly stack.
        """
        ...

    def open(self, host: HostCalls, seconds: float) -> LiveInstance:
        """A live instance, with the limits and within the time of the call that it is begun for."""
        ...


def lane_for(engine: SandboxEngine, prepared: Prepared, name: str | None = None) -> Lane:
    """The lane for a component: the fast one where it fits. ``name`` asks for one (tests compare them)."""
    if (name or lane_report()[0]) == "fast":
        from sandbox.lanes.fast import FastLane

        return FastLane(engine, prepared)
    from sandbox.lanes.package import PackageLane

    return PackageLane(engine, prepared)


def lane_report() -> tuple[str, str | None]:
    """The lane that serves here, and why it is not the fast one."""
    from sandbox.lanes.layout import mismatch

    found = mismatch()
    return ("fast", None) if found is None else ("package", found)
