"""``keelstone doctor``: well on a fresh machine, and where it is not, what to do."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from api.cli.doctor import examine
from kernel.settings import Settings
from sandbox.lanes import layout


def _doctor(home: Path, *arguments: str, **settings: str) -> tuple[int, dict[str, Any]]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith("KEELSTONE_")}
    done = subprocess.run(
        [sys.executable, "-m", "api.cli", "doctor", *arguments, "--json"],
        env={**kept, "KEELSTONE_HOME": str(home), **settings},
        capture_output=True,
        text=True,
        timeout=120,
    )
    return done.returncode, json.loads(done.stdout)


def _by_name(report: dict[str, Any]) -> dict[str, dict[str, Any]]:
    return {finding["name"]: finding for finding in report["findings"]}


def test_a_fresh_machine_is_well(tmp_path: Path) -> None:
    code, report = _doctor(tmp_path / "home", "--strict")
    assert (code, report["well"]) == (0, True)
    assert {finding["state"] for finding in report["findings"]} == {"ok"}
    assert _by_name(report)["sandbox lane"]["found"] == "fast"


def test_what_does_not_answer_is_said_with_its_setting(tmp_path: Path) -> None:
    code, report = _doctor(tmp_path / "home", KEELSTONE_DATABASE_URL="postgresql://nobody@127.0.0.1:1/none")
    database = _by_name(report)["database"]
    assert (code, database["state"]) == (1, "failed")
    assert "KEELSTONE_DATABASE_URL" in database["fix"]


def test_searches_that_are_answered_elsewhere_than_asked_for_are_a_warning(tmp_path: Path) -> None:
    url = "postgresql://nobody:hidden@127.0.0.1:1/none"
    code, report = _doctor(tmp_path / "home", KEELSTONE_MARKETPLACE_SEARCH_URL=url)
    search = _by_name(report)["search"]
    assert (code, search["state"]) == (0, "warning")
    assert "KEELSTONE_MARKETPLACE_SEARCH_URL" in search["fix"]
    assert "hidden" not in json.dumps(report)


def test_a_setting_that_cannot_be_is_said(tmp_path: Path) -> None:
    code, report = _doctor(tmp_path / "home", KEELSTONE_BUS_URL="carrier-pigeon://coop")
    assert code == 1
    assert _by_name(report)["settings"]["state"] == "failed"


async def test_another_library_is_a_warning_that_names_the_difference(tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.setattr(layout, "VERSION", "49.0.0")
    layout.mismatch.cache_clear()
    try:
        found = {finding.name: finding for finding in await examine(Settings(home=tmp_path / "home"))}
    finally:
        layout.mismatch.cache_clear()
    assert found["sandbox lane"].state == "warning"
    assert "49.0.0" in found["sandbox lane"].found
    assert found["database"].state == "ok"


async def test_a_data_folder_that_others_may_read_is_a_warning(tmp_path: Path) -> None:
    home = tmp_path / "home"
    home.mkdir()
    home.chmod(0o755)
    found = {finding.name: finding for finding in await examine(Settings(home=home))}
    assert (found["data folder"].state, found["data folder"].fix) == ("warning", f"chmod 700 {home}")
