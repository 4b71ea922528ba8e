"""A trusted extension as its author would ship it: a package with an entry point, on the path for a while."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from stevedore import ExtensionManager

MANIFEST = """
manifest = 1
id = "{id}"
version = "{version}"
name = "An extension"
summary = "An extension of the tests."
license = "Apache-2.0"
kind = "{kind}"
{more}
"""
EMPTY = "def start(platform):\n    return object()\n"


def write_extension(
    folder: Path,
    package: str,
    id: str,
    code: str = EMPTY,
    *,
    version: str = "1.0.0",
    kind: str = "extension",
    more: str = "",
    manifest: str | None = None,
) -> Path:
    """Write the package and its metadata into ``folder``, as pip would; ``manifest`` replaces plugin.toml."""
    home = folder / package
    home.mkdir(parents=True)
    (home / "__init__.py").write_text("")
    (home / "plugin.py").write_text(code)
    text = MANIFEST.format(id=id, version=version, kind=kind, more=more) if manifest is None else manifest
    (home / "plugin.toml").write_text(text)
    info = folder / f"{package}-{version}.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {package}\nVersion: {version}\n")
    (info / "entry_points.txt").write_text(f"[keelstone.plugins]\n{package} = {package}.plugin:start\n")
    return home


@contextmanager
def on_path(folder: Path) -> Iterator[None]:
    """The packages in ``folder`` can be imported and found inside the ``with``."""
    before = set(sys.modules)
    sys.path.insert(0, str(folder))
    _scan_anew()
    try:
        yield
    finally:
        sys.path.remove(str(folder))
        for name in set(sys.modules) - before:
            if str(getattr(sys.modules[name], "__file__", None) or "").startswith(str(folder)):
                del sys.modules[name]
        _scan_anew()


def _scan_anew() -> None:
    importlib.invalidate_caches()
    # stevedore scans once a process; a new package is otherwise found by the next process only.
    ExtensionManager.ENTRY_POINT_CACHE.clear()
