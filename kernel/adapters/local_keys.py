"""KeyProvider with a master key from the settings or from the data folder."""

from __future__ import annotations

import base64
import binascii
import contextlib
import os
import secrets
import tempfile
from pathlib import Path

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from kernel.errors import ConfigurationError
from kernel.settings import Settings

_NONCE = 12


class LocalKeys:
    """AES-256-GCM with a random 96-bit nonce per message; ``purpose`` is authenticated with it."""

    def __init__(self, key: bytes) -> None:
        if len(key) != 32:
            raise ConfigurationError("The master key has the wrong length.", expected="32 bytes", found=len(key))
        self._cipher = AESGCM(key)

    def encrypt(self, plain: bytes, purpose: str) -> str:
        """Base64 of nonce and cipher text."""
        nonce = secrets.token_bytes(_NONCE)
        return base64.b64encode(nonce + self._cipher.encrypt(nonce, plain, purpose.encode())).decode()

    def decrypt(self, cipher: str, purpose: str) -> bytes:
        """The plain bytes. Raises ConfigurationError if the key or the purpose is another."""
        try:
            raw = base64.b64decode(cipher, validate=True)
            return self._cipher.decrypt(raw[:_NONCE], raw[_NONCE:], purpose.encode())
        except (InvalidTag, binascii.Error, ValueError) as error:
            raise ConfigurationError(
                f"A stored secret ({purpose}) can't be opened with this master key.",
                fix="Set KEELSTONE_MASTER_KEY to the key with which it was stored.",
            ) from error


def open_keys(settings: Settings) -> LocalKeys:
    """The provider: KEELSTONE_MASTER_KEY, or ``master.key`` in the data folder, made at first use."""
    if settings.master_key is not None:
        return _keys(settings.master_key.get_secret_value().encode(), "KEELSTONE_MASTER_KEY")
    path = settings.home / "master.key"
    return _keys(_read_or_make(path), str(path))


def _keys(text: bytes, where: str) -> LocalKeys:
    try:
        key = base64.b64decode(text, validate=True)
    except binascii.Error as error:
        raise ConfigurationError(
            f"The master key in {where} is not base64.",
            expected="base64 of 32 bytes",
            fix="Put the key back from your backup: what was stored with it opens with no other.",
        ) from error
    return LocalKeys(key)


def _read_or_make(path: Path) -> bytes:
    path.parent.mkdir(parents=True, exist_ok=True)
    if not path.exists():
        handle, temporary = tempfile.mkstemp(dir=path.parent)
        with os.fdopen(handle, "wb") as file:
            file.write(base64.b64encode(secrets.token_bytes(32)))
            file.flush()
            os.fsync(file.fileno())
        try:
            # A link is made whole or not at all: of two processes that start at once, one makes the key
            # and both read it.
            with contextlib.suppress(FileExistsError):
                os.link(temporary, path)
        finally:
            os.unlink(temporary)
    return path.read_bytes()
