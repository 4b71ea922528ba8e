"""``keelstone plugin test``: the contract's checks, then the plugin's own tests."""

from __future__ import annotations

import asyncio
import importlib.util
import os
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

from kernel.errors import KeelstoneError, ValidationFailed
from kernel.manifest import PluginManifest, load_manifest
from plugin_sdk.testing.contract import Check, contract_checks, extension_checks
from plugin_sdk.testing.extension import Extension
from plugin_sdk.testing.guest import HOSTS, Guest, GuestHost, hosts_of
from plugin_sdk.toolchain import python

TESTS = "tests"


class TestsUnavailable(KeelstoneError):
    """The plugin has tests and there is nothing to run them with."""

    __test__ = False
    code, status, title = "tests-unavailable", 503, "The tests cannot be run"


@dataclass(frozen=True, slots=True)
class OwnTests:
    """What the plugin's own tests came to. ``output`` is pytest's, for people."""

    passed: int
    failed: int
    skipped: int
    failures: tuple[str, ...]
    output: str
    ended_well: bool


@dataclass(frozen=True, slots=True)
class Report:
    """Everything that was tried. ``own`` is None if the plugin has no tests."""

    plugin: str
    checks: tuple[Check, ...]
    own: OwnTests | None

    @property
    def passed(self) -> bool:
        """Whether all of it passed."""
        return all(c.passed for c in self.checks) and (self.own is None or self.own.ended_well)

    def describe(self) -> dict[str, Any]:
        """JSON-ready."""
        own = self.own
        return {
            "plugin": self.plugin,
            "passed": self.passed,
            "contract": [{"check": c.name, "passed": c.passed, "problem": c.problem or None} for c in self.checks],
            "tests": own
            and {
                "passed": own.passed,
                "failed": own.failed,
                "skipped": own.skipped,
                "failures": list(own.failures),
                "output": None if own.ended_well else own.output,
            },
        }


def run_tests(folder: Path, host: GuestHost | None = None) -> Report:
    """Test the built plugin in ``folder``; on one ``host``, or on each that its tests ask for.

    Raises NotFound if it is not built (the host ``memory`` needs no build), TestsUnavailable.
    """
    folder = folder.resolve()
    manifest = load_manifest(folder)
    if manifest.kind == "guest" and host is not None and host not in hosts_of(manifest):
        raise ValidationFailed(
            f"{manifest.id} does not run on the host {host}.",
            plugin=manifest.id,
            expected=" or ".join(hosts_of(manifest)),
            found=host,
        )
    if manifest.kind != "guest":
        checks = asyncio.run(_extension(folder))
        return Report(manifest.id, tuple(checks), _own_tests(_project(folder), manifest, None))
    checks = asyncio.run(_contract(folder, host or "sandbox"))
    return Report(manifest.id, tuple(checks), _own_tests(folder, manifest, host))


async def _contract(folder: Path, host: GuestHost) -> list[Check]:
    async with Guest(folder, host=host) as guest:
        await guest.start()
        return await contract_checks(guest)


async def _extension(folder: Path) -> list[Check]:
    async with Extension(folder) as extension:
        return await extension_checks(extension)


def _project(package: Path) -> Path:
    """Where an extension's tests are: in its package, or beside it."""
    return package if (package / TESTS).is_dir() else package.parent


def _own_tests(folder: Path, manifest: PluginManifest, host: GuestHost | None) -> OwnTests | None:
    if not any((folder / TESTS).rglob("test_*.py")):
        return None
    if importlib.util.find_spec("pytest") is None:
        raise TestsUnavailable(
            "The plugin has tests, and pytest is not installed.",
            plugin=manifest.id,
            file=str(folder / TESTS),
            fix="Install Keelstone with its extra `sdk`: pip install 'keelstone[sdk]'.",
        )
    with tempfile.TemporaryDirectory(prefix="keelstone-test-") as scratch:
        results = Path(scratch) / "results.xml"
        # A configuration of our own: one that lies in a folder above the plugin's must not count.
        configuration = Path(scratch) / "pytest.ini"
        configuration.write_text("[pytest]\n")
        done = subprocess.run(  # noqa: S603 - this Python, no shell
            [
                *(sys.executable, "-m", "pytest", TESTS, "-c", str(configuration), "--rootdir", str(folder)),
                *("--import-mode=importlib", "-p", "no:cacheprovider", "-q", f"--junitxml={results}"),
            ],
            cwd=folder,
            env={
                **os.environ,
                "PYTHONPATH": _python_path(folder, manifest),
                **({HOSTS: host} if host is not None else {}),
            },
            capture_output=True,
            text=True,
            errors="replace",
            stdin=subprocess.DEVNULL,
            check=False,
        )
        return _read_results(results, done)


def _python_path(folder: Path, manifest: PluginManifest) -> str:
    """The source of a Python guest and the guest library, so that pure functions can be tested alone."""
    if manifest.kind != "guest":
        return os.pathsep.join(filter(None, [str(folder), os.environ.get("PYTHONPATH")]))
    paths = [str(folder / manifest.build.source).rpartition("/")[0]] if manifest.build else []
    return os.pathsep.join([*paths, str(python.LIBRARY), *filter(None, [os.environ.get("PYTHONPATH")])])


def _read_results(results: Path, done: subprocess.CompletedProcess[str]) -> OwnTests:
    output = (done.stdout + done.stderr).strip()
    if not results.is_file():
        return OwnTests(0, 0, 0, (), output, ended_well=False)
    # The file was written by pytest a moment ago, in a folder that only this process knows.
    cases = list(ElementTree.parse(results).getroot().iter("testcase"))  # noqa: S314
    failed = [c for c in cases if c.find("failure") is not None or c.find("error") is not None]
    skipped = [c for c in cases if c.find("skipped") is not None]
    return OwnTests(
        passed=len(cases) - len(failed) - len(skipped),
        failed=len(failed),
        skipped=len(skipped),
        failures=tuple(f"{c.get('classname')}::{c.get('name')}" for c in failed),
        output=output,
        ended_well=done.returncode == 0,
    )
