"""pytest: the fixture ``guest``, and coroutine tests without a further plugin.

Import both names in ``tests/conftest.py``.
"""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Iterator
from pathlib import Path

import pytest

from kernel.errors import NotFound
from kernel.manifest import MANIFEST_FILE
from plugin_sdk.testing.guest import Guest

__all__ = ["guest", "guest_runner", "pytest_pyfunc_call"]


@pytest.fixture
def guest_runner() -> Iterator[asyncio.Runner]:
    """The event loop in which a test and its guest run."""
    with asyncio.Runner() as runner:
        yield runner


@pytest.fixture
def guest(request: pytest.FixtureRequest, guest_runner: asyncio.Runner) -> Iterator[Guest]:
    """The plugin whose folder holds the test, in the sandbox, with nothing stored yet."""
    made = Guest(plugin_folder(request.path))
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
    """The nearest folder above ``inside`` with a manifest. Raises NotFound."""
    for folder in inside.parents:
        if (folder / MANIFEST_FILE).is_file():
            return folder
    raise NotFound(f"There is no {MANIFEST_FILE} above the test.", file=str(inside))
