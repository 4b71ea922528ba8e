"""The manifest: TOML that a stranger wrote."""

from __future__ import annotations

import json

from kernel.errors import KeelstoneError
from kernel.manifest import manifest_from_dict, parse_manifest
from marketplace.index import manifest_document
from tests.fuzz.feed import told


def TestOneInput(data: bytes) -> None:
    """What is read is the same once it has been through the marketplace's index."""
    try:
        manifest = parse_manifest(data)
    except KeelstoneError as error:
        told(error)
        return
    again = manifest_from_dict(json.loads(json.dumps(manifest_document(manifest))))
    assert manifest_document(again) == manifest_document(manifest)
