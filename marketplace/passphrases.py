"""Private keys under a passphrase: PKCS#8, encrypted by AES-256 with a key that scrypt makes of the passphrase.

``cryptography`` reads this form but writes only a weaker one (PBKDF2 of 2,048 rounds), so the envelope is written here,
around its scrypt and AES.
Sources: RFC 5958 (EncryptedPrivateKeyInfo), RFC 8018 (PBES2), RFC 7914 (scrypt; section 7 its parameters in PKCS#8).
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from kernel.errors import ValidationFailed

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

COST, BLOCK, LANES = 2**17, 8, 1
"""scrypt's N, r and p: about half a second and 128 MiB a guess."""
MIN_LENGTH = 12
SEALED = "ENCRYPTED PRIVATE KEY"
"""What PEM calls such a key."""
_PBES2 = bytes.fromhex("06092a864886f70d01050d")
_SCRYPT = bytes.fromhex("06092b06010401da47040b")
_AES_256_CBC = bytes.fromhex("060960864801650304012a")
_INTEGER, _OCTETS, _SEQUENCE = 0x02, 0x04, 0x30


class Passphrases(Protocol):
    """Where passphrases come from: a person at the terminal, or what a script was given."""

    def of(self, path: Path) -> str:
        """The passphrase of the key in ``path``."""
        ...

    def new(self, path: Path) -> str | None:
        """The passphrase for a key that is made in ``path``; None: it gets none."""
        ...


class OnePassphrase:
    """The same for every key; with None, keys get none."""

    def __init__(self, passphrase: str | None) -> None:
        self._passphrase = passphrase

    def of(self, path: Path) -> str:
        """See :class:`Passphrases`."""
        return self._passphrase or ""

    def new(self, path: Path) -> str | None:
        """See :class:`Passphrases`. Raises ValidationFailed if it is too short."""
        return checked_passphrase(self._passphrase) if self._passphrase else None


def checked_passphrase(passphrase: str) -> str:
    """``passphrase`` if it is long enough for a key that is kept for years. Raises ValidationFailed."""
    if len(passphrase) < MIN_LENGTH:
        raise ValidationFailed(
            "The passphrase is too short.",
            expected=f"at least {MIN_LENGTH} characters, such as five random words",
            found=f"{len(passphrase)}",
        )
    return passphrase


def seal(private: Ed25519PrivateKey, passphrase: str) -> bytes:
    """The private key as PEM, under ``passphrase``."""
    import base64

    from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
    from cryptography.hazmat.primitives.kdf.scrypt import Scrypt
    from cryptography.hazmat.primitives.padding import PKCS7
    from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

    salt, vector = os.urandom(16), os.urandom(16)
    key = Scrypt(salt, 32, COST, BLOCK, LANES).derive(passphrase.encode())
    padder = PKCS7(128).padder()
    plain = private.private_bytes(Encoding.DER, PrivateFormat.PKCS8, NoEncryption())
    encryptor = Cipher(algorithms.AES(key), modes.CBC(vector)).encryptor()
    body = encryptor.update(padder.update(plain) + padder.finalize()) + encryptor.finalize()
    derived = _sequence(_SCRYPT, _sequence(_tagged(_OCTETS, salt), *map(_number, (COST, BLOCK, LANES))))
    scheme = _sequence(_AES_256_CBC, _tagged(_OCTETS, vector))
    document = _sequence(_sequence(_PBES2, _sequence(derived, scheme)), _tagged(_OCTETS, body))
    text = base64.b64encode(document).decode()
    lines = "\n".join(text[at : at + 64] for at in range(0, len(text), 64))
    return f"-----BEGIN {SEALED}-----\n{lines}\n-----END {SEALED}-----\n".encode()


def _number(value: int) -> bytes:
    return _tagged(_INTEGER, value.to_bytes(value.bit_length() // 8 + 1, "big"))


def _sequence(*parts: bytes) -> bytes:
    return _tagged(_SEQUENCE, b"".join(parts))


def _tagged(tag: int, content: bytes) -> bytes:
    """DER: a length below 128 is one byte, a longer one says first how many bytes it has."""
    size = len(content)
    if size < 128:
        return bytes([tag, size]) + content
    length = size.to_bytes((size.bit_length() + 7) // 8, "big")
    return bytes([tag, 0x80 | len(length)]) + length + content
