"""``python -m plugin_sdk.toolchain.typed``: write the payloads of the guest libraries that ship them.

AssemblyScript's and Python's libraries are used as they lie in this package, so their payloads are kept
with them; a test says when they are old. All other languages' are generated at each build.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from plugin_sdk.toolchain.payloads import payload_types
from plugin_sdk.toolchain.typed import assemblyscript, python

LANGUAGES = Path(__file__).parents[2] / "languages"


def kept_payloads() -> Mapping[Path, str]:
    """The files that are kept, and what each must say."""
    return {
        LANGUAGES / "assemblyscript" / "keelstone" / "payloads.ts": assemblyscript.payloads(payload_types()),
        LANGUAGES / "python" / "keelstone_guest" / "payloads.py": python.payloads(payload_types()),
    }


if __name__ == "__main__":
    for path, text in kept_payloads().items():
        path.write_text(text, encoding="utf-8")
