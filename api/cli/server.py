"""``keelstone serve`` and what an operator asks a running platform."""

from __future__ import annotations

import asyncio
import contextlib
import json as jsonlib
import os
import signal
import socket
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any

import typer

from kernel.errors import ConfigurationError, KeelstoneError
from kernel.process import settle
from kernel.settings import Settings
from plugin_sdk.terminal import CommandTree, JsonOption, command, err, out, show

if TYPE_CHECKING:
    import uvicorn


def register(tree: CommandTree) -> None:
    """Add the commands."""

    @tree.root.command()
    @command
    def serve(
        host: Annotated[str | None, typer.Option(help="Address to listen on.")] = None,
        port: Annotated[int | None, typer.Option(help="Port to listen on; 0 takes a free one.")] = None,
        seed: Annotated[bool, typer.Option(help="Make the example tenants and publish the example plugins.")] = False,
        workers: Annotated[
            int,
            typer.Option(
                min=1,
                max=64,
                help="Processes that serve the port. More than one share PostgreSQL, a bus and a marketplace.",
            ),
        ] = 1,
        json: JsonOption = False,
    ) -> None:
        """Start the platform and serve until Ctrl-C."""
        given: dict[str, Any] = {"host": host, "port": port, "seed": seed or None}
        settings = Settings(**{k: v for k, v in given.items() if v is not None})
        if workers > 1:
            from api.cli.workers import run_workers

            code = asyncio.run(run_workers(settings, workers, json))
        else:
            code = asyncio.run(run_server(settings, json))
        if code:
            raise typer.Exit(code)

    @tree.root.command()
    @command
    def status(json: JsonOption = False) -> None:
        """Say whether the platform is ready, and what runs."""
        with tree.platform() as platform:
            report = platform.request("GET", "/readyz")

        def text() -> None:
            out.print(f"{'Ready' if report['ready'] else 'Not ready'}, generation {report['generation'][:12]}")
            for name, result in {**report["checks"], **report["plugins"]}.items():
                out.print(f"  {name}: {result}")
            for name, reason in report["held_back"].items():
                out.print(f"  {name}: not running, {reason}", style="yellow")

        show(report, json, text)

    @tree.root.command()
    @command
    def login(
        tenant: Annotated[str, typer.Argument(help="The tenant to sign in to; `platform` for operators.")],
        email: Annotated[str, typer.Option(prompt=True)],
        password: Annotated[str, typer.Option(prompt=True, hide_input=True)],
        json: JsonOption = False,
    ) -> None:
        """Keep a sign-in for this data folder's commands."""
        from api.cli.connection import Credentials

        credentials = Credentials(Settings().home)
        before = credentials.load().get(tenant)
        credentials.save(tenant, email, password)
        try:
            with tree.platform() as platform:
                me = platform.request("GET", "/api/v1/auth/me", tenant=tenant)
        except KeelstoneError:
            credentials.forget(tenant, before)
            raise
        show(me, json, lambda: out.print(f"Signed in to {tenant} as {email}, with roles {', '.join(me['roles'])}."))

    @tree.root.command()
    @command
    def explain(
        correlation_id: Annotated[str, typer.Argument(help="The X-Correlation-ID of a response.")],
        json: JsonOption = False,
    ) -> None:
        """Say which implementations ran for a request, in which order, and what each did."""
        with tree.platform() as platform:
            traces = platform.request("GET", f"/api/v1/hooks/{correlation_id}/explain")

        def text() -> None:
            for trace in traces:
                out.print(f"[bold]{trace['hook']}[/] for {trace['tenant']} (generation {trace['generation'][:12]})")
                for step in trace["implementations"]:
                    changed = f", changed {', '.join(step['changed'])}" if step["changed"] else ""
                    error = f" - {step['error']}" if step["error"] else ""
                    out.print(
                        f"  {step['order']}. {step['plugin']} {step['version']}: {step['outcome']}{changed}"
                        f" ({step['microseconds']:.0f} µs, breaker {step['breaker']}){error}",
                        markup=False,
                    )

        show(traces, json, text)

    projections = tree.group("projections", "Read models built from events.")

    @projections.command("rebuild")
    @command
    def rebuild(name: Annotated[str, typer.Argument(help="The projection's name.")], json: JsonOption = False) -> None:
        """Build a read model anew from all events, while the old one serves."""
        with tree.platform() as platform:
            result = platform.request("POST", f"/api/v1/projections/{name}/rebuild")
        show(result, json, lambda: out.print(f"Rebuilt {name} from {result['events']} events."))


@dataclass(frozen=True, slots=True)
class Worker:
    """One of several processes on a port: the socket they share, the pipe's end on which it says that it
    is ready, whether it makes the first operator and the examples, and whether it welcomes."""

    listener: socket.socket
    ready: int
    seeds: bool
    welcomes: bool


async def run_server(settings: Settings, json: bool, worker: Worker | None = None) -> int:
    """Serve until a signal; the exit code."""
    import uvicorn

    from api.app import asgi, create_app
    from api.bootstrap import bootstrap
    from api.cli.welcome import welcome
    from api.seed import ensure_operator, seed
    from kernel.telemetry import configure_logging

    configure_logging(settings)
    listener = listen(settings) if worker is None else worker.listener
    host, port = listener.getsockname()[:2]
    url = f"http://{f'[{host}]' if ':' in host else host}:{port}"
    platform = bootstrap(settings)
    app = create_app(platform, manage=False)
    config = uvicorn.Config(asgi(platform, app), log_config=None, access_log=False, lifespan="off", server_header=False)
    noted = settings.home / "server.json"

    def ready() -> None:
        if worker is None:
            noted.write_text(jsonlib.dumps({"url": url, "pid": os.getpid(), "instance": platform.instance}))
        else:
            os.write(worker.ready, b"ready")
            os.close(worker.ready)
        if worker is None or worker.welcomes:
            welcome(platform, url, json)

    server = _quiet_server(config, ready)
    await platform.start()
    try:
        if worker is None or worker.seeds:
            await ensure_operator(platform)
            if settings.seed:
                await seed(platform)
        await server.serve(sockets=[listener])
    finally:
        if worker is None:
            noted.unlink(missing_ok=True)
        await platform.stop()
        listener.close()
    if not json and (worker is None or worker.welcomes):
        err.print("Keelstone stopped cleanly; everything is kept for the next start.")
    return 0


def _quiet_server(config: uvicorn.Config, ready: Callable[[], None]) -> uvicorn.Server:
    """A server that calls ``ready`` once it listens, and on SIGINT or SIGTERM returns to let the platform stop too.

    uvicorn raises the signal again once it has stopped, which would end the process there and then.
    """
    import uvicorn

    class Server(uvicorn.Server):
        async def startup(self, sockets: list[socket.socket] | None = None) -> None:
            await super().startup(sockets)
            settle()
            ready()

        @contextlib.contextmanager
        def capture_signals(self) -> Iterator[None]:
            loop = asyncio.get_running_loop()
            for name in (signal.SIGINT, signal.SIGTERM):
                loop.add_signal_handler(name, self.handle_exit, name, None)
            try:
                yield
            finally:
                for name in (signal.SIGINT, signal.SIGTERM):
                    loop.remove_signal_handler(name)

    return Server(config)


def listen(settings: Settings) -> socket.socket:
    """The socket that the settings name, bound. Raises ConfigurationError."""
    family = socket.AF_INET6 if ":" in settings.host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((settings.host, settings.port))
    except OSError as error:
        listener.close()
        raise ConfigurationError(
            f"Nothing can listen on {settings.host}:{settings.port}: {error.strerror}.",
            fix="Stop what listens there, or choose another port with KEELSTONE_PORT.",
        ) from error
    return listener
