"""The distribution that is built from the project: complete, and working without the project's folder."""

from __future__ import annotations

import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from tests.support.served import serve
from tests.support.sources import PACKAGES, ROOT, shown, tracked


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation", "--wheel-dir"]
    done = subprocess.run([*command, str(folder), str(ROOT)], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    (built,) = folder.glob("*.whl")
    return built


def test_the_wheel_holds_everything_and_nothing_else(wheel: Path) -> None:
    ours = {shown(path) for path in tracked() if shown(path).partition("/")[0] in PACKAGES}
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
    inside = {name for name in names if ".dist-info/" not in name}
    assert inside == ours
    information = {name.partition(".dist-info/")[2] for name in names - inside}
    assert {"METADATA", "entry_points.txt", "licenses/LICENSE"} <= information


def test_the_installed_wheel_serves(wheel: Path, tmp_path: Path) -> None:
    site = tmp_path / "site"
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--target", str(site), str(wheel)]
    subprocess.run(command, check=True, timeout=300, env={**os.environ, "PIP_DISABLE_PIP_VERSION_CHECK": "1"})
    with serve(tmp_path / "platform", PYTHONPATH=str(site)) as served:
        script = "import api, kernel; print(api.__file__); print(kernel.__file__)"
        command = [sys.executable, "-c", script]
        where = subprocess.run(
            command, env=served.environment, cwd=tmp_path, capture_output=True, text=True, check=True
        )
        assert all(line.startswith(str(site)) for line in where.stdout.split())
        found = served.cli("marketplace", "search", "guard")
        assert [entry["id"] for entry in found["results"]] == ["keelstone-examples/email-guard"]
        assert served.cli("marketplace", "install", "keelstone-examples/email-guard")[0]["state"] == "installed"
