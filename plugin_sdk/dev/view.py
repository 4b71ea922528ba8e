"""The loop on a terminal: what the plugin is doing above, its calls below, as they come."""

from __future__ import annotations

import threading
import time
from collections import deque
from typing import Any

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from plugin_sdk.dev.happenings import Happening

_SHOWN = 12
_COLOURS = {"debug": "dim", "info": "", "warn": "yellow", "error": "red"}


class LoopView:
    """Keeps what is to be seen and draws it. Call it with every happening, from any thread."""

    def __init__(self, console: Console, plugin: str, hooks: list[str]) -> None:
        self._console = console
        self._plugin = plugin
        self._hooks = hooks
        self._lock = threading.Lock()
        self._where = ""
        self._state = Text("starting a platform")
        self._problem: RenderableType | None = None
        self._notes: list[str] = []
        self._calls: deque[dict[str, Any]] = deque(maxlen=_SHOWN)
        self._sent: dict[str, Any] | None = None
        self._live: Live | None = None

    def __enter__(self) -> LoopView:
        self._live = Live(self.render(), console=self._console, auto_refresh=False, transient=False)
        self._live.__enter__()
        return self

    def __exit__(self, *error: Any) -> None:
        if self._live is not None:
            self._live.__exit__(*error)

    def __call__(self, happening: Happening) -> None:
        """Take note, and draw."""
        with self._lock:
            getattr(self, f"_on_{happening.kind}")(happening.data)
            if self._live is not None:
                self._live.update(self.render(), refresh=True)

    # ------------------------------------------------------------------ taking note

    def _on_ready(self, data: dict[str, Any]) -> None:
        self._where = f"{data['url']}  ·  tenant {data['tenant']}"

    def _on_changed(self, data: dict[str, Any]) -> None:
        files = ", ".join(data["files"][:3])
        self._state = Text(f"changed: {files}{' …' if len(data['files']) > 3 else ''}")

    def _on_building(self, data: dict[str, Any]) -> None:
        self._state = Text(f"building ({data['language']})", style="cyan")

    def _on_built(self, data: dict[str, Any]) -> None:
        self._problem = None
        what = "read the source" if data.get("source") else f"built {data['size']:,} bytes"
        self._state = Text(f"{what} in {data['seconds']:.2f} s, activating", style="cyan")
        unused = ", ".join(data["unused"])
        self._notes = [f"plugin.toml asks for {unused}, which the source does not use"] if unused else []

    def _on_active(self, data: dict[str, Any]) -> None:
        granted = ", ".join(data["grants"]) or "nothing"
        how = " as source, its component follows" if data.get("host") == "source" else ""
        told = f"{how}  {data['version']}  {data['seconds']:.2f} s after saving  ·  may: {granted}"
        self._state = Text.assemble(("● active", "bold green"), told)
        self._notes += [f"publishing would refuse: {f['problem']}. {f['fix']}" for f in data["findings"]]

    def _on_unchanged(self, data: dict[str, Any]) -> None:
        self._state = Text.assemble(("● active", "bold green"), "  nothing that the component is made of has changed")

    def _on_failed(self, data: dict[str, Any]) -> None:
        self._state = Text(f"✗ {data['stage']} failed; the build before goes on serving", style="bold red")
        self._problem = problem_panel(data["problem"], data["places"])

    def _on_call(self, data: dict[str, Any]) -> None:
        self._calls.append(data)

    def _on_sent(self, data: dict[str, Any]) -> None:
        self._sent = data

    def _on_tested(self, data: dict[str, Any]) -> None:
        own = data["tests"] or {"passed": 0, "failed": 0}
        failed = [c["check"] for c in data["contract"] if not c["passed"]]
        style = "green" if data["passed"] else "red"
        text = f"{len(data['contract'])} contract checks, {own['passed']} tests passed, {own['failed']} failed"
        self._problem = Panel(
            Text("\n".join([text, *failed, *(own.get("failures") or [])]), style=style), title="tests", expand=False
        )

    # ------------------------------------------------------------------ drawing

    def render(self) -> RenderableType:
        """Everything, as it is now."""
        parts: list[RenderableType] = [
            Text.assemble((self._plugin, "bold"), f"  {self._where}", style="dim" if not self._where else ""),
            self._state,
            *(Text(f"! {note}", style="yellow") for note in self._notes),
        ]
        if self._problem is not None:
            parts.append(self._problem)
        if self._calls:
            parts.append(calls_table(list(self._calls)))
            last = self._calls[-1]
            parts += [Text(f"  {line['level']:<5} {line['message']}", _COLOURS[line["level"]]) for line in last["logs"]]
            if last["problem"]:
                parts.append(problem_panel(last["problem"], last.get("places", [])))
                parts.append(Text(f"  keelstone plugin replay {last['recording']}", style="dim"))
        if self._sent is not None:
            answer = self._sent.get("payload") or self._sent.get("answer") or self._sent.get("reason") or ""
            parts.append(Text(f"{self._sent['hook']}: {self._sent['result']} {answer}", style="dim"))
        parts.append(self._keys())
        return Group(*parts)

    def _keys(self) -> Text:
        offered = [f"[{number}] {hook}" for number, hook in enumerate(self._hooks, 1)]
        return Text("send a sample: " + "  ".join(offered) + "   [b] build  [t] test  [q] quit", style="dim")


def calls_table(calls: list[dict[str, Any]]) -> Table:
    """Calls, the newest last."""
    table = Table("", "hook", "tenant", "time", "memory", "host calls", "result", box=None, pad_edge=False)
    for call in calls:
        failed = call["problem"] is not None
        result = f"{call['problem']['code']}" if failed else call["result"]
        table.add_row(
            time.strftime("%H:%M:%S", time.localtime(call["time"])),
            call["hook"],
            call["tenant"],
            micros(call["microseconds"]),
            size(call["memory_bytes"]),
            uses(call),
            Text(result, style="red" if failed else "green"),
        )
    return table


def problem_panel(problem: dict[str, Any], places: list[dict[str, Any]]) -> Panel:
    """What went wrong, at which of the author's lines, and what to do."""
    text = Text()
    for place in places[:5]:
        where = f"{place['file']}:{place['line']}" + (f":{place['column']}" if place.get("column") else "")
        text.append(where, style="bold cyan")
        text.append(f"  {place.get('function', '')}\n" if place.get("function") else "\n")
        text.append(f"    {place.get('text', '')}\n")
        if place.get("message"):
            text.append(f"    {place['message']}\n", style="red")
    if not any(place.get("message") for place in places):
        text.append(f"{problem.get('detail', '')}\n")
        if not places and problem.get("found"):
            text.append(f"{str(problem['found']).strip()[:1500]}\n", style="dim")
    if problem.get("fix"):
        text.append(f"{problem['fix']}", style="cyan")
    return Panel(text, title=f"{problem.get('title', 'failed')} ({problem.get('code')})", border_style="red")


def micros(value: int | None) -> str:
    """Microseconds for people."""
    if value is None:
        return "-"
    return f"{value} µs" if value < 1_000 else f"{value / 1_000:.1f} ms"


def size(value: int | None) -> str:
    """Bytes for people."""
    if value is None:
        return "-"
    return f"{value / 1024:.0f} KiB" if value < 1 << 20 else f"{value / (1 << 20):.1f} MiB"


def uses(call: dict[str, Any]) -> str:
    """Host calls by name, or their number."""
    named = ", ".join(f"{name} x{count}" if count > 1 else name for name, count in call["uses"].items())
    return named or str(call["host_calls"] if call["host_calls"] is not None else "-")
