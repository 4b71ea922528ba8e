"""Files are replaced whole or not at all."""

from __future__ import annotations

import hashlib
import os

import pytest

from kernel.adapters.local_blobs import LocalBlobs
from kernel.errors import BackendUnavailable
from kernel.files import write_durably


def test_a_file_is_replaced_and_only_its_owner_may_read_it(tmp_path):
    path = tmp_path / "new" / "file"
    write_durably(path, b"old")
    write_durably(path, b"new")
    assert path.read_bytes() == b"new"
    assert [p.name for p in path.parent.iterdir()] == ["file"]
    assert path.stat().st_mode & 0o777 == 0o600


def test_a_write_that_fails_leaves_the_old_content_and_nothing_beside_it(tmp_path):
    path = tmp_path / "file"
    write_durably(path, b"old")
    with pytest.raises(TypeError):
        write_durably(path, "not bytes")
    assert path.read_bytes() == b"old"
    assert os.listdir(tmp_path) == ["file"]


async def test_storing_a_damaged_blob_again_mends_it(tmp_path):
    blobs = LocalBlobs(tmp_path)
    digest = await blobs.put(b"component")
    assert digest == hashlib.sha256(b"component").hexdigest()
    (tmp_path / digest[:2] / digest).write_bytes(b"damaged")
    with pytest.raises(BackendUnavailable):
        await blobs.get(digest)
    assert await blobs.put(b"component") == digest
    assert await blobs.get(digest) == b"component"
