"""Signed notes: a text, and under it a line for each signature. Unknown signatures are let be.

A key is named in public by a *vkey*, ``<name>+<id in hex>+<base64 of a byte for the algorithm and the key>``. Two
algorithms are known, both over Ed25519: the log's own (0x01) signs the text, a witness' (0x04) signs the text with the
moment at which it saw it.

Sources: C2SP signed-note; C2SP tlog-cosignature.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

from kernel.errors import ConfigurationError
from marketplace.keys import SigningKey

Algorithm = Literal[1, 4]
LOG: Algorithm = 0x01
WITNESS: Algorithm = 0x04
MAX_NOTE_BYTES = 64 * 1024
_DASH = "\u2014 "
_KEY_BYTES, _SIGNATURE_BYTES, _TIME_BYTES = 32, 64, 8


@dataclass(frozen=True, slots=True)
class VerifierKey:
    """Who may have signed: a name, an algorithm and a public key (32 bytes)."""

    name: str
    algorithm: Algorithm
    key: bytes

    @property
    def id(self) -> bytes:
        """The four bytes that begin each of its signatures."""
        return hashlib.sha256(self.name.encode() + b"\n" + bytes([self.algorithm]) + self.key).digest()[:4]

    def __str__(self) -> str:
        """The vkey."""
        return f"{self.name}+{self.id.hex()}+{_encode(bytes([self.algorithm]) + self.key)}"


@dataclass(frozen=True, slots=True)
class NoteSignature:
    """One signature line: the key that it claims to be by, and what comes after its id."""

    name: str
    key_id: bytes
    value: bytes

    def __str__(self) -> str:
        """The line, without its end."""
        return f"{_DASH}{self.name} {_encode(self.key_id + self.value)}"

    def time(self) -> int:
        """The moment that a witness says it signed at, in epoch seconds (meaningless for others)."""
        return int.from_bytes(self.value[:_TIME_BYTES], "big")


@dataclass(frozen=True, slots=True)
class Note:
    """A text that ends with a line, and its signatures."""

    text: str
    signatures: tuple[NoteSignature, ...]

    def to_bytes(self) -> bytes:
        """The signed note."""
        return (self.text + "\n" + "".join(f"{line}\n" for line in self.signatures)).encode()

    def with_signatures(self, more: Iterable[NoteSignature]) -> Note:
        """The note with ``more`` signatures that it does not have yet."""
        return Note(self.text, tuple(dict.fromkeys((*self.signatures, *more))))

    def signed_by(self, key: VerifierKey) -> NoteSignature | None:
        """The signature of ``key`` under the text, if it has a good one."""
        named = (s for s in self.signatures if s.name == key.name and s.key_id == key.id)
        return next((s for s in named if _verify(key, self.text, s)), None)


def verifier_key(name: str, key: SigningKey, algorithm: Algorithm) -> VerifierKey:
    """The public half of ``key`` under a name."""
    return VerifierKey(name, algorithm, bytes.fromhex(key.public.keyval["public"]))


def read_vkey(vkey: str) -> VerifierKey:
    """The key that a vkey names. Raises ConfigurationError: vkeys are written by operators."""
    try:
        name, key_id, encoded = vkey.strip().split("+", 2)
        raw = base64.b64decode(encoded, validate=True)
        if not _is_name(name) or raw[0] not in (LOG, WITNESS) or len(raw) != 1 + _KEY_BYTES:
            raise ValueError("not an Ed25519 key")
        found = VerifierKey(name, LOG if raw[0] == LOG else WITNESS, raw[1:])
        if found.id.hex() != key_id:
            raise ValueError(f"its id is {found.id.hex()}")
        return found
    except (ValueError, IndexError) as error:
        raise ConfigurationError(
            f"{vkey[:120]!r} does not name a key: {error}.",
            expected="<name>+<8 hex digits>+<base64>, as `keelstone marketplace witness` prints it",
        ) from error


def read_note(body: bytes) -> Note:
    """The note in ``body``, its signatures unverified. Raises ValueError."""
    if len(body) > MAX_NOTE_BYTES:
        raise ValueError(f"a note of {len(body)} bytes")
    text, gap, tail = body.decode("utf-8").rpartition("\n\n")
    if not gap or not tail.endswith("\n") or any(ord(each) < 0x20 and each != "\n" for each in text):
        raise ValueError("not a signed note")
    return Note(text + "\n", tuple(_read_line(line) for line in tail[:-1].split("\n")))


def sign_note(text: str, name: str, key: SigningKey) -> Note:
    """``text`` signed by a log."""
    public = verifier_key(name, key, LOG)
    return Note(text, (NoteSignature(name, public.id, _sign(key, text.encode())),))


def cosign_note(text: str, name: str, key: SigningKey, at: int) -> NoteSignature:
    """A witness' signature over ``text``, made at the moment ``at`` (epoch seconds)."""
    public = verifier_key(name, key, WITNESS)
    value = at.to_bytes(_TIME_BYTES, "big") + _sign(key, _seen(text, at))
    return NoteSignature(name, public.id, value)


def _seen(text: str, at: int) -> bytes:
    return f"cosignature/v1\ntime {at}\n{text}".encode()


def _sign(key: SigningKey, message: bytes) -> bytes:
    return bytes.fromhex(key.signer.sign(message).signature)


def _verify(key: VerifierKey, text: str, signature: NoteSignature) -> bool:
    from cryptography.exceptions import InvalidSignature
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

    value, message = signature.value, text.encode()
    if key.algorithm == WITNESS:
        value, message = value[_TIME_BYTES:], _seen(text, signature.time())
    if len(value) != _SIGNATURE_BYTES:
        return False
    try:
        Ed25519PublicKey.from_public_bytes(key.key).verify(value, message)
    except (InvalidSignature, ValueError):
        return False
    return True


def _read_line(line: str) -> NoteSignature:
    name, _, encoded = line.removeprefix(_DASH).partition(" ")
    try:
        raw = base64.b64decode(encoded, validate=True)
    except binascii.Error as error:
        raise ValueError(f"a signature line is malformed: {error}") from error
    if not line.startswith(_DASH) or not _is_name(name) or len(raw) <= 4:
        raise ValueError("a signature line is malformed")
    return NoteSignature(name, raw[:4], raw[4:])


def _is_name(name: str) -> bool:
    return bool(name) and "+" not in name and not any(each.isspace() for each in name)


def _encode(raw: bytes) -> str:
    return base64.b64encode(raw).decode()
