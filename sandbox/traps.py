"""From wasmtime's words to our errors. Component traps carry no code, so the text is read."""

from __future__ import annotations

import re
import time
from typing import TYPE_CHECKING

from sandbox.abi import MAX_ITEMS, TooManyItems
from sandbox.engine import WASMTIME
from sandbox.errors import (
    GuestFuelLimit,
    GuestHostCallLimit,
    GuestInstanceLimit,
    GuestMemoryLimit,
    GuestOutputInvalid,
    GuestOutputTooLarge,
    GuestStackLimit,
    GuestTableLimit,
    GuestTimeLimit,
    GuestTrapped,
    SandboxError,
)
from sandbox.policy import WASM_STACK_KB

if TYPE_CHECKING:
    from sandbox.hostcalls import HostCalls

_PAGE = 65_536
_ALLOCATORS = re.compile(r"growMemory|handle_alloc_error|rust_oom|__rg_oom|out_of_memory", re.IGNORECASE)
_MEMORY = re.compile(r"exceeds (the )?(memory|allocation) limit|memory minimum size|memory.*too (large|many)")
_TABLE_SIZE = re.compile(r"table minimum size of (\d+) elements exceeds table limits")
_TOO_MANY = re.compile(r"resource limit exceeded: (instance|table) count too high at (\d+)")


def explain(text: str, host: HostCalls, began_ns: int, memory: int) -> BaseException:
    """The error for a failed call. ``memory`` is what the guest held at its end, in bytes."""
    stopped = host.stopped if host.stopped is not None else _classify(text, host, began_ns, memory)
    failed = _named(stopped, host)
    if isinstance(failed, SandboxError):
        failed.usage = host.usage((time.perf_counter_ns() - began_ns) // 1_000, 0, memory)
    return failed


def _classify(text: str, host: HostCalls, began_ns: int, memory: int) -> SandboxError:
    limits = host.limits
    cause = _cause(text)
    raised = _python_exception(host.stderr)
    if "wasm trap: interrupt" in text:
        took = (time.perf_counter_ns() - began_ns) // 1_000_000
        return GuestTimeLimit(
            f"The plugin did not answer in time and was interrupted.{_stood_still(host)}",
            expected=f"at most {limits.time_ms} ms (limits.time_ms, or what the request had left)",
            found=f"{took} ms",
            fix="Look for an endless loop; raise limits.time_ms if the work needs it.",
            extra=_over("time_ms", limits.time_ms, took),
        )
    if "all fuel consumed" in text:
        return GuestFuelLimit(
            "The plugin used up the fuel that its tenant's plan gives a call.",
            expected=f"at most {limits.fuel} units (the plan's fuel)",
            found="all of it",
            fix="Do less in one call, or take another plan.",
            extra=_over("fuel", limits.fuel or 0, limits.fuel or 0),
        )
    if "call stack exhausted" in text or raised.startswith("RecursionError"):
        return GuestStackLimit(
            "The plugin's calls nested too deeply.",
            expected=f"at most {WASM_STACK_KB} KiB of stack",
            found=raised or "more",
            fix="Look for endless recursion, or use a loop.",
            extra=_over("stack_kb", WASM_STACK_KB, WASM_STACK_KB),
        )
    if found := _TABLE_SIZE.search(text):
        return _parts(GuestTableLimit, "table_elements", limits.table_elements, int(found[1]), "elements in a table")
    if found := _TOO_MANY.search(text):
        if found[1] == "table":
            return _parts(GuestTableLimit, "tables", limits.tables, int(found[2]), "tables")
        return _parts(GuestInstanceLimit, "instances", limits.instances, int(found[2]), "core instances")
    if _MEMORY.search(text) or _ALLOCATORS.search(text) or "MemoryError" in raised or memory + _PAGE > limits.memory:
        return GuestMemoryLimit(
            "The plugin wanted more memory than it may have.",
            expected=f"at most {limits.memory >> 20} MiB (limits.memory_mb)",
            found=f"{memory >> 10} KiB in use and more asked for" if memory else cause,
            fix="Keep less at once, or raise limits.memory_mb in plugin.toml.",
            extra=_over("memory", limits.memory, memory),
        )
    if "too much data is being copied" in text:
        return GuestOutputTooLarge(
            "The plugin handed the host more than it carries in one call.",
            expected="at most 128 MiB over the border",
            found="more",
            fix="Pass less to host calls.",
        )
    if "invalid utf-8" in text.lower() or "unpaired surrogate" in text:
        return GuestOutputInvalid(
            "The plugin handed over text that is not UTF-8.", expected="UTF-8", found=cause, fix="Encode the text."
        )
    hint = f" It held {memory >> 10} of {limits.memory >> 10} KiB of memory." if memory * 2 > limits.memory else ""
    return GuestTrapped(
        f"The plugin crashed: {raised or cause}.{hint}",
        expected="an answer from handle",
        found=raised or cause,
        fix="Try the payload with `keelstone plugin test`; the details hold the trap's frames.",
        extra={"trap": text[:2_000]},
    )


def _stood_still(host: HostCalls) -> str:
    given = 0 if host.time is None else round(host.time.given * 1_000)
    return f" Its thread stood still for {given} ms of it." if given else ""


def _parts(kind: type[SandboxError], limit: str, allowed: int, used: int, what: str) -> SandboxError:
    return kind(
        f"The plugin wanted more {what} than it may have.",
        expected=f"at most {allowed} (limits.{limit})",
        found=used,
        fix=f"Build a simpler component, or raise limits.{limit} in plugin.toml.",
        extra=_over(limit, allowed, used),
    )


def _over(limit: str, allowed: int, used: int) -> dict[str, int | str]:
    """The error's machine-readable members. ``used`` is what it had when it was stopped, in the limit's unit."""
    return {"limit": limit, "allowed": allowed, "used": used}


def _named(stopped: BaseException, host: HostCalls) -> BaseException:
    """An error of ours, completed with the call's names; anything else is a defect and stays as it is."""
    if isinstance(stopped, TooManyItems):
        stopped = GuestHostCallLimit(
            "The plugin handed a host call too long a list.",
            expected=f"at most {MAX_ITEMS} items",
            found=stopped.args[0],
            fix="Pass shorter lists.",
        )
    if isinstance(stopped, SandboxError):
        stopped.plugin = stopped.plugin or host.call.plugin
        stopped.hook = stopped.hook or host.call.hook
        stopped.tenant = stopped.tenant or host.call.context.tenant
        if host.stderr:
            stopped.extra.setdefault("stderr", "\n".join(host.stderr)[:4_000])
    return stopped


def _python_exception(stderr: list[str]) -> str:
    """``RuntimeError: boom`` if a Python guest left a traceback; empty otherwise."""
    if any("MemoryError" in line for line in stderr):
        return "MemoryError"
    for start in reversed(range(len(stderr))):
        if stderr[start].startswith("Traceback (most recent call last)"):
            return next((line[:300] for line in stderr[start + 1 :] if line and not line.startswith(" ")), "")
    return ""


def _cause(text: str) -> str:
    """The last line of a trap's text that says why."""
    _, _, tail = text.partition("Caused by:")
    lines = [line.strip() for line in (tail or text).splitlines() if line.strip()]
    lines = [line.partition(": ")[2] if re.match(r"^\d+: ", line) else line for line in lines]
    return (lines[-1] if lines else f"wasmtime {WASMTIME} gave no reason").removeprefix("wasm trap: ")
