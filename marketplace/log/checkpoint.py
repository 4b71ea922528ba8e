"""Checkpoints: the log's signed word on how long it is and what its root is.

Source: C2SP tlog-checkpoint (origin, size and root, a line each, in a signed note).
"""

from __future__ import annotations

import base64
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from marketplace.errors import VerificationFailed
from marketplace.keys import SigningKey
from marketplace.log.note import WITNESS, Note, NoteSignature, VerifierKey, read_note, sign_note
from marketplace.log.tree import HASH_BYTES

_SIZE = re.compile(r"^(?:0|[1-9]\d{0,17})$")


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """A log of ``size`` entries with the tree's ``root``, as ``note`` says; see :func:`open_checkpoint`."""

    origin: str
    size: int
    root: bytes
    note: Note

    def to_bytes(self) -> bytes:
        """The signed note."""
        return self.note.to_bytes()

    def witnesses(self, trusted: Iterable[VerifierKey]) -> dict[VerifierKey, NoteSignature]:
        """Those of the ``trusted`` witnesses that signed it, with their signatures; each key counts once."""
        by_key = {witness.key: witness for witness in trusted if witness.algorithm == WITNESS}
        signed = {witness: self.note.signed_by(witness) for witness in by_key.values()}
        return {witness: signature for witness, signature in signed.items() if signature is not None}


def sign_checkpoint(origin: str, size: int, root: bytes, *keys: SigningKey) -> Checkpoint:
    """The log's checkpoint; its key signs under the name ``origin`` (two keys do where one hands over to the other)."""
    text = f"{origin}\n{size}\n{base64.b64encode(root).decode()}\n"
    first, *others = (sign_note(text, origin, key) for key in keys)
    return Checkpoint(origin, size, root, first.with_signatures(line for note in others for line in note.signatures))


def read_checkpoint(body: bytes) -> Checkpoint:
    """The checkpoint in a signed note, its signatures unverified. Raises ValueError."""
    note = read_note(body)
    origin, size, root, *_ = [*note.text.split("\n"), "", ""]
    raw = base64.b64decode(root, validate=True)
    if not origin or not _SIZE.match(size) or len(raw) != HASH_BYTES:
        raise ValueError("not a checkpoint")
    return Checkpoint(origin, int(size), raw, note)


def checkpoint_of(origin: str, body: bytes) -> Checkpoint:
    """The checkpoint in a signed note, if it is about the log ``origin``; its signatures unverified.

    Raises VerificationFailed.
    """
    try:
        checkpoint = read_checkpoint(body)
    except ValueError as error:
        raise VerificationFailed("log", f"the checkpoint cannot be read: {error}.") from error
    if checkpoint.origin != origin:
        raise VerificationFailed(
            "log", "the checkpoint is another log's.", expected=origin, found=checkpoint.origin[:120]
        )
    return checkpoint


def open_checkpoint(body: bytes, key: VerifierKey) -> Checkpoint:
    """The checkpoint in a signed note, by the log whose key is ``key``. Raises VerificationFailed."""
    checkpoint = checkpoint_of(key.name, body)
    if checkpoint.note.signed_by(key) is None:
        raise VerificationFailed("log", "the checkpoint is not signed by the log's key.", expected=str(key))
    return checkpoint


def require_witnesses(checkpoint: Checkpoint, trusted: Sequence[VerifierKey], needed: int) -> None:
    """Raise VerificationFailed unless ``needed`` of the ``trusted`` witnesses signed the checkpoint."""
    found = checkpoint.witnesses(trusted)
    if len(found) < needed:
        names = ", ".join(witness.name for witness in trusted) or "no witness that is trusted here"
        raise VerificationFailed(
            "log",
            f"too few witnesses signed the checkpoint of {checkpoint.size} entries.",
            expected=f"{needed} of {names}",
            found=f"{len(found)}",
            fix="Wait until the witnesses have seen the newest entries, or name others in "
            "KEELSTONE_MARKETPLACE_WITNESSES.",
        )
