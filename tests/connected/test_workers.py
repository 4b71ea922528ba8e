"""``keelstone serve --workers``: whole platforms on one port, one started again when it dies, all stopped together."""

from __future__ import annotations

import base64
import json
import os
import secrets
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from tests.services import Server
from tests.support.served import serve

pytestmark = pytest.mark.connected


def _alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def test_workers_share_a_port_and_a_dead_one_is_started_again(
    tmp_path: Path, database_url: str, redis: Server, marketplace: str
) -> None:
    settings = {
        "KEELSTONE_DATABASE_URL": database_url,
        "KEELSTONE_BUS_URL": f"{redis.url}?prefix=workers-{secrets.token_hex(4)}&partitions=8",
        "KEELSTONE_MASTER_KEY": base64.b64encode(secrets.token_bytes(32)).decode(),
        "KEELSTONE_MARKETPLACE_URL": marketplace,
    }
    _cli(tmp_path / "home", "marketplace", "trust", "--first-use", **settings)
    with serve(tmp_path, arguments=("--workers", "2"), **settings) as served:
        noted = json.loads((served.home / "server.json").read_text())
        first, second = noted["workers"]
        assert {first, second}.isdisjoint({noted["pid"], os.getpid()})
        token = served.token("acme")
        seen = set()
        for number in range(60):
            # A connection of its own for each request, so that either worker may accept it.
            with served.client("acme", token) as acme:
                body = {"email": f"p{number}@example.com", "name": f"Person {number}"}
                assert acme.post("/api/v1/users", json=body).status_code == 201
                seen.add(acme.get("/readyz").json()["instance"])
        assert len(seen) == 2, "only one worker answered"

        os.kill(second, signal.SIGKILL)
        deadline = time.monotonic() + 60
        while len(seen) < 3:
            assert time.monotonic() < deadline, "the dead worker was not started again"
            # A connection that the dead one had accepted is lost with it; a new one is answered.
            seen.add(httpx.get(f"{served.url}/readyz", timeout=10).json()["instance"])
        with served.client("acme", token) as acme:
            # What the dead worker had in hand is handled by another in its time.
            while acme.get("/api/v1/tenants/acme/overview").json()["users"] != 61:
                assert time.monotonic() < deadline + 60, "an event was lost with the worker"
                time.sleep(0.1)
    assert not _alive(first)


def test_workers_that_would_not_share_everything_are_refused(tmp_path: Path) -> None:
    done = _cli(tmp_path, "serve", "--workers", "2")
    assert done.returncode == 1
    assert "KEELSTONE_BUS_URL" in done.stderr + done.stdout


@pytest.fixture
def marketplace(tmp_path: Path) -> Iterator[str]:
    """A marketplace in a process of its own."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    url = f"http://127.0.0.1:{port}"
    with (tmp_path / "marketplace.txt").open("w") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "api.cli", "marketplace", "serve", "--host", "127.0.0.1", "--port", str(port)],
            env=_environment(tmp_path / "marketplace"),
            stdout=log,
            stderr=log,
        )
    try:
        deadline = time.monotonic() + 60
        while True:
            try:
                httpx.get(url, timeout=5)
                break
            except httpx.TransportError:
                assert time.monotonic() < deadline, (tmp_path / "marketplace.txt").read_text()
                time.sleep(0.1)
        yield url
    finally:
        process.send_signal(signal.SIGINT)
        process.wait(30)


def _environment(home: Path, **settings: str) -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith("KEELSTONE_")}
    return {**kept, "KEELSTONE_HOME": str(home), **settings}


def _cli(home: Path, *arguments: str, **settings: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "api.cli", *arguments, "--json"],
        env=_environment(home, **settings),
        capture_output=True,
        text=True,
        timeout=60,
    )
