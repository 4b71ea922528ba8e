"""The author's commands that need a platform: ``keelstone plugin dev`` and ``keelstone plugin call``."""

from __future__ import annotations

import contextlib
import json as jsonlib
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, TYPE_CHECKING, Annotated, Any

import typer

from kernel.errors import BackendUnavailable, KeelstoneError, ValidationFailed
from kernel.settings import Settings
from plugin_sdk.terminal import EXIT_FAILED, CommandTree, JsonOption, command, err, exit_code, out, progress, show

if TYPE_CHECKING:
    from api.cli.connection import Connection
    from plugin_sdk.dev.loop import DevLoop
    from plugin_sdk.recordings import Recording
    from plugin_sdk.replay import Source

HOME = ".keelstone-dev"
"""Data folder of a plugin's own platform, inside the plugin's folder."""
FolderArgument = Annotated[Path, typer.Argument(help="The plugin's folder.", file_okay=False)]
TenantOption = Annotated[str, typer.Option(help="The tenant for whom the plugin is on.")]
HomeOption = Annotated[
    Path | None, typer.Option(help=f"Data folder of the platform. Default: {HOME} in the plugin's folder.")
]


def register(tree: CommandTree) -> None:
    """Add them to the group ``plugin``."""
    group = tree.group("plugin", "Write, build, test, sign and publish plugins.")

    @group.command("dev")
    @command
    def dev(
        folder: FolderArgument = Path(),
        tenant: TenantOption = "acme",
        home: HomeOption = None,
        port: Annotated[int, typer.Option(help="Port of the platform; 0 takes a free one.")] = 0,
        deny: Annotated[str | None, typer.Option(help="Capabilities to deny, with commas.")] = None,
        assign: Annotated[list[str] | None, typer.Option("--set", help="A setting: name=value.")] = None,
        once: Annotated[bool, typer.Option("--once", help="Build, activate, and stop.")] = False,
        json: Annotated[bool, typer.Option("--json", help="Print one JSON line for everything that happens.")] = False,
    ) -> None:
        """Build and activate at every change, in a platform of the plugin's own; show its calls live."""
        from api.cli.tenant import assignments
        from marketplace.package import build_package
        from plugin_sdk.dev.happenings import Happening, failure
        from plugin_sdk.dev.loop import DevLoop, operator_of
        from plugin_sdk.dev.warm import WarmToolchains

        folder = folder.resolve()
        tools = WarmToolchains()
        denied = {name.strip(): False for name in (deny or "").split(",") if name.strip()}
        with contextlib.ExitStack() as stack:
            stack.callback(tools.close)
            say = stack.enter_context(_listener(folder, json))
            warming = threading.Thread(target=tools.warm_up, args=(folder,), daemon=True)
            warming.start()
            try:
                url, platform = stack.enter_context(_platform(folder, home, port))
                operator_of(platform)
            except KeelstoneError as error:
                if not json:
                    raise
                # One line for everything that happens, this too.
                say(failure("start", error, folder))
                raise typer.Exit(exit_code(error.problem())) from None
            warming.join()
            loop = DevLoop(
                folder,
                platform,
                build_package,
                say,
                tenant=tenant,
                tools=tools,
                grants=denied,
                settings=assignments(assign) if assign else None,
                quick=not once,
            )
            say(Happening("ready", {"url": url, "tenant": tenant, "home": str(_home(folder, home))}))
            if once:
                if not loop.round():
                    raise typer.Exit(1)
                return
            _run(loop)

    @group.command("call")
    @command
    def call(
        hook: Annotated[str, typer.Argument(help="The hook to call, e.g. user_creating.")],
        folder: FolderArgument = Path(),
        payload: Annotated[
            Path | None, typer.Option("--payload", help="A JSON file. Default: a sample.", dir_okay=False)
        ] = None,
        tenant: TenantOption = "acme",
        home: HomeOption = None,
        json: JsonOption = False,
    ) -> None:
        """Call a hook: of the platform that `plugin dev` serves, or of the built plugin alone if none does."""
        from api.cli.connection import Network, serving

        folder = folder.resolve()
        given = _payload(hook, folder, payload)
        url = serving(_home(folder, home))
        if url is None:
            answer = _call_alone(folder, hook, given, tenant)
        else:
            platform = Network(Settings(home=_home(folder, home)), url)
            with contextlib.closing(platform):
                body = {"tenant": tenant, "hook": hook, "payload": given}
                answer = platform.request("POST", "/api/v1/development/calls", json=body)

        def text() -> None:
            out.print(f"{hook} in {tenant}: {answer['result']}", markup=False)
            for name in ("reason", "payload", "answer"):
                if answer.get(name):
                    out.print_json(data=answer[name])
            for line in answer.get("logs", ()):
                out.print(f"  {line['level']}: {line['message']}", markup=False)

        show(answer, json, text)

    @group.command("replay")
    @command
    def replay(
        file: Annotated[Path, typer.Argument(help="A recording, as `keelstone recordings get` writes it.")],
        folder: Annotated[Path, typer.Option("--folder", help="The plugin's folder.", file_okay=False)] = Path(),
        anyway: Annotated[
            bool, typer.Option("--anyway", help="Replay what is built now, though it is another build.")
        ] = False,
        json: JsonOption = False,
    ) -> None:
        """Run a recorded call again in the sandbox, with the recorded answers; say what differs."""
        import asyncio

        from plugin_sdk.recordings import read_recording
        from plugin_sdk.replay import no_source, source_in
        from plugin_sdk.replay import replay as run_again

        recording = read_recording(file)
        with progress("Replaying", json=json):
            source = source_in(folder, recording, anyway=anyway) or asyncio.run(_published(recording))
            if source is None:
                raise no_source(recording, folder)
            done = asyncio.run(run_again(recording, source))

        def text() -> None:
            out.print(f"{recording.plugin} {recording.version}, {recording.hook}: {done.outcome.code}", markup=False)
            out.print(f"  component   {done.origin}", markup=False)
            out.print(f"  host calls  {done.exchanges} answered as recorded")
            for line in done.logs:
                out.print(f"  {line.level}: {line.message}", markup=False)
            for place in done.places:
                out.print(f"  {place['file']}:{place['line']}  {place.get('text', '').strip()}", markup=False)
            if done.same:
                out.print("The same, byte for byte.", style="green")
            for difference in done.differences:
                out.print(f"Differs in {difference.what}:", style="red", markup=False)
                out.print(f"  recorded  {difference.recorded}", markup=False)
                out.print(f"  replayed  {difference.replayed}", markup=False)

        show(done.describe(), json, text)
        if not done.same:
            raise typer.Exit(EXIT_FAILED)


def _home(folder: Path, home: Path | None) -> Path:
    return (home or folder / HOME).absolute()


@contextmanager
def _listener(folder: Path, json: bool) -> Iterator[Any]:
    """Who hears what happens: JSON lines on standard output, or the terminal view."""
    from kernel.manifest import load_manifest

    if json:
        lock = threading.Lock()

        def say(happening: Any) -> None:
            with lock:
                sys.stdout.write(jsonlib.dumps(happening.line(), default=str) + "\n")
                sys.stdout.flush()

        yield say
        return
    from plugin_sdk.dev.view import LoopView

    manifest = load_manifest(folder)
    with LoopView(out, manifest.id, sorted(manifest.hooks)) as view:
        yield view


@contextmanager
def _platform(folder: Path, home: Path | None, port: int) -> Iterator[tuple[str, Connection]]:
    """The platform at KEELSTONE_URL, or that serves the data folder, or one started for the ``with``."""
    from api.cli.connection import Network, serving

    data = _home(folder, home)
    settings = Settings(home=data)
    url = settings.url or serving(data)
    with contextlib.ExitStack() as stack:
        if url is None:
            url = stack.enter_context(_served(data, port))
        connection = Network(settings, url)
        stack.callback(connection.close)
        yield url, connection


@contextmanager
def _served(home: Path, port: int) -> Iterator[str]:
    """``keelstone serve`` as a development platform, in a process of its own; its address."""
    home.mkdir(parents=True, exist_ok=True)
    (home / ".gitignore").write_text("*\n")
    environment = {
        **os.environ,
        "KEELSTONE_HOME": str(home),
        "KEELSTONE_DEVELOPMENT": "true",
        "KEELSTONE_PORT": str(port),
        "KEELSTONE_SANDBOX_SLOTS": os.environ.get("KEELSTONE_SANDBOX_SLOTS", "64"),
    }
    log = home / "serve.log"
    with log.open("w") as stream:
        process = subprocess.Popen(
            [sys.executable, "-m", "api.cli", "serve", "--seed", "--json"],
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=stream,
            text=True,
            # Ctrl-C on the terminal is for us; we stop the platform afterwards.
            start_new_session=True,
        )
        assert process.stdout is not None
        try:
            yield _address(process.stdout, log)
        finally:
            process.send_signal(signal.SIGINT)
            try:
                process.wait(15)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
            process.stdout.close()


def _address(told: IO[str], log: Path) -> str:
    """The address in the first line that the platform tells; what it says instead is raised."""
    line = told.readline()
    try:
        return str(jsonlib.loads(line)["url"])
    except (ValueError, KeyError):
        said = (line + told.read()).strip() or log.read_text(errors="replace")
        raise BackendUnavailable(
            "The development platform does not start.", file=str(log), found="\n" + said[-1500:]
        ) from None


def _run(loop: DevLoop) -> None:
    """The loop in a thread, keys and Ctrl-C in this one."""
    from kernel.manifest import load_manifest
    from plugin_sdk.dev.keys import keys

    hooks = sorted(load_manifest(loop.folder).hooks)
    working = threading.Thread(target=loop.run, name="loop", daemon=True)
    ended = threading.Event()
    before = signal.signal(signal.SIGTERM, lambda *_: ended.set())
    working.start()
    try:
        with keys() as pressed:
            while working.is_alive() and not ended.is_set():
                key = pressed.next(0.2)
                if key is None:
                    ended.wait(0.2)
                elif key == "q":
                    break
                elif key == "b":
                    loop.round()
                elif key == "t":
                    loop.test()
                elif key.isdigit() and 1 <= int(key) <= len(hooks):
                    loop.send(hooks[int(key) - 1])
    except KeyboardInterrupt:
        err.print("Stopping.")
    finally:
        signal.signal(signal.SIGTERM, before)
        loop.stop()
        working.join(80)


def _payload(hook: str, folder: Path, file: Path | None) -> dict[str, Any]:
    """The file's payload, completed to a whole event if it is one's type and data; or a sample."""
    from kernel.manifest import load_manifest
    from plugin_sdk.testing.samples import sample_event, sample_payload

    if file is None:
        return sample_payload(hook, load_manifest(folder))
    try:
        given = jsonlib.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ValidationFailed(f"The payload can't be read: {error}", file=str(file)) from error
    if not isinstance(given, dict):
        raise ValidationFailed("The payload is not a JSON object.", file=str(file), hook=hook)
    if hook == "event_received" and "type" in given:
        rest = {name: value for name, value in given.items() if name not in ("type", "data")}
        return sample_event(str(given["type"]), given.get("data"), **rest)
    return given


async def _published(recording: Recording) -> Source | None:
    """The recorded release, from the marketplace that this data folder uses; None if it has no such component."""
    import hashlib

    from kernel.errors import KeelstoneError
    from marketplace.connect import open_client
    from plugin_sdk.replay import Source

    client = open_client(Settings())
    try:
        package = await client.fetch(recording.plugin, recording.version)
    except KeelstoneError:
        return None
    finally:
        await client.close()
    if hashlib.sha256(package.component).hexdigest() != recording.digest:
        return None
    return Source(package.manifest, package.component, None, f"{recording.plugin} {recording.version}, verified")


def _call_alone(folder: Path, hook: str, payload: dict[str, Any], tenant: str) -> dict[str, Any]:
    """The built plugin in the sandbox, with a host in memory."""
    import asyncio

    from plugin_sdk.testing.guest import Guest

    async def run() -> dict[str, Any]:
        async with Guest(folder, tenant=tenant) as guest:
            return (await guest.told(hook, payload)) | {"hook": hook, "tenant": tenant}

    return asyncio.run(run())
