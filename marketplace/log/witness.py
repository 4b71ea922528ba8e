"""Witnesses: others who sign what the log showed them, so that it cannot show something else to somebody else.

A witness signs a checkpoint only after it has checked that the log still begins with the last one it signed. A client
that asks for witnesses then knows that everybody sees the same log.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from marketplace.errors import SignatureInvalid, SignerUnknown
from marketplace.keys import KeyFolder, SigningKey
from marketplace.log.checkpoint import Checkpoint, read_checkpoint
from marketplace.log.note import WITNESS, NoteSignature, VerifierKey, cosign_note, verifier_key

CLOCK_SKEW = 300.0
"""Seconds that a witness' clock may be ahead."""


def witness_key(home: Path) -> SigningKey:
    """This machine's key as a witness, under the data folder ``home``; made at first use."""
    return KeyFolder(home / "witness").load_or_create("witness")


def witness_vkey(key: SigningKey, name: str | None = None) -> VerifierKey:
    """The public half, under ``name`` or one made from the key. Others name it in their settings."""
    return verifier_key(name or f"keelstone-witness/{key.id[:16]}", key, WITNESS)


def cosign(checkpoint: Checkpoint, key: SigningKey, name: str, now: float) -> Checkpoint:
    """The checkpoint with this witness' signature. The caller has checked that the log only grew."""
    note = checkpoint.note.with_signatures([cosign_note(checkpoint.note.text, name, key, int(now))])
    return Checkpoint(checkpoint.origin, checkpoint.size, checkpoint.root, note)


def read_cosigned(
    body: bytes, witnesses: Sequence[VerifierKey], now: float
) -> tuple[Checkpoint, dict[VerifierKey, NoteSignature]]:
    """The checkpoint that a witness handed in, and which of ``witnesses`` signed it.

    Raises SignatureInvalid, or SignerUnknown if none of them did.
    """
    try:
        checkpoint = read_checkpoint(body)
    except ValueError as error:
        raise SignatureInvalid(f"This is not a signed checkpoint: {error}.", expected="C2SP tlog-checkpoint") from error
    signed = checkpoint.witnesses(witnesses)
    if not signed:
        raise SignerUnknown(
            "No witness that this marketplace knows signed the checkpoint.",
            expected=", ".join(witness.name for witness in witnesses) or "none: the operator named no witnesses",
            found=", ".join(each.name[:80] for each in checkpoint.note.signatures[:4]),
            fix="Give the operator your key, as `keelstone marketplace witness` prints it, for "
            "KEELSTONE_MARKETPLACE_WITNESSES.",
        )
    if any(signature.time() > now + CLOCK_SKEW for signature in signed.values()):
        raise SignatureInvalid("A cosignature is from a moment that has not come.", fix="Set the witness' clock.")
    return checkpoint, signed
