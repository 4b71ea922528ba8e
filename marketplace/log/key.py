"""The marketplace's own keys, as TUF vouches for them: the log's, and those that sign receipts.

Both can be changed. The log's old key says itself which one follows it, and how long the log was and what its root was
by then: it counts for nothing longer, so whoever steals it later cannot go on with the log, or tell it otherwise.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from itertools import pairwise
from typing import Any

from kernel.errors import KeelstoneError
from marketplace.errors import LogInconsistent, VerificationFailed
from marketplace.keys import SigningKey, public_key
from marketplace.log.checkpoint import Checkpoint, checkpoint_of
from marketplace.log.note import LOG, VerifierKey
from marketplace.log.tree import HASH_BYTES
from marketplace.signing import HANDOVER, RECEIPT, canonical_json, open_statement

KEYS_TARGET = "registry/keys.json"
"""The TUF target that names the keys which sign receipts and checkpoints."""
_TELL = "Install nothing from this marketplace. Keep what you have, and tell its operator."


@dataclass(frozen=True, slots=True)
class RetiredKey:
    """A key that the log had: it counts for its first ``size`` entries, whose root is ``root``."""

    key: VerifierKey
    size: int
    root: bytes


@dataclass(frozen=True, slots=True)
class LogKeys:
    """The log's key, and those that it had before, oldest first."""

    present: VerifierKey
    retired: tuple[RetiredKey, ...] = ()

    def open(self, body: bytes) -> Checkpoint:
        """The checkpoint in a signed note by any of the keys, within what a retired one counts for.

        What only a retired key signed is on the log's present line only if the log at its ``size`` begins with it:
        the caller checks that. Raises VerificationFailed or LogInconsistent.
        """
        checkpoint = checkpoint_of(self.present.name, body)
        if checkpoint.note.signed_by(self.present) is not None:
            return checkpoint
        retired = self.retired_signer(checkpoint)
        if retired is None:
            raise VerificationFailed(
                "log",
                "the checkpoint is not signed by the log's key.",
                expected=str(self.present),
                fix="Try again: its key may have changed this very moment. If it stays so, tell its operator.",
            )
        if checkpoint.size > retired.size:
            raise VerificationFailed(
                "log",
                "the checkpoint is signed by a key that the log had given up before: somebody else has it.",
                expected=f"at most {retired.size} entries by key {retired.key.id.hex()}",
                found=f"{checkpoint.size} entries",
                fix=_TELL,
            )
        if checkpoint.size == retired.size and checkpoint.root != retired.root:
            raise LogInconsistent(
                "a retired key signed another log than the one that it handed over.",
                expected=f"root {retired.root.hex()[:16]}",
                found=f"root {checkpoint.root.hex()[:16]}",
                fix=_TELL,
            )
        return checkpoint

    def retired_signer(self, checkpoint: Checkpoint) -> RetiredKey | None:
        """The newest retired key that signed it; None if the present one did, or nobody."""
        if checkpoint.note.signed_by(self.present) is not None:
            return None
        return next((old for old in reversed(self.retired) if checkpoint.note.signed_by(old.key)), None)

    def signer(self, checkpoint: Checkpoint) -> VerifierKey:
        """The key that vouches for an opened checkpoint."""
        retired = self.retired_signer(checkpoint)
        return self.present if retired is None else retired.key

    def knows_signer(self, checkpoint: Checkpoint) -> bool:
        """Whether a key of the log is named under it, be the signature good or not."""
        known = {self.present.id, *(old.key.id for old in self.retired)}
        return any(line.name == self.present.name and line.key_id in known for line in checkpoint.note.signatures)


def log_origin(first_root: bytes) -> str:
    """A log's name, after the first root of its marketplace: no two marketplaces have the same."""
    return f"keelstone-marketplace/{hashlib.sha256(first_root).hexdigest()[:16]}"


def log_member(origin: str, key: SigningKey, earlier: Sequence[Mapping[str, Any]] = ()) -> dict[str, Any]:
    """What the target says of the log: its key, and those before it, each with its word for the next."""
    said: dict[str, Any] = {"origin": origin, "key": key.public.to_dict()}
    return said | ({"earlier": list(earlier)} if earlier else {})


def read_log_keys(document: bytes) -> LogKeys:
    """The log's keys from the target document, each signed in by the one before it.

    Raises VerificationFailed if it names none, or if one does not follow from the one before.
    """
    try:
        said = json.loads(document)["log"]
        origin, earlier = str(said["origin"]), list(said.get("earlier", ()))
        keys = [public_key(each["key"]) for each in (*earlier, said)]
    except (ValueError, KeyError, TypeError, AttributeError, KeelstoneError) as error:
        raise VerificationFailed(
            "log",
            "the marketplace names no key of a transparency log.",
            file=KEYS_TARGET,
            fix="Its operator must start it once with a version that keeps a log.",
        ) from error
    retired, size = [], -1
    for (old, new), handed in zip(pairwise(keys), earlier, strict=True):
        try:
            both = {old.keyid: old, new.keyid: new}
            statement = open_statement(canonical_json(handed["handover"]), HANDOVER, both, 2)
            told = statement.predicate
            about = (set(statement.subjects.values()), told["origin"], told["previous"])
            if about != ({new.keyid}, origin, old.keyid):
                raise ValueError("it is about another key")
            root = bytes.fromhex(told["root"])
            if type(told["size"]) is not int or told["size"] <= size or len(root) != HASH_BYTES:
                raise ValueError("it does not say where the log was")
        except (ValueError, KeyError, TypeError, KeelstoneError) as error:
            raise VerificationFailed(
                "log",
                f"the log's key {new.keyid[:16]} does not have the word of the one before it: {error}.",
                file=KEYS_TARGET,
                expected=f"a handover signed by {old.keyid[:16]} and {new.keyid[:16]}",
                fix=_TELL,
            ) from error
        size = told["size"]
        retired.append(RetiredKey(_verifier(origin, old), size, root))
    return LogKeys(_verifier(origin, keys[-1]), tuple(retired))


def own_keys(document: bytes) -> set[str]:
    """The ids of all keys in the target document: the log's, and those of receipts. Raises VerificationFailed."""
    try:
        said = json.loads(document)
        named = (said["log"], *said["log"].get("earlier", ()))
        return {public_key(each).keyid for each in (*said["receipts"], *(one["key"] for one in named))}
    except (ValueError, KeyError, TypeError, AttributeError, KeelstoneError) as error:
        raise VerificationFailed("log", f"the marketplace's keys cannot be read: {error}.", file=KEYS_TARGET) from error


def open_receipt(receipt: Mapping[str, Any], document: bytes, digest: str) -> tuple[Mapping[str, Any], datetime | None]:
    """What a receipt says of the package with ``digest``, if a key in the target ``document`` signed it, and until when
    that key counted (None: it still does).

    What stands beside the signed statement in the receipt does not count. Raises VerificationFailed.
    """
    try:
        listed = {public_key(each).keyid: each for each in json.loads(document)["receipts"]}
        keys = {keyid: public_key(each) for keyid, each in listed.items()}
        statement = open_statement(canonical_json(receipt["signed"]), RECEIPT, keys)
        ends = [listed[signer].get("until") for signer in statement.signers]
        until = None if None in ends else max(datetime.fromisoformat(end) for end in ends)
        said = statement.predicate
        late = until is not None and datetime.fromisoformat(said["published"]) > until
    except (ValueError, KeyError, TypeError, AttributeError, KeelstoneError) as error:
        raise VerificationFailed("receipt", f"it is not signed by the marketplace: {error}") from error
    if set(statement.subjects.values()) != {digest}:
        raise VerificationFailed(
            "receipt",
            "it is about another package.",
            expected=f"sha256 {digest}",
            found=", ".join(f"{name} sha256 {found}" for name, found in statement.subjects.items()),
            fix="Somebody answered with an old receipt. Publish again, over another network.",
        )
    if late:
        raise VerificationFailed(
            "receipt",
            "it is signed by a key that no longer counted then.",
            expected=f"a receipt from before {until}",
            found=str(said["published"]),
            fix="Somebody else has the marketplace's old key. Keep the receipt, and tell its operator.",
        )
    return said, until


def _verifier(origin: str, key: Any) -> VerifierKey:
    return VerifierKey(origin, LOG, bytes.fromhex(key.keyval["public"]))
