"""pytest: the fixture ``guest``, and coroutine tests without a further plugin.

Import ``guest``, ``guest_runner`` and ``pytest_pyfunc_call`` in ``tests/conftest.py``; and
``pytest_generate_tests``, if every test shall run on each host that the language allows. Which hosts
those are can be narrowed by ``keelstone plugin test --host``.
"""

from __future__ import annotations

import asyncio
import inspect
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from kernel.errors import NotFound
from kernel.manifest import MANIFEST_FILE, load_manifest
from plugin_sdk.testing.extension import Extension
from plugin_sdk.testing.guest import HOSTS, Guest, GuestHost, hosts_of

__all__ = ["extension", "guest", "guest_runner", "pytest_generate_tests", "pytest_pyfunc_call"]


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Run each test that wants ``guest`` on every host there is for it."""
    if "guest" in metafunc.fixturenames:
        metafunc.parametrize("guest", _hosts(metafunc.definition.path), indirect=True)


def _hosts(test: Path) -> list[str]:
    possible = hosts_of(load_manifest(plugin_folder(test)))
    wanted = [name for name in os.environ.get(HOSTS, "").split(",") if name]
    return [host for host in possible if not wanted or host in wanted] or list(possible)


@pytest.fixture
def guest_runner() -> Iterator[asyncio.Runner]:
    """The event loop in which a test and its guest run."""
    with asyncio.Runner() as runner:
        yield runner


@pytest.fixture
def guest(request: pytest.FixtureRequest, guest_runner: asyncio.Runner) -> Iterator[Guest]:
    """The plugin whose folder holds the test, in the sandbox, with nothing stored yet."""
    host: GuestHost = getattr(request, "param", None) or _hosts(request.path)[0]  # type: ignore[assignment]
    made = Guest(plugin_folder(request.path), host=host)
    yield made
    guest_runner.run(made.close())
    made.check_recorded()


@pytest.fixture
def extension(request: pytest.FixtureRequest, guest_runner: asyncio.Runner) -> Iterator[Extension]:
    """The extension that holds the test, or whose package lies beside it; nothing published yet."""
    made = Extension(plugin_folder(request.path))
    yield made
    guest_runner.run(made.close())


@pytest.hookimpl(tryfirst=True)
def pytest_pyfunc_call(pyfuncitem: pytest.Function) -> bool | None:
    """Run a coroutine test in the loop of its fixtures, unless another plugin has taken charge of it."""
    runner = pyfuncitem.funcargs.get("guest_runner")
    if not inspect.iscoroutinefunction(pyfuncitem.obj) or not isinstance(runner, asyncio.Runner):
        return None
    wanted = inspect.signature(pyfuncitem.obj).parameters
    runner.run(pyfuncitem.obj(**{name: value for name, value in pyfuncitem.funcargs.items() if name in wanted}))
    return True


def plugin_folder(inside: Path) -> Path:
    """The nearest folder above ``inside`` with a manifest, in itself or in a package of it. Raises NotFound."""
    for folder in inside.parents:
        if (folder / MANIFEST_FILE).is_file():
            return folder
        beside = sorted(file.parent for file in folder.glob(f"*/{MANIFEST_FILE}"))
        if beside:
            return beside[0]
    raise NotFound(f"There is no {MANIFEST_FILE} above the test.", file=str(inside))
