"""What can go wrong between source and component."""

from __future__ import annotations

import re

from kernel.errors import KeelstoneError
from kernel.manifest import PluginManifest


class ToolchainUnavailable(KeelstoneError):
    """A compiler is not here and cannot be fetched now."""

    code, status, title = "toolchain-unavailable", 503, "The toolchain cannot be fetched"


class BuildFailed(KeelstoneError):
    """The source does not compile, or uses what its manifest does not ask for."""

    code, status, title = "build-failed", 422, "The plugin does not build"


MOST_SAID = 4_000
"""Characters of a compiler's words that are passed on."""


def compiler_said(
    detail: str, output: str, place: re.Match[str] | None, manifest: PluginManifest, fix: str | None = None
) -> BuildFailed:
    """The error with a compiler's own words, at the author's file and line if ``place`` holds them in its
    first two groups, else at the source as a whole."""
    assert manifest.build is not None
    return BuildFailed(
        detail,
        plugin=manifest.id,
        file=f"{place.group(1)}:{place.group(2)}" if place else manifest.build.source,
        found="\n" + output.strip()[:MOST_SAID],
        fix=fix,
    )
