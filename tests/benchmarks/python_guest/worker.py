"""The baseline: the same plugin and guest library in a CPython process, a line in and a line out."""

from __future__ import annotations

import sys
from pathlib import Path

HERE = Path(__file__).parent
sys.path[:0] = [str(HERE / "guest"), str(HERE.parents[2] / "plugin_sdk" / "languages" / "python")]

import tidy  # noqa: E402
from keelstone_guest.dispatch import Dispatcher  # noqa: E402


def main() -> None:
    """Answer each line until there is none."""
    plugin = Dispatcher(tidy)
    for line in sys.stdin:
        sys.stdout.write(plugin.handle("user_creating", line) + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
