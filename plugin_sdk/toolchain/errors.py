"""What can go wrong between source and component."""

from __future__ import annotations

from kernel.errors import KeelstoneError


class ToolchainUnavailable(KeelstoneError):
    """A compiler is not here and cannot be fetched now."""

    code, status, title = "toolchain-unavailable", 503, "The toolchain cannot be fetched"


class BuildFailed(KeelstoneError):
    """The source does not compile, or uses what its manifest does not ask for."""

    code, status, title = "build-failed", 422, "The plugin does not build"
