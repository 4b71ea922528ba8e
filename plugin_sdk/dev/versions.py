"""Versions of builds that were never released: each is a pre-release of its own."""

from __future__ import annotations

from kernel.versions import parse_version

CHANNEL = "dev"


def development_version(version: str, number: int) -> str:
    """``1.2.0-dev.7`` for the seventh build of ``1.2.0``; ``1.2.0-rc.1.dev.7`` of ``1.2.0-rc.1``."""
    parsed = parse_version(version)
    core = version.partition("+")[0]
    return f"{core}{'.' if parsed.prerelease else '-'}{CHANNEL}.{number}"


def development_number(version: str) -> int:
    """The number in a development version; 0 for any other."""
    before, _, number = version.rpartition(f"{CHANNEL}.")
    return int(number) if before[-1:] in ("-", ".") and number.isdigit() else 0
