"""What the servers have in common: processes, ports, folders, packages."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

POLICY = Path("/usr/sbin/policy-rc.d")


class Unavailable(Exception):
    """A server can't be had here; the text says why."""


@dataclass(frozen=True, slots=True)
class Server:
    """A running server: its address, and in words which one it is."""

    url: str
    what: str
    idempotent: bool = True


def free_port() -> int:
    """A port that nobody listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def cache_folder() -> Path:
    """Where downloads stay between runs: ``KEELSTONE_TEST_CACHE``, or the user's cache folder."""
    base = os.environ.get("KEELSTONE_TEST_CACHE")
    home = os.environ.get("XDG_CACHE_HOME") or str(Path.home() / ".cache")
    folder = Path(base) if base else Path(home) / "keelstone-tests"
    folder.mkdir(parents=True, exist_ok=True)
    return folder


@contextmanager
def temporary_folder(name: str, owner: str | None = None) -> Iterator[Path]:
    """A folder that is deleted at the end; ``owner`` gets it if we are root."""
    folder = Path(tempfile.mkdtemp(prefix=f"keelstone-{name}-"))
    try:
        if owner is not None:
            shutil.chown(folder, owner)
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def process(
    command: Sequence[str],
    *,
    log: Path,
    ready: Callable[[], bool],
    seconds: float = 30.0,
    user: str | None = None,
    env: Mapping[str, str] | None = None,
) -> Iterator[None]:
    """Run a server until the end of the ``with``. Raises Unavailable with its last words if it won't start."""
    with log.open("wb") as out:
        server = subprocess.Popen(
            command, stdout=out, stderr=subprocess.STDOUT, user=user, env=dict(env) if env else None, cwd=log.parent
        )
    try:
        deadline = time.monotonic() + seconds
        while not ready():
            if server.poll() is not None or time.monotonic() > deadline:
                state = "ended" if server.poll() is not None else f"was not ready after {seconds:.0f} s"
                tail = log.read_text(errors="replace")[-1_500:]
                raise Unavailable(f"{command[0]} {state}: {tail}")
            time.sleep(0.05)
        yield
    finally:
        server.terminate()
        try:
            server.wait(10)
        except subprocess.TimeoutExpired:
            server.kill()
            server.wait()


def answers(port: int) -> bool:
    """Whether somebody listens on a loopback port."""
    with socket.socket() as probe:
        probe.settimeout(0.5)
        return probe.connect_ex(("127.0.0.1", port)) == 0


def run(command: Sequence[str], *, seconds: float = 600.0, cwd: Path | None = None, user: str | None = None) -> str:
    """Run a command to its end; what it said. Raises Unavailable."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=seconds, cwd=cwd, user=user, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise Unavailable(f"{command[0]}: {error}") from error
    if done.returncode:
        raise Unavailable(f"{' '.join(command[:3])} failed: {(done.stdout + done.stderr)[-600:].strip()}")
    return done.stdout + done.stderr


def apt_install(package: str) -> None:
    """Install a Debian package without letting it start a service. Raises Unavailable."""
    if shutil.which("apt-get") is None:
        raise Unavailable(f"there is no apt-get to install {package} with")
    if os.geteuid() != 0:
        raise Unavailable(f"{package} is not installed, and only root may install it")
    made = not POLICY.exists()
    if made:
        POLICY.write_text("#!/bin/sh\nexit 101\n")
        POLICY.chmod(0o755)
    try:
        environment = ["env", "DEBIAN_FRONTEND=noninteractive"]
        try:
            run([*environment, "apt-get", "install", "-y", "-qq", "--no-install-recommends", package])
        except Unavailable:
            run([*environment, "apt-get", "update", "-qq"])
            run([*environment, "apt-get", "install", "-y", "-qq", "--no-install-recommends", package])
    finally:
        if made:
            POLICY.unlink(missing_ok=True)
