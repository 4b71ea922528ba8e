"""How commands look and speak: one output door, ``--json`` everywhere, exit codes that mean something.

Packages contribute commands through the entry-point group ``keelstone.commands``; each entry is a
function ``register(tree: CommandTree)``.
"""

from __future__ import annotations

import functools
import json as jsonlib
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Annotated, Any, ParamSpec, Protocol

import typer
from rich.console import Console
from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn
from rich.text import Text

from kernel.errors import KeelstoneError

P = ParamSpec("P")

EXIT_FAILED = 1
EXIT_USAGE = 2
EXIT_REFUSED = 3
EXIT_UNREACHABLE = 4
EXIT_CODES = {
    0: "done",
    EXIT_FAILED: "failed: the message says what and where",
    EXIT_USAGE: "the command line itself is wrong",
    EXIT_REFUSED: "refused: a signature, policy, permission or consent says no",
    EXIT_UNREACHABLE: "a server or toolchain cannot be reached",
}
_REFUSED = {401, 403}
_REFUSED_CODES = {"consent-required", "rejected", "verification", "log-inconsistent"}

JsonOption = Annotated[bool, typer.Option("--json", help="Print one JSON document instead of text.")]

out = Console(highlight=False, soft_wrap=True)
err = Console(stderr=True, highlight=False, soft_wrap=True)


class RemoteError(KeelstoneError):
    """The platform answered with a problem document; code and status are the answer's."""

    def __init__(self, problem: dict[str, Any], status: int) -> None:
        super().__init__(str(problem.get("detail") or problem.get("title") or f"HTTP {status}"))
        self.body = {"status": status, **problem}
        for name in ("plugin", "hook", "tenant", "file", "expected", "found", "fix"):
            setattr(self, name, problem.get(name))

    def problem(self, instance: str | None = None) -> dict[str, Any]:
        """The document as it came."""
        return dict(self.body)


class PlatformConnection(Protocol):
    """A signed-in door to a platform: over the network if one serves, inside this process if not."""

    def request(
        self,
        method: str,
        path: str,
        *,
        json: Any = None,
        params: dict[str, Any] | None = None,
        files: dict[str, Any] | None = None,
        tenant: str | None = None,
    ) -> Any:
        """The decoded JSON answer. ``path`` begins with ``/``. ``tenant`` picks whose sign-in is
        used (default: the operator's). Raises RemoteError."""
        ...

    def close(self) -> None:
        """Let go of the platform."""
        ...


class CommandTree:
    """The root of the command line, to which packages add groups and commands."""

    def __init__(self, root: typer.Typer, connect: Callable[[], PlatformConnection]) -> None:
        self.root = root
        self._connect = connect
        self._groups: dict[str, typer.Typer] = {}

    def group(self, name: str, help: str) -> typer.Typer:
        """The command group ``name``, made at first use and shared between packages."""
        if name not in self._groups:
            self._groups[name] = typer.Typer(help=help, no_args_is_help=True)
            self.root.add_typer(self._groups[name], name=name)
        return self._groups[name]

    @contextmanager
    def platform(self) -> Iterator[PlatformConnection]:
        """A connection to the platform for the body of the ``with``."""
        connection = self._connect()
        try:
            yield connection
        finally:
            connection.close()


def show(data: Any, json: bool, text: Callable[[], None]) -> None:
    """Print ``data`` as JSON, or let ``text`` print it for people."""
    if json:
        sys.stdout.write(jsonlib.dumps(data, indent=2, default=str) + "\n")
    else:
        text()


def command(function: Callable[P, None]) -> Callable[P, None]:
    """Decorate a Typer command: errors become a clear message (or a JSON problem) and an exit code."""

    @functools.wraps(function)
    def run(*args: P.args, **kwargs: P.kwargs) -> None:
        try:
            function(*args, **kwargs)
        except KeelstoneError as error:
            problem = error.problem()
            if kwargs.get("json"):
                sys.stdout.write(jsonlib.dumps({"error": problem}, indent=2, default=str) + "\n")
            else:
                # Details quote what others wrote: a bracket in them is a bracket, not markup.
                err.print(Text.assemble((f"{problem.get('title', error.title)}.", "bold red"), f" {error.detail}"))
                for name in ("plugin", "hook", "tenant", "file", "expected", "found"):
                    if problem.get(name) is not None:
                        err.print(f"  {name}: {problem[name]}", markup=False)
                if problem.get("fix"):
                    err.print(f"  {problem['fix']}", style="cyan", markup=False)
                err.print(f"  (code {problem.get('code')})", style="dim", markup=False)
            if os.environ.get("KEELSTONE_DEBUG"):
                raise
            raise typer.Exit(exit_code(problem)) from None

    return run


def exit_code(problem: dict[str, Any]) -> int:
    """The exit code for a problem document."""
    if problem.get("code") in _REFUSED_CODES or problem.get("status") in _REFUSED:
        return EXIT_REFUSED
    if problem.get("code") in {"backend-unavailable", "toolchain-unavailable", "unreachable"}:
        return EXIT_UNREACHABLE
    return EXIT_FAILED


@contextmanager
def progress(description: str, *, json: bool = False, total: float | None = None) -> Iterator[Callable[..., None]]:
    """A progress bar on standard error; yields ``advance(step=1, description=None)``."""
    bar = Progress(
        SpinnerColumn(),
        TextColumn("{task.description}"),
        BarColumn(),
        TimeElapsedColumn(),
        console=err,
        transient=True,
        disable=json or not err.is_terminal,
    )
    with bar:
        task = bar.add_task(description, total=total)

        def advance(step: float = 1, description: str | None = None) -> None:
            if description is None:
                bar.update(task, advance=step)
            else:
                bar.update(task, advance=step, description=description)

        yield advance
