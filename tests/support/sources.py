"""The project's own files, for the tests that look at them."""

from __future__ import annotations

import ast
import subprocess
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[2]
PACKAGES = ("kernel", "plugin_sdk", "sandbox", "marketplace", "api", "plugins")
_NOT_OURS_TO_IMPORT = ("/examples/", "/languages/", "/scaffolds/", "/migrations/")


def tracked() -> list[Path]:
    """Every file that is, or is about to be, under version control."""
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z"]
    listed = subprocess.run(command, cwd=ROOT, capture_output=True, check=True).stdout.decode().split("\0")
    return sorted({ROOT / name for name in listed if name and (ROOT / name).is_file()})


def texts() -> Iterator[tuple[Path, str]]:
    """Tracked files that are text, with their text."""
    for path in tracked():
        try:
            yield path, path.read_text(encoding="utf-8")
        except UnicodeDecodeError:
            continue


def modules(*packages: str) -> Iterator[tuple[Path, str, ast.Module]]:
    """The importable modules of packages: path, source and syntax tree."""
    for package in packages or PACKAGES:
        for path in sorted((ROOT / package).rglob("*.py")):
            if not any(part in str(path) for part in _NOT_OURS_TO_IMPORT):
                source = path.read_text(encoding="utf-8")
                yield path, source, ast.parse(source)


def shown(path: Path) -> str:
    """The path from the project's folder."""
    return str(path.relative_to(ROOT))
