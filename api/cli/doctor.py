"""``keelstone doctor``: what this machine and these settings are fit for, before anybody finds out."""

from __future__ import annotations

import asyncio
import os
import platform as machine
from collections.abc import Awaitable, Callable
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Annotated, Literal

import typer
from rich.markup import escape

from kernel.errors import KeelstoneError
from kernel.settings import Settings
from plugin_sdk.terminal import EXIT_FAILED, CommandTree, JsonOption, command, out, progress, show

State = Literal["ok", "warning", "failed"]
SECONDS = 10.0
_COLOURS = {"ok": "green", "warning": "yellow", "failed": "red"}


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was looked at: how it is, what was found, and what to do if it is not well."""

    name: str
    state: State
    found: str
    fix: str | None = None


def register(tree: CommandTree) -> None:
    """Add the command."""

    @tree.root.command()
    @command
    def doctor(
        strict: Annotated[bool, typer.Option("--strict", help="Let warnings fail, too.")] = False,
        json: JsonOption = False,
    ) -> None:
        """Look at this machine and the settings: Python, sandbox, data folder, database, bus, plugins."""
        with progress("Looking", json=json):
            findings = asyncio.run(examine(Settings()))

        def text() -> None:
            for one in findings:
                colour = _COLOURS[one.state]
                out.print(f"  [{colour}]{one.state:<8}[/] {one.name:<18} {escape(one.found)}")
                if one.fix:
                    out.print(f"           {'':<18} {escape(one.fix)}", style="dim")

        bad = [one for one in findings if one.state == "failed" or (strict and one.state == "warning")]
        show({"well": not bad, "findings": [asdict(one) for one in findings]}, json, text)
        if bad:
            raise typer.Exit(EXIT_FAILED)


async def examine(settings: Settings) -> list[Finding]:
    """Everything that can be told without changing anything but an absent data folder."""
    found = [_python(), *_sandbox(settings), _folder(settings.home)]
    return found + await _platform(settings)


def _python() -> Finding:
    name = f"Python {machine.python_version()} on {machine.system()} {machine.machine()}, {os.cpu_count()} cores"
    return Finding("python", "ok", name)


def _sandbox(settings: Settings) -> list[Finding]:
    from sandbox.engine import WASMTIME, EngineShape, SandboxEngine
    from sandbox.lanes import lane_report
    from sandbox.placement import stack_is_large_enough

    try:
        SandboxEngine(EngineShape.of(settings)).close()
    except Exception as error:
        text = f"wasmtime {WASMTIME} does not start: {error}"
        fix = "Raise the limit on address space (ulimit -v), or lower KEELSTONE_SANDBOX_SLOTS."
        return [Finding("sandbox", "failed", text, fix)]
    found = [Finding("sandbox", "ok", f"wasmtime {WASMTIME}, room for {settings.sandbox_slots} instances")]
    lane, reason = lane_report()
    if settings.sandbox_lane == "package":
        found.append(Finding("sandbox lane", "ok", "package, as KEELSTONE_SANDBOX_LANE asks"))
    elif lane == "fast":
        found.append(Finding("sandbox lane", "ok", "fast"))
    else:
        fix = "Guests run, in half again the time. Install from the lock file for the fast lane."
        found.append(Finding("sandbox lane", "warning", f"{lane}: {reason}", fix))
    if settings.sandbox_in_place and not stack_is_large_enough():
        fix = "Guests run in threads only, which is slower. Raise the stack's limit: ulimit -s 8192."
        found.append(Finding("sandbox in place", "warning", "this thread's stack is too small, or unknown", fix))
    return found


def _folder(home: Path) -> Finding:
    if not home.exists():
        return Finding("data folder", "ok", f"{home}: not there yet; the first start makes it")
    if not os.access(home, os.W_OK | os.X_OK):
        return Finding(
            "data folder", "failed", f"{home} cannot be written", "Correct its owner, or set KEELSTONE_HOME."
        )
    mode = home.stat().st_mode & 0o077
    if mode:
        return Finding("data folder", "warning", f"{home} is open to others", f"chmod 700 {home}")
    return Finding("data folder", "ok", str(home))


async def _platform(settings: Settings) -> list[Finding]:
    from api.bootstrap import bootstrap
    from marketplace.registry.search.postgres import ping

    try:
        platform = bootstrap(settings)
    except KeelstoneError as error:
        return [Finding("settings", "failed", error.detail, error.fix)]
    found = [Finding("plugins", "ok", ", ".join(f"{m.id} {m.version}" for m in platform.hooks.manifests.values()))]
    found += [Finding("plugins", "warning", f"{h.plugin} does not run: {h.reason}") for h in platform.held_back]
    try:
        where = "SQLite in the data folder" if settings.database_url is None else "PostgreSQL"
        found.append(await _asked("database", where, platform.database.start, platform.database.ping))
        where = "in this process" if settings.bus_url is None else settings.bus_url.partition(":")[0]
        found.append(await _asked("bus", where, platform.bus.start, platform.bus.ping))
        if settings.marketplace_search_url is not None and settings.marketplace_url is None:
            asked = await _asked("search", "PostgreSQL", partial(ping, settings.marketplace_search_url))
            fix = "The registry's own index answers searches meanwhile. Check KEELSTONE_MARKETPLACE_SEARCH_URL."
            found.append(asked if asked.state == "ok" else Finding("search", "warning", asked.found, fix))
    finally:
        await platform.bus.close()
        await platform.database.close()
        await platform.runtime.close()
        for close in platform.closing:
            await close()
    return found


async def _asked(name: str, where: str, *steps: Callable[[], Awaitable[None]]) -> Finding:
    try:
        async with asyncio.timeout(SECONDS):
            for step in steps:
                await step()
    except TimeoutError:
        return Finding(
            name, "failed", f"{where}: no answer within {SECONDS:.0f} s", f"Is it running? See the {name}'s setting."
        )
    except KeelstoneError as error:
        return Finding(name, "failed", f"{where}: {error.detail}", error.fix)
    except Exception as error:
        return Finding(name, "failed", f"{where}: {type(error).__name__}: {error}", f"Check the {name}'s setting.")
    return Finding(name, "ok", where)
