"""Blobs in a folder and keys from the settings: checked on the way out, useless to the wrong reader."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import os
import stat
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kernel.adapters.local_blobs import LocalBlobs
from kernel.adapters.local_keys import LocalKeys, open_keys
from kernel.errors import BackendUnavailable, ConfigurationError, ValidationFailed
from kernel.settings import Settings

KEY = bytes(range(32))


@pytest.fixture
def blobs(tmp_path) -> LocalBlobs:
    return LocalBlobs(tmp_path / "blobs")


@pytest.mark.parametrize("data", [b"", b"component", bytes(100_000)])
async def test_what_is_put_comes_back_under_its_digest(blobs, data):
    digest = await blobs.put(data)
    assert digest == hashlib.sha256(data).hexdigest()
    assert await blobs.put(data) == digest
    assert await blobs.get(digest) == data
    await blobs.delete(digest)
    await blobs.delete(digest)
    assert await blobs.get(digest) is None


async def test_a_caller_who_gives_up_can_take_back_what_was_being_written(blobs, monkeypatch):
    begun, go_on, put = threading.Event(), threading.Event(), blobs._put

    def slowly(data):
        begun.set()
        go_on.wait(10)
        return put(data)

    monkeypatch.setattr(blobs, "_put", slowly)
    writing = asyncio.create_task(blobs.put(b"component"))
    await asyncio.to_thread(begun.wait, 10)
    writing.cancel()
    await asyncio.sleep(0)
    assert not writing.done()
    go_on.set()
    with pytest.raises(asyncio.CancelledError):
        await writing
    digest = hashlib.sha256(b"component").hexdigest()
    assert await blobs.get(digest) == b"component"
    await blobs.delete(digest)
    assert await blobs.get(digest) is None


async def test_a_damaged_blob_is_told_and_never_given_out(blobs, tmp_path):
    digest = await blobs.put(b"component")
    (tmp_path / "blobs" / digest[:2] / digest).write_bytes(b"tampered")
    with pytest.raises(BackendUnavailable) as caught:
        await blobs.get(digest)
    assert caught.value.expected == digest


@pytest.mark.parametrize("digest", ["", "../../etc/passwd", "A" * 64, "a" * 63, "a" * 64 + "\n", "a" * 65])
async def test_a_name_that_is_no_digest_reaches_no_file(blobs, digest):
    for call in (blobs.get, blobs.delete):
        with pytest.raises(ValidationFailed):
            await call(digest)


async def test_nothing_half_written_is_left(blobs, tmp_path):
    await blobs.put(b"component")
    assert len([p for p in (tmp_path / "blobs").rglob("*") if p.is_file()]) == 1


@given(st.binary(max_size=200), st.text(st.characters(exclude_categories=["Cs"]), max_size=20))
def test_only_the_same_key_and_purpose_open_a_secret(plain, purpose):
    keys = LocalKeys(KEY)
    cipher = keys.encrypt(plain, purpose)
    assert keys.decrypt(cipher, purpose) == plain
    assert keys.encrypt(plain, purpose) != cipher, "a fresh nonce each time"
    for other, reason in ((keys, purpose + "x"), (LocalKeys(KEY[::-1]), purpose)):
        with pytest.raises(ConfigurationError, match="can't be opened"):
            other.decrypt(cipher, reason)


@given(st.integers(0, 40), st.integers(0, 7))
def test_one_turned_bit_is_found(position, bit):
    keys = LocalKeys(KEY)
    raw = bytearray(base64.b64decode(keys.encrypt(b"a secret of 16 b", "purpose")))
    raw[position] ^= 1 << bit
    with pytest.raises(ConfigurationError):
        keys.decrypt(base64.b64encode(raw).decode(), "purpose")


@pytest.mark.parametrize("cipher", ["", "x", "not base64!", base64.b64encode(b"short").decode()])
def test_what_is_no_cipher_text_is_refused(cipher):
    with pytest.raises(ConfigurationError):
        LocalKeys(KEY).decrypt(cipher, "purpose")


def test_the_key_is_made_once_for_the_owner_only(tmp_path):
    settings = Settings(home=tmp_path)
    cipher = open_keys(settings).encrypt(b"secret", "p")
    assert open_keys(settings).decrypt(cipher, "p") == b"secret"
    mode = stat.S_IMODE(os.stat(tmp_path / "master.key").st_mode)
    assert mode == 0o600


def test_of_many_that_start_at_once_all_use_one_key(tmp_path):
    settings = Settings(home=tmp_path)
    with ThreadPoolExecutor(8) as pool:
        ciphers = list(pool.map(lambda n: open_keys(settings).encrypt(b"secret", "p"), range(16)))
    keys = open_keys(settings)
    assert [keys.decrypt(c, "p") for c in ciphers] == [b"secret"] * 16
    assert [p.name for p in tmp_path.iterdir()] == ["master.key"]


def test_a_given_key_is_used_and_none_is_written(tmp_path):
    settings = Settings(home=tmp_path, master_key=base64.b64encode(KEY).decode())
    cipher = open_keys(settings).encrypt(b"secret", "p")
    assert LocalKeys(KEY).decrypt(cipher, "p") == b"secret"
    assert not (tmp_path / "master.key").exists()


@pytest.mark.parametrize("wrong", ["not base64!", base64.b64encode(b"short").decode(), "ü"])
def test_a_key_that_is_none_is_refused_in_words(tmp_path, wrong):
    with pytest.raises(ConfigurationError):
        open_keys(Settings(home=tmp_path, master_key=wrong))


@pytest.mark.parametrize("content", [b"", b"garbage!", base64.b64encode(b"short")])
def test_a_damaged_key_file_is_refused_in_words(tmp_path, content):
    (tmp_path / "master.key").write_bytes(content)
    with pytest.raises(ConfigurationError):
        open_keys(Settings(home=tmp_path))
