"""What plugins use and how they fare: usage, budgets, advice, recordings, health, quarantine."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

import typer
from rich.table import Table

from kernel.errors import ValidationFailed
from plugin_sdk.recordings import Recording, parse_recording, write_recording
from plugin_sdk.terminal import CommandTree, JsonOption, PlatformConnection, command, err, out, show

PluginArgument = Annotated[str, typer.Argument(help="publisher/name")]
TenantArgument = Annotated[str, typer.Argument(help="The tenant's id.")]
PLUGINS_HELP = "How active plugins fare; withdraw a release and let it back in."
OneTenant = Annotated[str | None, typer.Option("--tenant", help="One tenant's, signed in as its admin.")]
AsOperator = Annotated[bool, typer.Option("--operator", help="As the operator, whose budgets bind the admin.")]
PeriodOption = Annotated[Literal["day", "month"], typer.Option(help="What the budget is for (UTC).")]
PAGE = 200


AMOUNTS = ("calls", "failed", "refused", "wall", "cpu", "MiB·s", "host calls", "HTTP", "KV", "AI tokens")
ROOMY = 120
"""Columns of a terminal on which every amount has its place."""
_NONE = ("0", "0 B", "0.000")


def register(tree: CommandTree) -> None:
    """Add ``usage``, ``plugin advise`` and the groups ``budget``, ``recordings`` and ``plugins``."""
    _usage(tree)
    _budgets(tree)
    _advise(tree)
    _recordings(tree)
    _health(tree)


def _usage(tree: CommandTree) -> None:
    @tree.root.command("usage")
    @command
    def usage(
        tenant: OneTenant = None,
        plugin: Annotated[str | None, typer.Option(help="Only this plugin.")] = None,
        by: Annotated[Literal["hour", "day", "month", "total"], typer.Option(help="Sums by what.")] = "total",
        since: Annotated[str | None, typer.Option(help="From 2026-11, 2026-11-22 or 2026-11-22T23 on (UTC).")] = None,
        until: Annotated[str | None, typer.Option(help="Before that month, day or hour (UTC).")] = None,
        json: JsonOption = False,
    ) -> None:
        """Show what plugins used: calls, time, memory, host calls, HTTP, storage, AI."""
        params = {"plugin": plugin, "by": by, "since": since, "until": until}
        with tree.platform() as platform:
            found = _pages(platform, "/api/v1/usage", params, tenant)

        def text() -> None:
            names = (by, "tenant", "plugin", "version", "hook", *AMOUNTS)
            rows = [
                (
                    *(u["period"], u["tenant"], u["plugin"], u["version"], u["hook"]),
                    *(f"{u[k]:,}" for k in ("calls", "failures", "refused")),
                    *(_time(u["wall_us"]), _time(u["cpu_us"]), f"{u['memory_mib_seconds']:,.3f}"),
                    *(f"{u['host_calls']:,}", _size(u["http_bytes"]), _size(u["kv_bytes"]), f"{u['ai_tokens']:,}"),
                )
                for u in found
            ]
            # What nobody used needs no column where there is little room.
            shown = [
                index
                for index, name in enumerate(names)
                if name != "total"
                and (out.width >= ROOMY or name not in AMOUNTS[1:] or any(row[index] not in _NONE for row in rows))
            ]
            table = Table(box=None, padding=(0, 1, 0, 0))
            for index in shown:
                right = names[index] in AMOUNTS
                table.add_column(names[index], justify="right" if right else "left", overflow="fold", no_wrap=right)
            for row in rows:
                table.add_row(*(row[index] for index in shown))
            out.print(table if found else "Nothing was used.")

        show(found, json, text)


def _budgets(tree: CommandTree) -> None:
    group = tree.group("budget", "Bound what plugins may use in a day or month.")

    @group.command("list")
    @command
    def list_budgets(tenant: TenantArgument, operator: AsOperator = False, json: JsonOption = False) -> None:
        """Show a tenant's budgets, with what is spent."""
        with tree.platform() as platform:
            found = platform.request("GET", _budget_path(tenant), tenant=None if operator else tenant)
        show(found, json, lambda: _show_budgets(found))

    @group.command("set")
    @command
    def set_budget(
        tenant: TenantArgument,
        plugin: Annotated[str, typer.Argument(help="publisher/name, or * for all plugins together.")] = "*",
        period: PeriodOption = "month",
        calls: Annotated[int | None, typer.Option(min=0, help="Calls.")] = None,
        wall_ms: Annotated[int | None, typer.Option(min=0, help="Milliseconds of run time.")] = None,
        ai_tokens: Annotated[int | None, typer.Option(min=0, help="Tokens of language models.")] = None,
        http_kb: Annotated[int | None, typer.Option(min=0, help="KiB sent and received over HTTP.")] = None,
        operator: AsOperator = False,
        json: JsonOption = False,
    ) -> None:
        """Set a budget; once it is spent, calls are refused before they run."""
        body = {
            "plugin": plugin,
            "period": period,
            "calls": calls,
            "wall_ms": wall_ms,
            "ai_tokens": ai_tokens,
            "http_bytes": None if http_kb is None else http_kb * 1_024,
        }
        with tree.platform() as platform:
            found = platform.request("PUT", _budget_path(tenant), json=body, tenant=None if operator else tenant)
        show(found, json, lambda: _show_budgets(found))

    @group.command("lift")
    @command
    def lift(
        tenant: TenantArgument,
        plugin: Annotated[str, typer.Argument(help="publisher/name, or * for all plugins together.")] = "*",
        period: PeriodOption = "month",
        operator: AsOperator = False,
        json: JsonOption = False,
    ) -> None:
        """Lift a budget."""
        params = {"plugin": plugin, "period": period}
        with tree.platform() as platform:
            platform.request("DELETE", _budget_path(tenant), params=params, tenant=None if operator else tenant)
        show({"lifted": params}, json, lambda: out.print(f"Lifted the {period}'s budget of {plugin}.", markup=False))


def _advise(tree: CommandTree) -> None:
    group = tree.group("plugin", "Write, test, sign and publish plugins.")

    @group.command("advise")
    @command
    def advise(
        plugin: PluginArgument,
        tenant: OneTenant = None,
        version: Annotated[str | None, typer.Option(help="A version; the newest observed if left out.")] = None,
        json: JsonOption = False,
    ) -> None:
        """Compare what a plugin asks for with what it used, and propose a narrower manifest and grant."""
        with tree.platform() as platform:
            path = f"/api/v1/plugins/{plugin}/advice"
            advice = platform.request("GET", path, params={"version": version, "tenant": tenant}, tenant=tenant)
        show(advice, json, lambda: _show_advice(advice))


def _recordings(tree: CommandTree) -> None:
    group = tree.group("recordings", "Failed calls, kept to be replayed by the plugin's author.")

    @group.command("list")
    @command
    def list_recordings(
        tenant: OneTenant = None,
        plugin: Annotated[str | None, typer.Option(help="Only this plugin's.")] = None,
        json: JsonOption = False,
    ) -> None:
        """List recordings, newest first."""
        with tree.platform() as platform:
            found = _pages(platform, "/api/v1/recordings", {"plugin": plugin}, tenant)

        def text() -> None:
            table = Table("recording", "when", "tenant", "plugin", "version", "hook", "error", "size", box=None)
            for r in found:
                when, size = r["recorded_at"][:19].replace("T", " "), _size(r["size"])
                table.add_row(r["id"], when, r["tenant"], r["plugin"], r["version"], r["hook"], r["code"], size)
            out.print(table if found else "No failed call is kept.")

        show(found, json, text)

    @group.command("get")
    @command
    def get(
        recording: Annotated[str, typer.Argument(help="The recording's id.")],
        output: Annotated[
            Path | None, typer.Option("--output", "-o", help="Where to write it; ID.json if left out.")
        ] = None,
        tenant: OneTenant = None,
        json: JsonOption = False,
    ) -> None:
        """Write a recording to a file for `keelstone plugin replay`."""
        if "/" in recording:
            raise ValidationFailed("That is no recording's id.", expected="one from `keelstone recordings list`")
        with tree.platform() as platform:
            found = platform.request("GET", f"/api/v1/recordings/{recording}", tenant=tenant)
        kept: Recording = parse_recording(_document(found))
        path = output or Path(f"{recording}.json")
        write_recording(path, kept)
        data = {"file": str(path), "plugin": kept.plugin, "hook": kept.hook, "outcome": kept.outcome.model_dump()}

        def text() -> None:
            out.print(f"Wrote {path}: {kept.plugin} {kept.version}, {kept.hook}, {kept.outcome.code}.", markup=False)
            out.print(f"  {len(kept.exchanges)} host calls, {len(kept.masked)} masked values", markup=False)
            out.print(f"Next: keelstone plugin replay {path}", markup=False)

        show(data, json, text)

    @group.command("delete")
    @command
    def delete(
        recording: Annotated[str, typer.Argument(help="The recording's id.")],
        tenant: OneTenant = None,
        json: JsonOption = False,
    ) -> None:
        """Delete a recording."""
        with tree.platform() as platform:
            platform.request("DELETE", f"/api/v1/recordings/{recording}", tenant=tenant)
        show({"deleted": recording}, json, lambda: out.print(f"Deleted {recording}.", markup=False))

    @group.command("policy")
    @command
    def policy(
        tenant: TenantArgument,
        keep: Annotated[bool | None, typer.Option("--keep/--no-keep", help="Keep failed calls, or not.")] = None,
        mask: Annotated[bool | None, typer.Option("--mask/--no-mask", help="Mask personal data, or not.")] = None,
        json: JsonOption = False,
    ) -> None:
        """Show or decide whether a tenant's failed calls are kept, and masked. Secrets always are."""
        path = "/api/v1/recordings/policy"
        with tree.platform() as platform:
            found = platform.request("GET", path, tenant=tenant)
            if keep is not None or mask is not None:
                changed = {"keep": keep, "mask": mask}
                body = {name: found[name] if value is None else value for name, value in changed.items()}
                found = platform.request("PUT", path, json=body, tenant=tenant)

        def text() -> None:
            kept = "kept" if found["keep"] else "not kept"
            masked = ", personal data masked" if found["mask"] else ", personal data as it is"
            out.print(f"Failed calls of {tenant} are {kept}{masked if found['keep'] else ''}.", markup=False)

        show(found, json, text)


def _health(tree: CommandTree) -> None:
    group = tree.group("plugins", PLUGINS_HELP)

    @group.command("health")
    @command
    def health(tenant: OneTenant = None, json: JsonOption = False) -> None:
        """Show each active plugin's state and its breakers."""
        with tree.platform() as platform:
            found = platform.request("GET", "/api/v1/plugins/health", tenant=tenant)

        def text() -> None:
            table = Table("tenant", "plugin", "version", "state", "breakers", box=None)
            for h in found:
                colour = {"active": "green", "degraded": "yellow", "quarantined": "red"}.get(h["state"], "")
                told = "; ".join(
                    f"{b['hook']} {b['state']}, {b['failures']} failures, until {b['until'][11:19]} ({b['error']})"
                    for b in h["breakers"]
                )
                state = f"[{colour}]{h['state']}[/]" if colour else h["state"]
                table.add_row(h["tenant"], h["plugin"], h["version"], state, told.replace("[", "\\["))
            out.print(table if found else "No plugin is active.")

        show(found, json, text)

    @group.command("reset")
    @command
    def reset(tenant: TenantArgument, plugin: PluginArgument, json: JsonOption = False) -> None:
        """Close a plugin's breakers for a tenant, so that the next call goes through."""
        with tree.platform() as platform:
            path = f"/api/v1/tenants/{tenant}/activations/{plugin}/reset"
            found = platform.request("POST", path, tenant=tenant)
        show(found, json, lambda: out.print(f"Closed {found['closed']} breakers of {plugin}.", markup=False))

    @group.command("quarantine")
    @command
    def quarantine(
        plugin: PluginArgument,
        version: Annotated[str, typer.Argument(help="The release.")],
        reason: Annotated[str, typer.Option(help="Told to the tenants that run it.")] = "withdrawn by the operator",
        json: JsonOption = False,
    ) -> None:
        """Withdraw a release at once: no call reaches it, and its hooks fail by their policy."""
        body = {"version": version, "reason": reason}
        with tree.platform() as platform:
            found = platform.request("POST", f"/api/v1/plugins/{plugin}/quarantine", json=body)
        show(found, json, lambda: out.print(f"{plugin} {found['version']} is quarantined.", markup=False))

    @group.command("release")
    @command
    def release(
        plugin: PluginArgument,
        version: Annotated[str, typer.Argument(help="The release.")],
        json: JsonOption = False,
    ) -> None:
        """Let a quarantined release back in: verified and installed anew."""
        with tree.platform() as platform:
            found = platform.request("POST", f"/api/v1/plugins/{plugin}/release", json={"version": version})
        show(found, json, lambda: out.print(f"{plugin} {found['version']} is installed again.", markup=False))


# ---------------------------------------------------------------------------------- inside


def _pages(platform: PlatformConnection, path: str, params: dict[str, Any], tenant: str | None) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = []
    after = None
    while True:
        page = platform.request("GET", path, params={**params, "limit": PAGE, "after": after}, tenant=tenant)
        found += page["items"]
        after = page["next"]
        if after is None:
            return found


def _document(found: Any) -> str:
    import json as jsonlib

    return found.decode() if isinstance(found, bytes) else jsonlib.dumps(found)


def _budget_path(tenant: str) -> str:
    return f"/api/v1/tenants/{tenant}/budgets"


def _show_budgets(found: list[dict[str, Any]]) -> None:
    if not found:
        out.print("There is no budget.")
        return
    table = Table("plugin", "period", "set by", box=None)
    for name in ("calls", "wall ms", "AI tokens", "HTTP bytes"):
        table.add_column(name, justify="right")
    for b in found:
        cells = []
        for name in ("calls", "wall_ms", "ai_tokens", "http_bytes"):
            used, allowed = b["used"][name], b[name]
            spent = allowed is not None and used >= allowed
            near = allowed is not None and used >= allowed * 0.8
            colour = "red" if spent else "yellow" if near else ""
            text = f"{used:,}" if allowed is None else f"{used:,} of {allowed:,}"
            cells.append(f"[{colour}]{text}[/]" if colour else text)
        table.add_row(b["plugin"], b["period"], b["owner"], *cells)
    out.print(table)


def _show_advice(advice: dict[str, Any]) -> None:
    whose = f" in {advice['tenant']}" if advice["tenant"] else ""
    out.print(f"{advice['plugin']} {advice['version']}{whose}: {advice['calls']:,} calls observed.", markup=False)
    if not advice["enough"]:
        err.print("  That is few: take it as a hint, and ask again later.", style="yellow")
    if not advice["findings"]:
        out.print("It uses what it asks for.", style="green")
        return
    table = Table("what", "asked", "used", "proposed", box=None)
    for f in advice["findings"]:
        table.add_row(f["what"], *(_listed(f[k]) for k in ("asked", "used", "proposed")))
    out.print(table)
    if advice["deny"] and advice["tenant"]:
        names = ",".join(advice["deny"])
        out.print(
            f"An admin can take back: keelstone tenant grants {advice['tenant']} {advice['plugin']} --deny {names}",
            markup=False,
        )
    if advice["manifest"]:
        out.print("\nIts author can ask for less, in plugin.toml:\n")
        out.print(advice["manifest"], markup=False)


def _listed(value: Any) -> str:
    if value is None:
        return "-"
    return ", ".join(map(str, value)) if isinstance(value, list) else str(value)


def _time(micros: int) -> str:
    return f"{micros / 1_000:,.1f} ms" if micros < 10_000_000 else f"{micros / 1_000_000:,.1f} s"


def _size(count: int) -> str:
    if count < 10 << 10:
        return f"{count:,} B"
    return f"{count / 1_024:,.1f} KiB" if count < 10 << 20 else f"{count / (1 << 20):,.1f} MiB"
