"""A real ``keelstone serve`` in a process of its own, with the command line and clients beside it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx

from tests.services.base import cache_folder

ROOT = Path(__file__).parents[2]
_FOREIGN = ("KEELSTONE_URL", "KEELSTONE_TOKEN", "KEELSTONE_HOST")


@dataclass
class Served:
    """A running platform; commands use its data folder."""

    url: str
    environment: dict[str, str]
    folder: Path

    @property
    def home(self) -> Path:
        """The data folder."""
        return Path(self.environment["KEELSTONE_HOME"])

    def cli(self, *arguments: str, cwd: Path | None = None, code: int = 0) -> Any:
        """Run a command with --json; its document. Asserts the exit code."""
        done = subprocess.run(
            [sys.executable, "-m", "api.cli", *arguments, "--json"],
            env=self.environment,
            cwd=cwd or self.folder,
            capture_output=True,
            text=True,
            timeout=300,
        )
        assert done.returncode == code, f"{arguments}: {done.returncode}\n{done.stdout}\n{done.stderr}"
        return json.loads(done.stdout) if done.stdout.strip() else None

    def token(self, tenant: str) -> str:
        """A fresh access token of the tenant's admin (or of the operator, for ``platform``)."""
        kept = json.loads((self.home / "credentials.json").read_text())[tenant]
        answer = httpx.post(f"{self.url}/api/v1/auth/token", json={"tenant": tenant, **kept}, timeout=30)
        return str(answer.raise_for_status().json()["access_token"])

    def client(self, tenant: str, token: str | None = None) -> httpx.Client:
        """A signed-in client."""
        headers = {"Authorization": f"Bearer {token or self.token(tenant)}"}
        return httpx.Client(base_url=self.url, headers=headers, timeout=30)


@contextmanager
def serve(folder: Path, *, seed: bool = True, arguments: tuple[str, ...] = (), **settings: str) -> Iterator[Served]:
    """Start ``keelstone serve`` in ``folder`` on a free port; stop it with Ctrl-C and assert a clean end."""
    folder.mkdir(parents=True, exist_ok=True)
    environment = {name: value for name, value in os.environ.items() if name not in _FOREIGN}
    environment |= {
        "KEELSTONE_HOME": str(folder / "home"),
        "KEELSTONE_PORT": "0",
        # Compilers are fetched once, not once for every data folder.
        "KEELSTONE_TOOLCHAINS": environment.get("KEELSTONE_TOOLCHAINS") or str(cache_folder() / "toolchains"),
        "PYTHONPATH": str(ROOT),
        **settings,
    }
    log = folder / "log.txt"
    with log.open("w") as stream:
        process = subprocess.Popen(
            [sys.executable, "-m", "api.cli", "serve", "--json", *(["--seed"] if seed else []), *arguments],
            env=environment,
            stdout=subprocess.PIPE,
            stderr=stream,
            text=True,
        )
        assert process.stdout is not None
        try:
            line = process.stdout.readline()
            assert line, log.read_text()
            yield Served(json.loads(line)["url"], environment, folder)
        finally:
            process.send_signal(signal.SIGINT)
            code = process.wait(30)
            process.stdout.close()
    assert code == 0, log.read_text()
