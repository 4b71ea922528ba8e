"""The how-to page about PostgreSQL and Redis, done as it is written."""

from __future__ import annotations

import os
import secrets
import sys
from pathlib import Path

import pytest

from tests.services import Server
from tests.services.base import free_port
from tests.support.absent import needs_curl
from tests.support.documents import ROOT, Shell

pytestmark = [
    pytest.mark.connected,
    needs_curl,
]


def test_two_processes_run_on_postgresql_and_redis(tmp_path: Path, database_url: str, redis: Server) -> None:
    program = tmp_path / "bin" / "keelstone"
    program.parent.mkdir()
    program.write_text(f'#!/bin/sh\nexec {sys.executable} -m api.cli "$@"\n')
    program.chmod(0o755)
    environment = {name: value for name, value in os.environ.items() if not name.startswith("KEELSTONE_")}
    environment |= {"PATH": f"{program.parent}:{os.environ['PATH']}", "PYTHONPATH": str(ROOT)}
    one, two = free_port(), free_port()
    instead = {
        "postgresql://keelstone:secret@127.0.0.1:5432/keelstone": database_url,
        "redis://127.0.0.1:6379/0": f"'{redis.url}?prefix=documents-{secrets.token_hex(4)}'",
        "8701": str(one),
        "8702": str(two),
    }
    folder = tmp_path / "work"
    folder.mkdir()
    with Shell(folder, environment, instead) as shell:
        assert len(shell.follow(ROOT / "docs" / "how-to" / "run-on-postgresql.md")) > 10
