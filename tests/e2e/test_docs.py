"""The how-to pages, done as they are written, on a real platform."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import pytest

import plugin_sdk
from tests.services.base import free_port
from tests.support.absent import needs_curl
from tests.support.documents import ROOT, Shell
from tests.support.served import Served, serve

ADDRESS = "127.0.0.1:8700"
"""The default address, which the documents name."""
CENTRAL = "https://central.example"
"""Another marketplace, in the documents."""
EXAMPLES = Path(plugin_sdk.__file__).parent / "examples"

pytestmark = needs_curl


@pytest.fixture
def programs(tmp_path: Path) -> Path:
    """A folder for the search path: ``keelstone``, and a ``pip`` that installs beside this environment."""
    folder = tmp_path / "bin"
    folder.mkdir()
    target = tmp_path / "site"
    target.mkdir()
    install = f"-m pip install --quiet --no-deps --no-build-isolation --target {target}"
    for name, command in (("keelstone", "-m api.cli"), ("python3", ""), ("pip", install)):
        # ``pip install X`` of a reader: our own arguments already say "install".
        shift = "shift; " if name == "pip" else ""
        script = folder / name
        script.write_text(f'#!/bin/sh\n{shift}exec {sys.executable} {command} "$@"\n')
        script.chmod(0o755)
    return folder


@contextmanager
def _reader(served: Served, programs: Path, instead: Mapping[str, str] | None = None) -> Iterator[Shell]:
    environment = {**served.environment, "PATH": f"{programs}:{os.environ['PATH']}"}
    folder = served.folder / "work"
    folder.mkdir()
    with Shell(folder, environment, {ADDRESS: served.url.partition("://")[2], **(instead or {})}) as shell:
        yield shell


def _newer_email_guard(served: Served, version: str = "1.1.0") -> None:
    """What its publisher did in the meantime: another release."""
    folder = served.folder / version / "email-guard"
    shutil.copytree(EXAMPLES / "email-guard", folder)
    manifest = folder / "plugin.toml"
    manifest.write_text(manifest.read_text().replace('version = "1.0.0"', f'version = "{version}"'))
    changelog = folder / "CHANGELOG.md"
    changelog.write_text(
        changelog.read_text().replace("## 1.0.0", f"## {version}\n\nNothing but a number.\n\n## 1.0.0")
    )
    served.cli("plugin", "sign", cwd=folder)
    (package,) = (folder / "build").glob("*.keelstone")
    served.cli("plugin", "publish", str(package))


def _later(served: Served, shell: Shell, page: Path, at: str = "## Upgrade") -> int:
    """Follow the page; at a heading of it the newer release appears."""
    before, heading, after = page.read_text().partition(at)
    first, second = served.folder / "first.md", served.folder / "second.md"
    first.write_text(before)
    second.write_text(heading + after)
    done = shell.follow(first)
    _newer_email_guard(served)
    return len(done + shell.follow(second))


def _held(served: Served, shell: Shell, page: Path) -> int:
    """The page is about a fix of an older minor version."""
    for version in ("1.1.0", "1.0.1"):
        _newer_email_guard(served, version)
    return _as_it_is(served, shell, page)


def _as_it_is(served: Served, shell: Shell, page: Path) -> int:
    return len(shell.follow(page))


@pytest.mark.parametrize(
    ("name", "follow"),
    [
        ("administer-a-tenant", _as_it_is),
        ("check-a-marketplaces-log", _as_it_is),
        ("choose-what-comes-in", _as_it_is),
        ("hold-the-key-ceremony", _as_it_is),
        ("integrate", _as_it_is),
        ("keep-consent-receipts", partial(_later, at="## When a newer version is here")),
        ("browse-the-marketplace", _as_it_is),
        ("meter-and-budget", _as_it_is),
        ("operate-plugins", _later),
        ("review-releases", _held),
        ("revoke-a-release", _as_it_is),
        ("upgrade-without-fear", partial(_later, at="## Look first")),
        ("troubleshoot", _as_it_is),
        ("warn-of-weaknesses", _as_it_is),
        ("when-a-plugin-fails", _as_it_is),
    ],
)
def test_a_how_to_page_does_what_it_says(
    name: str, follow: Callable[[Served, Shell, Path], int], tmp_path: Path, programs: Path
) -> None:
    with serve(tmp_path / "platform") as served, _reader(served, programs) as shell:
        assert follow(served, shell, ROOT / "docs" / "how-to" / f"{name}.md") > 5


def test_ci_jobs_are_let_release_as_the_page_says(tmp_path: Path, programs: Path) -> None:
    with serve(tmp_path / "platform") as served, _reader(served, programs) as shell:
        assert len(shell.follow(ROOT / "docs" / "how-to" / "publish-from-ci.md")) > 3


def test_a_site_mirrors_another_marketplace_as_the_page_says(tmp_path: Path, programs: Path) -> None:
    page = ROOT / "docs" / "how-to" / "mirror-a-marketplace.md"
    with (
        serve(tmp_path / "central") as central,
        serve(tmp_path / "site", seed=False) as site,
        _reader(site, programs, {CENTRAL: central.url}) as shell,
    ):
        assert len(shell.follow(page)) > 5


def test_plugins_cross_an_air_gap_as_the_page_says(tmp_path: Path, programs: Path) -> None:
    page = ROOT / "docs" / "how-to" / "cross-an-air-gap.md"
    parts = re.split(r"(?m)^(?=## )", page.read_text())[1:]
    assert len(parts) == 3, "the connected place, a site with a marketplace, and one that installs from the file"
    carried = ("guards.bundle", "central.root.json")
    medium = tmp_path / "medium"
    medium.mkdir()
    for number, part in enumerate(parts):
        (tmp_path / f"{number}.md").write_text(part)
        with serve(tmp_path / str(number), seed=number == 0) as served, _reader(served, programs) as shell:
            for name in carried if number else ():
                shutil.copy(medium / name, shell.folder / name)
            assert len(shell.follow(tmp_path / f"{number}.md")) >= 2
            for name in carried if not number else ():
                shutil.copy(shell.folder / name, medium / name)


def test_the_readmes_example_works(tmp_path: Path, programs: Path) -> None:
    with serve(tmp_path / "platform") as served, _reader(served, programs) as shell:
        activate = shell.folder / ".venv" / "bin" / "activate"
        activate.parent.mkdir(parents=True)
        activate.touch()
        done = shell.follow(ROOT / "README.md", without={"make run", "make test"})
        assert len(done) == 3


def test_an_extension_is_written_installed_and_used(tmp_path: Path, programs: Path) -> None:
    port = free_port()
    environment = {name: value for name, value in os.environ.items() if not name.startswith("KEELSTONE_")}
    environment |= {
        "PATH": f"{programs}:{os.environ['PATH']}",
        "PYTHONPATH": f"{tmp_path / 'site'}:{ROOT}",
        "KEELSTONE_HOME": str(tmp_path / "home"),
        "KEELSTONE_PORT": str(port),
    }
    folder = tmp_path / "work"
    folder.mkdir()
    with Shell(folder, environment, {ADDRESS: f"127.0.0.1:{port}"}) as shell:
        assert len(shell.follow(ROOT / "docs" / "how-to" / "write-an-extension.md")) > 5


def test_make_says_what_there_is() -> None:
    done = subprocess.run(["make", "help"], cwd=ROOT, capture_output=True, text=True, timeout=60, check=True)
    for target in ("run", "test", "check", "bench", "docs", "connected", "lock", "clean"):
        assert f"make {target} " in done.stdout
