"""``python -m tests.fuzz.one TARGET ...``: one target under atheris, with libFuzzer's own arguments."""

from __future__ import annotations

import importlib
import logging
import shlex
import sys
from pathlib import Path


def _launcher(target: str) -> Path:
    """A program that libFuzzer can start again by itself, as it does to merge."""
    path = Path("build", "fuzz", f"{target}.sh").resolve()
    if not path.is_file():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f'#!/bin/sh\nexec {shlex.quote(sys.executable)} -m tests.fuzz.one {target} "$@"\n')
        path.chmod(0o755)
    return path


def main() -> None:
    """Instrument our code, then fuzz."""
    import atheris

    target, *arguments = sys.argv[1:]
    with atheris.instrument_imports(include=["kernel", "marketplace", "plugin_sdk", "sandbox"]):
        module = importlib.import_module(f"tests.fuzz.fuzz_{target}")
    # A line for each refusal would be most of the work.
    logging.disable(logging.CRITICAL)
    atheris.Setup([str(_launcher(target)), *arguments], module.TestOneInput)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
