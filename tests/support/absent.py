"""What a machine may lack: a compiler, a server, curl. Tests then skip; where all must be there they fail."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NoReturn

import pytest

from plugin_sdk.toolchain import ToolchainUnavailable

EVERYTHING = "NEEDS_EVERYTHING"
"""Environment variable that `.ci/run` sets: nothing may be absent, or a suite that ran nothing would pass."""


def absent(reason: object) -> NoReturn:
    """Skip the test, or fail it where everything must be there."""
    if os.environ.get(EVERYTHING):
        pytest.fail(f"{EVERYTHING} is set, and this is not to be had: {reason}")
    pytest.skip(str(reason))


@contextmanager
def toolchains_at_hand() -> Iterator[None]:
    """Around what fetches or uses a compiler."""
    try:
        yield
    except ToolchainUnavailable as reason:
        absent(reason)


needs_curl = pytest.mark.skipif(
    shutil.which("curl") is None and not os.environ.get(EVERYTHING), reason="the documents' commands need curl"
)
