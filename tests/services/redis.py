"""Redis: from the environment, a server at hand, or apt."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager

from tests.services.base import Server, Unavailable, answers, apt_install, free_port, process, run, temporary_folder


@contextmanager
def redis_server() -> Iterator[Server]:
    """A server with nothing in it. Raises Unavailable."""
    url = os.environ.get("KEELSTONE_TEST_REDIS_URL")
    if url:
        yield Server(url, "KEELSTONE_TEST_REDIS_URL")
        return
    if shutil.which("redis-server") is None:
        apt_install("redis-server")
    binary = shutil.which("redis-server")
    if binary is None:
        raise Unavailable("the package redis-server brought no redis-server")
    version = run([binary, "--version"]).strip()
    port = free_port()
    with temporary_folder("redis") as home:
        command = [binary, "--port", str(port), "--bind", "127.0.0.1", "--dir", str(home)]
        command += ["--save", "", "--appendonly", "no"]
        with process(command, log=home / "log", ready=lambda: answers(port)):
            yield Server(f"redis://127.0.0.1:{port}/0", version)
