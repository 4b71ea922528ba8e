"""An OCI registry on this machine (that of go-containerregistry), and ``oras``, the usual tool to read one."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from tests.services.base import Unavailable, cache_folder

ORAS = "oras.land/oras/cmd/oras@v1.3.6"
_SOURCE = Path(__file__).parent / "oci_registry"


@contextmanager
def oci_registry(*, plain: bool = False) -> Iterator[str]:
    """A registry's address; ``plain`` lists no referrers, as before version 1.1. Raises Unavailable."""
    binary = cache_folder() / "oci-registry"
    _go("build", "-o", str(binary), ".", folder=_SOURCE)
    command = [str(binary), *(["-plain"] if plain else [])]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as server:
        assert server.stdin is not None
        assert server.stdout is not None
        try:
            yield server.stdout.readline().strip()
        finally:
            server.stdin.close()
            assert server.wait(30) == 0


def oras(*arguments: str, folder: Path) -> str:
    """What ``oras`` puts out. Raises Unavailable if it is not to be had; asserts that it ends well."""
    binary = cache_folder() / "oras-1.3.6"
    if not binary.exists():
        _go("install", ORAS, folder=folder, environment={"GOBIN": str(cache_folder())})
        (cache_folder() / "oras").replace(binary)
    done = subprocess.run([str(binary), *arguments], cwd=folder, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, f"oras {arguments}:\n{done.stdout}\n{done.stderr}"
    return done.stdout


def _go(*arguments: str, folder: Path, environment: dict[str, str] | None = None) -> None:
    _require_go()
    command: Sequence[str] = ["go", *arguments]
    done = subprocess.run(
        command, cwd=folder, env={**os.environ, **(environment or {})}, capture_output=True, text=True, timeout=900
    )
    if done.returncode != 0:
        raise Unavailable(f"go {arguments[0]}: {done.stderr[-500:]}")


def _require_go() -> None:
    if shutil.which("go") is None:
        raise Unavailable("no Go on this machine")
