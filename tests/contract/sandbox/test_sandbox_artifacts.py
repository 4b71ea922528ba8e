"""Artifacts: compiled once, sealed, and never loaded if anything about them is not ours."""

from __future__ import annotations

import hashlib
import json
import shutil
import stat

import pytest

from sandbox import errors
from sandbox.engine import fingerprint


@pytest.fixture
def lane():
    """What this page is about comes before the lanes part."""
    return "fast"


GOOD = '{"n": 1}'


@pytest.fixture
def digest(bytes_of):
    return hashlib.sha256(bytes_of("echo")).hexdigest()


@pytest.fixture
def artifact(tmp_path, digest):
    return tmp_path / "artifacts" / f"{digest}-{fingerprint()}.cwasm"


async def test_an_artifact_is_made_once_and_found_again(opened, tmp_path, digest, artifact):
    async with opened(home=tmp_path) as box:
        assert not box.runtime.prepared(digest)
        await box.run("echo", GOOD)
        assert box.runtime.prepared(digest)
    made = artifact.stat()
    async with opened(home=tmp_path) as box:
        assert box.runtime.prepared(digest)
        assert (await box.run("echo", GOOD)).output == GOOD
    assert artifact.stat().st_mtime_ns == made.st_mtime_ns
    assert artifact.stat().st_ino == made.st_ino


async def test_only_the_owner_can_read_artifacts(opened, tmp_path, artifact):
    async with opened(home=tmp_path) as box:
        await box.run("echo", GOOD)
    assert stat.S_IMODE(artifact.parent.stat().st_mode) == 0o700
    for path in artifact.parent.iterdir():
        assert stat.S_IMODE(path.stat().st_mode) == 0o600, path


def _flip(path):
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 0xFF
    path.write_bytes(data)


def _cut(path):
    path.write_bytes(path.read_bytes()[:1_000])


def _unseal(path):
    path.with_suffix(".seal").unlink()


def _reseal_without_the_key(path):
    seal = json.loads(path.with_suffix(".seal").read_text())
    _flip(path)
    seal["artifact"] = hashlib.sha256(path.read_bytes()).hexdigest()
    path.with_suffix(".seal").write_text(json.dumps(seal))


def _nonsense(path):
    path.with_suffix(".seal").write_text("[]")


def _open_to_others(path):
    path.chmod(0o666)


DAMAGE = [_flip, _cut, _unseal, _reseal_without_the_key, _nonsense, _open_to_others]


@pytest.mark.parametrize("damage", DAMAGE)
async def test_a_damaged_artifact_is_refused_and_made_again(
    opened, tmp_path, digest, artifact, damage, bytes_of, make_manifest
):
    async with opened(home=tmp_path) as box:
        await box.run("echo", GOOD)
    damage(artifact)
    async with opened(home=tmp_path) as box:
        with pytest.raises(errors.ArtifactMissing):
            await box.runtime._shelves._usual.load(digest)
        await box.runtime.prepare(digest, bytes_of("echo"), make_manifest())
        assert (await box.run("echo", GOOD)).output == GOOD


async def test_an_artifact_of_another_component_is_refused(opened, tmp_path, digest, artifact, bytes_of):
    async with opened(home=tmp_path) as box:
        await box.run("echo", GOOD)
        with pytest.raises(errors.GuestTrapped):
            await box.run("trap", GOOD)
    other = hashlib.sha256(bytes_of("trap")).hexdigest()
    for suffix in (".cwasm", ".seal"):
        shutil.copy(
            artifact.with_name(f"{other}-{fingerprint()}.cwasm").with_suffix(suffix), artifact.with_suffix(suffix)
        )
    async with opened(home=tmp_path) as box:
        with pytest.raises(errors.ArtifactMissing):
            await box.runtime._shelves._usual.load(digest)


async def test_a_call_of_an_unprepared_component_says_so(box, make_manifest):
    from kernel.context import Context
    from kernel.ports import GuestCall

    call = GuestCall("acme/guest", "1.0.0", "a" * 64, make_manifest(), "user_creating", "{}", Context("acme"))
    with pytest.raises(errors.ArtifactMissing):
        await box.runtime.call(call)


async def test_forgetting_removes_the_artifact(opened, tmp_path, digest, artifact):
    async with opened(home=tmp_path) as box:
        await box.run("echo", GOOD)
        await box.runtime.forget(digest)
        assert not box.runtime.prepared(digest)
        assert [p.name for p in artifact.parent.iterdir()] == ["seal.key"]
        assert (await box.run("echo", GOOD)).output == GOOD


def _shorter(data):
    return data[:-60]


def _other_code(data):
    # The body of the function `handle` begins with its first store to address 16.
    at = data.index(b"\x41\x10\x41\x00")
    return data[:at] + b"\xff\xff\xff\xff" + data[at + 4 :]


def _module_only(data):
    return data[8:]


@pytest.mark.parametrize("damage", [_shorter, _other_code, _module_only])
async def test_a_broken_component_says_what_is_wrong_with_it(box, make_manifest, bytes_of, damage):
    broken = damage(bytes_of("echo"))
    with pytest.raises(errors.BadComponent) as caught:
        await box.runtime.prepare(hashlib.sha256(broken).hexdigest(), broken, make_manifest())
    assert caught.value.plugin == "acme/guest"
    assert caught.value.detail
