"""Writes the reference pages from the code; with ``--check`` says which of them are stale.

``python -m docs.generate`` is ``make docs``; the check is part of ``make check``.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path

from docs.pages import contract, operation, sdk

REFERENCE = Path(__file__).parent / "reference"
PAGES: dict[str, Callable[[], str]] = {
    "cli.md": operation.commands,
    "errors.md": operation.errors,
    "events.md": contract.events,
    "graphql.md": operation.graphql,
    "hooks.md": contract.hooks,
    "lifecycle.md": contract.lifecycle,
    "manifest.md": contract.manifest_page,
    "permissions.md": operation.permissions,
    "rest.md": operation.rest,
    "rules.md": operation.rules,
    "sdk.md": sdk.sdk,
    "settings.md": operation.settings,
    "wit.md": contract.wit,
}


def stale(folder: Path = REFERENCE) -> list[str]:
    """Names of the pages that do not say what the code says."""
    return [name for name, make in PAGES.items() if _text(folder / name) != make()]


def write(folder: Path = REFERENCE) -> None:
    """Write every page."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, make in PAGES.items():
        (folder / name).write_text(make(), encoding="utf-8")


def _text(path: Path) -> str | None:
    return path.read_text(encoding="utf-8") if path.exists() else None


def main() -> int:
    """The command; the exit code."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="change nothing; fail if a page is stale")
    if not parser.parse_args().check:
        write()
        return 0
    found = stale()
    if found:
        print(f"Stale: {', '.join('docs/reference/' + name for name in found)}. Run `make docs`.")
    return 1 if found else 0


if __name__ == "__main__":
    raise SystemExit(main())
