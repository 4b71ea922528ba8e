"""``api.list_users``: authentication, tenancy, hooks and 20 rows, against a bare FastAPI route."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx

from tests.benchmarks.measure import alternate, row

REQUESTS, CONNECTIONS, USERS = 3_000, 16, 25


def _rate(port: int, token: str | None) -> float:
    head = f"GET /api/v1/users?limit=20 HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\n"
    request = head + (f"Authorization: Bearer {token}\r\n" if token else "") + "\r\n"
    done = subprocess.run(
        [sys.executable, "-m", "tests.benchmarks.load", "127.0.0.1", str(port), str(REQUESTS), str(CONNECTIONS)],
        input=request.encode(),
        stdout=subprocess.PIPE,
        check=True,
    )
    return float(done.stdout)


def rows() -> list[dict[str, Any]]:
    """The row; both servers run at once and are loaded in turn."""
    with tempfile.TemporaryDirectory() as folder:
        home = Path(folder)
        environment = {**os.environ, "KEELSTONE_HOME": str(home), "KEELSTONE_PORT": "0", "KEELSTONE_LOG_LEVEL": "error"}
        ours = subprocess.Popen(
            [sys.executable, "-m", "api.cli", "serve", "--seed", "--json"],
            stdout=subprocess.PIPE,
            env=environment,
            text=True,
        )
        bare = None
        try:
            assert ours.stdout is not None
            url = json.loads(ours.stdout.readline())["url"]
            token = _fill(url, home)
            bare = subprocess.Popen(
                [sys.executable, "-m", "tests.benchmarks.bare_server", str(home / "keelstone.db"), "acme"],
                stdout=subprocess.PIPE,
                text=True,
            )
            assert bare.stdout is not None
            bare_port, port = int(bare.stdout.readline()), urlsplit(url).port or 0
            left, right = alternate(lambda: _rate(port, token), lambda: _rate(bare_port, None))
        finally:
            for process in (ours, bare):
                if process is not None:
                    process.terminate()
                    process.wait(20)
    return [
        row(
            "api.list_users",
            ours=left,
            baseline=right,
            unit="requests/s",
            target=">= 0.4 of its rate",
            met=lambda r: r >= 0.4,
        )
    ]


def _fill(url: str, home: Path) -> str:
    credentials = json.loads((home / "credentials.json").read_text())["acme"]
    with httpx.Client(base_url=url, timeout=30) as client:
        answer = client.post("/api/v1/auth/token", json={"tenant": "acme", **credentials})
        token = str(answer.raise_for_status().json()["access_token"])
        client.headers["Authorization"] = f"Bearer {token}"
        for number in range(USERS):
            body = {"email": f"person{number}@example.com", "name": f"Person {number}", "attributes": {"team": "a"}}
            client.post("/api/v1/users", json=body).raise_for_status()
    return token
