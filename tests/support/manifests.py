"""Manifests for tests: valid unless told otherwise."""

from __future__ import annotations

from typing import Any

from kernel.manifest import PluginManifest, manifest_from_dict

WHY = "needed by the tests"


def manifest_data(id: str = "acme/hello", version: str = "1.0.0", **changes: Any) -> dict[str, Any]:
    """A valid manifest as plain data; ``changes`` replace its members."""
    return {
        "manifest": 1,
        "id": id,
        "version": version,
        "name": "Hello",
        "summary": "A plugin of the tests.",
        "license": "Apache-2.0",
        **changes,
    }


def make_manifest(id: str = "acme/hello", version: str = "1.0.0", **changes: Any) -> PluginManifest:
    """A valid manifest; ``changes`` replace its members."""
    return manifest_from_dict(manifest_data(id, version, **changes))
