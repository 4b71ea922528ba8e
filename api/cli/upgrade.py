"""Upgrades on trial from the command line: shadow, canary, pins, windows, and the preflight before them."""

from __future__ import annotations

import asyncio
from dataclasses import asdict
from typing import Annotated, Any

import typer
from rich.table import Table
from typer.core import TyperGroup

from api.cli.connection import serving
from kernel.context import PLATFORM_TENANT
from kernel.errors import NotFound, ValidationFailed
from kernel.settings import Settings
from plugin_sdk.terminal import (
    EXIT_REFUSED,
    CommandTree,
    JsonOption,
    PlatformConnection,
    command,
    out,
    progress,
    show,
)

PluginArgument = Annotated[str, typer.Argument(help="publisher/name")]
TenantArgument = Annotated[str, typer.Argument(help="The tenant's id.")]
TenantOption = Annotated[
    str | None, typer.Option(help="Only in this tenant, as its admin. Left out: for all tenants, as operator.")
]
_ONE = "PLUGIN --to VERSION, or --kernel VERSION"
_STYLES = {"breaks": "red", "asks": "yellow", "waits": "cyan", "notes": "dim"}


class _PreflightFirst(TyperGroup):
    """``keelstone upgrade --preflight ...`` is ``keelstone upgrade preflight ...``."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        if "--preflight" in args:
            args = ["preflight", *(a for a in args if a != "--preflight")]
        return super().parse_args(ctx, args)


def register(tree: CommandTree) -> None:
    """Add the group ``upgrade``."""
    group = typer.Typer(
        cls=_PreflightFirst,
        no_args_is_help=True,
        help="Upgrade without fear: what would break, a shadow, a canary, and the way back. "
        "`keelstone upgrade --preflight` looks first.",
    )
    tree.root.add_typer(group, name="upgrade")
    _trials(tree, group)
    _tenants(tree, group)
    _preflight(tree, group)


def _trials(tree: CommandTree, group: typer.Typer) -> None:
    @group.command("start")
    @command
    def start(
        plugin: PluginArgument,
        to: Annotated[str, typer.Option("--to", help="The version.")],
        shadow: Annotated[
            bool, typer.Option("--shadow/--canary", help="Shadow: mirrored calls only. Canary: it answers.")
        ] = False,
        tenants: Annotated[
            float | None, typer.Option(help="Per cent of the tenants on the plugin; all for a shadow, else 10.")
        ] = None,
        calls: Annotated[float, typer.Option(help="Per cent of each tenant's calls.")] = 100.0,
        tenant: TenantOption = None,
        min_calls: Annotated[int, typer.Option(help="Calls of the new version before it is judged.")] = 100,
        error_points: Annotated[float, typer.Option(help="Percentage points of errors above the stable rate.")] = 1.0,
        slower_percent: Annotated[float, typer.Option(help="Per cent above the stable p99.")] = 50.0,
        slower_ms: Annotated[float, typer.Option(help="Milliseconds above the stable p99, if that is more.")] = 5.0,
        promote_after: Annotated[float, typer.Option(help="Minutes without cause to promote it; 0: never.")] = 0.0,
        json: JsonOption = False,
    ) -> None:
        """Put a version on trial, as a canary or a shadow."""
        body: dict[str, Any] = {
            "plugin": plugin,
            "version": to,
            "mode": "shadow" if shadow else "canary",
            "calls": calls,
            "thresholds": {
                "min_calls": min_calls,
                "error_points": error_points,
                "slower_percent": slower_percent,
                "slower_ms": slower_ms,
                "promote_after_minutes": promote_after,
            },
        }
        if tenant is None and tenants is not None:
            body["tenants"] = tenants
        with tree.platform() as platform, progress(f"Putting {plugin} {to} on trial", json=json):
            done = platform.request("POST", _base(tenant), json=body, tenant=tenant)
        show(done, json, lambda: _told(done))
        _fail_if_stuck(done)

    @group.command("share")
    @command
    def share(
        plugin: PluginArgument,
        tenants: Annotated[float | None, typer.Option(help="Per cent of the tenants on the plugin.")] = None,
        calls: Annotated[float | None, typer.Option(help="Per cent of each tenant's calls.")] = None,
        tenant: TenantOption = None,
        json: JsonOption = False,
    ) -> None:
        """Widen or narrow a trial; a larger share only adds."""
        with tree.platform() as platform:
            found = _running(platform, plugin, tenant)
            path = f"{_base(tenant)}/{found['id']}/share"
            done = platform.request("PUT", path, json={"tenants": tenants, "calls": calls}, tenant=tenant)
        show(done, json, lambda: _told(done))
        _fail_if_stuck(done)

    @group.command("promote")
    @command
    def promote(plugin: PluginArgument, tenant: TenantOption = None, json: JsonOption = False) -> None:
        """The version on trial for everybody who follows, each within its upgrade window."""
        with tree.platform() as platform:
            found = _running(platform, plugin, tenant)
            done = platform.request("POST", f"{_base(tenant)}/{found['id']}/promote", tenant=tenant)
        show(done, json, lambda: _told(done))
        _fail_if_stuck(done)

    @group.command("rollback")
    @command
    def rollback(
        plugin: PluginArgument,
        reason: Annotated[str, typer.Option(help="Why, for whoever reads it later.")] = "asked for",
        tenant: TenantOption = None,
        json: JsonOption = False,
    ) -> None:
        """End a trial: only the version from before answers, at once."""
        with tree.platform() as platform:
            found = _running(platform, plugin, tenant)
            path = f"{_base(tenant)}/{found['id']}/rollback"
            done = platform.request("POST", path, json={"reason": reason}, tenant=tenant)
        show(done, json, lambda: _told(done))
        _fail_if_stuck(done)

    @group.command("status")
    @command
    def status(
        plugin: Annotated[str | None, typer.Argument(help="publisher/name; all if left out")] = None,
        tenant: TenantOption = None,
        json: JsonOption = False,
    ) -> None:
        """What is on trial, where the tenants stand, and what was measured."""
        with tree.platform() as platform:
            if tenant is None:
                listed = platform.request("GET", _base(None), params={"plugin": plugin})
                mine = [u for u in listed if u["owner"] == PLATFORM_TENANT][: 20 if plugin is None else 1]
                found = [platform.request("GET", f"{_base(None)}/{u['id']}") for u in mine]
            else:
                found = platform.request("GET", _base(tenant), tenant=tenant)
                found = [u for u in found if plugin in (None, u["plugin"])]

        def text() -> None:
            if not found:
                out.print("Nothing is on trial.")
            for upgrade in found:
                _show_status(upgrade)

        show(found, json, text)


def _tenants(tree: CommandTree, group: typer.Typer) -> None:
    @group.command("pin")
    @command
    def pin(
        tenant: TenantArgument,
        plugin: PluginArgument,
        to: Annotated[str | None, typer.Option("--to", help="Move to this installed version first.")] = None,
        json: JsonOption = False,
    ) -> None:
        """Stay on the present version (or on one that is named) whatever is upgraded; a trial ends here."""
        path = f"/api/v1/tenants/{tenant}/activations/{plugin}"
        with tree.platform() as platform:
            if to is not None:
                platform.request("PUT", path, json={"version": to}, tenant=tenant)
            activation = platform.request("PUT", f"{path}/pin", json={"pinned": True}, tenant=tenant)
        show(activation, json, lambda: out.print(f"{plugin} stays on {activation['version']}.", markup=False))

    @group.command("unpin")
    @command
    def unpin(
        tenant: TenantArgument,
        plugin: PluginArgument,
        channel: Annotated[str | None, typer.Option(help="stable, rc, beta or alpha. Left out: as before.")] = None,
        json: JsonOption = False,
    ) -> None:
        """Follow a channel again."""
        path = f"/api/v1/tenants/{tenant}/activations/{plugin}/pin"
        with tree.platform() as platform:
            body = {"pinned": False, "channel": channel}
            activation = platform.request("PUT", path, json=body, tenant=tenant)
        followed = activation["channel"]
        show(activation, json, lambda: out.print(f"{plugin} follows the channel {followed}.", markup=False))

    @group.command("window")
    @command
    def window(
        tenant: TenantArgument,
        hours: Annotated[str | None, typer.Argument(help="HH:MM-HH:MM; past midnight if the end comes first")] = None,
        days: Annotated[str, typer.Option(help="e.g. mon-fri or sat,sun")] = "mon-sun",
        zone: Annotated[str, typer.Option(help="A time zone such as Europe/Berlin.")] = "UTC",
        off: Annotated[bool, typer.Option("--off", help="Let versions change at any time.")] = False,
        json: JsonOption = False,
    ) -> None:
        """Show or set the hours in which the versions of the tenant's plugins may change."""
        path = f"/api/v1/tenants/{tenant}/upgrade-window"
        with tree.platform() as platform:
            if off:
                found = platform.request("DELETE", path, tenant=tenant)
            elif hours is not None:
                body = {"days": days, "hours": hours, "zone": zone}
                found = platform.request("PUT", path, json=body, tenant=tenant)
            else:
                found = platform.request("GET", path, tenant=tenant)
        state = "open" if found["open"] else "closed"
        show(found, json, lambda: out.print(f"Upgrade window: {found['window']} ({state} now)", markup=False))


def _preflight(tree: CommandTree, group: typer.Typer) -> None:
    @group.command("preflight")
    @command
    def preflight(
        plugin: Annotated[str | None, typer.Argument(help="publisher/name")] = None,
        to: Annotated[str | None, typer.Option("--to", help="The plugin's version.")] = None,
        kernel: Annotated[str | None, typer.Option(help="A version of the kernel's hook contract instead.")] = None,
        serves: Annotated[
            list[str] | None, typer.Option(help="With --kernel: a further generation of the contract that it serves.")
        ] = None,
        tenant: TenantOption = None,
        json: JsonOption = False,
    ) -> None:
        """Say what an upgrade would break, tenant by tenant, and touch nothing. Ends with 3 if something would."""
        if kernel is not None and (plugin is not None or to is not None or tenant is not None):
            raise ValidationFailed("A preflight is of one upgrade.", expected=_ONE)
        found = _of_kernel(tree, kernel, serves or []) if kernel else _of_plugin(tree, plugin, to, tenant)
        show(found, json, lambda: _show_preflight(found))
        if found["breaks"]:
            raise typer.Exit(EXIT_REFUSED)


def _of_plugin(tree: CommandTree, plugin: str | None, to: str | None, tenant: str | None) -> dict[str, Any]:
    if plugin is None or to is None:
        raise ValidationFailed("Which upgrade?", expected=_ONE)
    path = "/api/v1/upgrade-preflight" if tenant is None else f"/api/v1/tenants/{tenant}/upgrade-preflight"
    with tree.platform() as platform:
        found: dict[str, Any] = platform.request("GET", path, params={"plugin": plugin, "version": to}, tenant=tenant)
    return found


def _of_kernel(tree: CommandTree, kernel: str, serves: list[str]) -> dict[str, Any]:
    """Migrations are told by this program, whose they are; the rest by the platform that runs now."""
    from api.pending import pending_migrations

    settings = Settings()
    local = settings.url is None or settings.database_url is not None
    migrations = asyncio.run(pending_migrations(settings)) if local else []
    findings = [{"tenant": "", "kind": "migrations", **asdict(m)} for m in migrations]
    if migrations and settings.url is None and serving(settings.home) is None:
        # A platform of this version would migrate the database as it starts: that is touching it.
        unseen = "Tenants' plugins were not looked at: no platform serves this data folder."
        fix = "Start the version that runs now, and ask again."
        note = {"tenant": "", "plugin": "", "kind": "contract", "severity": "breaks", "detail": unseen, "fix": fix}
        return {"breaks": True, "tenants": 0, "findings": [*findings, note]}
    with tree.platform() as platform:
        params = {"kernel": kernel, "serves": serves or None}
        found: dict[str, Any] = platform.request("GET", "/api/v1/upgrade-preflight", params=params)
    found["findings"] = [*findings, *found["findings"]]
    found["breaks"] = found["breaks"] or any(f["severity"] == "breaks" for f in findings)
    return found


def _base(tenant: str | None) -> str:
    return "/api/v1/upgrades" if tenant is None else f"/api/v1/tenants/{tenant}/upgrades"


def _running(platform: PlatformConnection, plugin: str, tenant: str | None) -> dict[str, Any]:
    """The upgrade of the plugin that is on trial. Raises NotFound."""
    owner = tenant or PLATFORM_TENANT
    params = {"plugin": plugin} if tenant is None else None
    for upgrade in platform.request("GET", _base(tenant), params=params, tenant=tenant):
        if upgrade["plugin"] == plugin and upgrade["owner"] == owner and upgrade["state"] in ("running", "promoting"):
            return dict(upgrade)
    raise NotFound(
        f"No upgrade of {plugin} is on trial.",
        plugin=plugin,
        tenant=tenant,
        fix="Start one with `keelstone upgrade start`. A finished one goes back with `keelstone marketplace rollback`.",
    )


def _told(done: dict[str, Any]) -> None:
    share = f"{done['tenants']:g} % of the tenants, {done['calls']:g} % of their calls"
    out.print(f"{done['plugin']} {done['version']}: {done['mode']} {done['state']} ({share})", markup=False)
    for move in done["moves"]:
        ask = f"; asks for {', '.join(move['needs_consent'])} (denied for now)" if move["needs_consent"] else ""
        if move["error"]:
            out.print(f"  {move['tenant']}: stays on {move['before']}: {move['error']}", style="red", markup=False)
        elif move["before"] == move["after"]:
            state = "is on trial" if done["state"] == "running" else f"answers from {move['after']} alone"
            out.print(f"  {move['tenant']}: {state}{ask}", markup=False)
        else:
            out.print(f"  {move['tenant']}: {move['before']} -> {move['after']}{ask}", markup=False)


def _fail_if_stuck(done: dict[str, Any]) -> None:
    if any(move["error"] for move in done["moves"]):
        raise typer.Exit(EXIT_REFUSED)


def _show_status(upgrade: dict[str, Any]) -> None:
    out.print(f"{upgrade['plugin']} {upgrade['version']}: {upgrade['mode']} {upgrade['state']}", markup=False)
    if upgrade["reason"]:
        out.print(f"  why: {upgrade['reason']}", markup=False)
    for place in upgrade["places"]:
        why = f": {place['why']}" if place["why"] else ""
        out.print(f"  {place['tenant']} ({place['version']}) {place['standing']}{why}", markup=False)
    table = Table("measured", "calls", "failed", "p50 ms", "p99 ms", box=None)
    report = upgrade["report"]
    for name, arm in report.get("canary", {}).items():
        table.add_row(f"{name} version", *_arm(arm))
    for tenant, found in report.get("shadow", {}).items():
        for name in ("old", "new"):
            table.add_row(f"{tenant}: {name} version", *_arm(found[name]))
    if table.row_count:
        out.print(table)
    for tenant, found in report.get("shadow", {}).items():
        counts = f"{found['same']} same, {found['different']} different, {found['skipped']} left out"
        out.print(f"  {tenant}: {counts}", markup=False)
        for field, count in found["fields"].items():
            out.print(f"    {count} x {field}", markup=False)
        for use in found["reached"]:
            out.print(f"    only the new version: {use}", markup=False)


def _arm(arm: dict[str, Any]) -> list[str]:
    return [str(arm[name]) if arm[name] is not None else "-" for name in ("calls", "failures", "p50_ms", "p99_ms")]


def _show_preflight(found: dict[str, Any]) -> None:
    for changed in found.get("changes", []):
        words = "; ".join(changed["changes"]) or "nothing that anybody consents to"
        out.print(f"{changed['before']} -> {changed['after']}: {words}", markup=False)
    for item in found["findings"]:
        where = item["tenant"] or "platform"
        text = f"{item['severity']}: {where}: {item['plugin']}: {item['kind']}: {item['detail']}"
        out.print(text, style=_STYLES[item["severity"]], markup=False)
        if item["fix"]:
            out.print(f"  {item['fix']}", markup=False)
    verdict = "Something would break." if found["breaks"] else "Nothing would break."
    out.print(f"{verdict} Looked at {found['tenants']} tenants; nothing was touched.")
