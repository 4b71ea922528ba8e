"""PostgreSQL: from the environment, binaries at hand, or apt."""

from __future__ import annotations

import os
import pwd
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.services.base import Server, Unavailable, answers, apt_install, free_port, process, run, temporary_folder


@contextmanager
def postgres_server() -> Iterator[Server]:
    """A server whose address names a superuser. Raises Unavailable."""
    url = os.environ.get("KEELSTONE_TEST_POSTGRES_URL")
    if url:
        yield Server(url, "KEELSTONE_TEST_POSTGRES_URL")
        return
    folder = _binaries()
    if folder is None:
        apt_install("postgresql")
        folder = _binaries()
    if folder is None:
        raise Unavailable("the package postgresql brought no initdb and postgres")
    user = _unprivileged()
    version = run([str(folder / "postgres"), "--version"]).strip()
    with temporary_folder("postgres", user) as home:
        password = secrets.token_urlsafe(18)
        secret = home / "password"
        secret.write_text(password)
        if user:
            shutil.chown(secret, user)
        data = home / "data"
        run(
            [
                str(folder / "initdb"),
                *("-D", str(data), "-U", "keelstone", "-A", "scram-sha-256", f"--pwfile={secret}"),
                *("-E", "UTF8", "--no-locale", "--no-sync"),
            ],
            user=user,
            cwd=home,
        )
        port = free_port()
        options = {
            "port": str(port),
            "listen_addresses": "127.0.0.1",
            "unix_socket_directories": "",
            "fsync": "off",
            "max_connections": "200",
        }
        command = [str(folder / "postgres"), "-D", str(data)]
        for name, value in options.items():
            command += ["-c", f"{name}={value}"]
        log = home / "log"
        log.touch()
        if user:
            shutil.chown(log, user)
        with process(command, log=log, ready=lambda: answers(port), user=user):
            yield Server(f"postgresql://keelstone:{password}@127.0.0.1:{port}/postgres", version)


def _binaries() -> Path | None:
    """The folder that has both programs; Debian keeps them out of the path."""
    folders = [Path(part) for part in os.environ.get("PATH", "").split(os.pathsep) if part]
    debian = sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True)
    for folder in (*debian, *folders):
        if (folder / "initdb").is_file() and (folder / "postgres").is_file():
            return folder
    return None


def _unprivileged() -> str | None:
    """PostgreSQL refuses to run as root: the user to run it as, or None for ourselves."""
    if os.geteuid() != 0:
        return None
    for name in ("postgres", "nobody"):
        try:
            pwd.getpwnam(name)
        except KeyError:
            continue
        return name
    raise Unavailable("PostgreSQL refuses to run as root, and there is no other user")
