"""KeyProvider with a master key from the settings or from the data folder."""

from __future__ import annotations

import base64
import binascii
import os
import secrets
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
        try:
            return LocalKeys(base64.b64decode(settings.master_key.get_secret_value(), validate=True))
        except binascii.Error as error:
            raise ConfigurationError("KEELSTONE_MASTER_KEY is not base64.", expected="base64 of 32 bytes") from error
    return LocalKeys(_read_or_make(settings.home / "master.key"))


def _read_or_make(path: Path) -> bytes:
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        # Exclusive creation: of two processes that start at once, one makes the key and both read it.
        handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError:
        return base64.b64decode(path.read_bytes())
    key = secrets.token_bytes(32)
    with os.fdopen(handle, "wb") as file:
        file.write(base64.b64encode(key))
    return key
