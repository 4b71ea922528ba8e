"""Proof files: that one change is in the log, in one JSON document that is checked without any network.

A proof has the entry, its index, the hashes from its leaf to the root, and the checkpoint that has this root. Beside
them it may have the signed statement whose digest the entry holds.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from marketplace.errors import VerificationFailed
from marketplace.log.checkpoint import Checkpoint, open_checkpoint
from marketplace.log.entry import Entry, entry_from_dict, statement_digest
from marketplace.log.note import VerifierKey
from marketplace.log.tree import HASH_BYTES, verify_inclusion

FORMAT = 1
MAX_PROOF_BYTES = 256 * 1024
_DAMAGED = "Get the proof again with `keelstone marketplace proof`. If it stays so, tell the marketplace's operator."


@dataclass(frozen=True, slots=True)
class LogProof:
    """The proof of one entry. ``checkpoint`` is a signed note; ``statement`` a DSSE envelope."""

    index: int
    entry: Entry
    hashes: tuple[bytes, ...]
    checkpoint: bytes
    statement: Mapping[str, Any] | None = None

    def to_dict(self) -> dict[str, Any]:
        """Plain data, JSON-ready."""
        document = {
            "format": FORMAT,
            "index": self.index,
            "entry": self.entry.to_dict(),
            "hashes": [base64.b64encode(each).decode() for each in self.hashes],
            "checkpoint": self.checkpoint.decode(),
        }
        return document if self.statement is None else {**document, "statement": dict(self.statement)}

    def to_bytes(self) -> bytes:
        """The proof file."""
        return json.dumps(self.to_dict(), indent=2, ensure_ascii=False).encode() + b"\n"

    def verify(self, key: VerifierKey) -> Checkpoint:
        """Check all of it with the log's key; the checkpoint that it is proved against. Raises VerificationFailed."""
        checkpoint = open_checkpoint(self.checkpoint, key)
        self.prove(checkpoint)
        return checkpoint

    def prove(self, checkpoint: Checkpoint) -> None:
        """Check that the entry is in the log of a verified checkpoint. Raises VerificationFailed."""
        if not verify_inclusion(self.index, checkpoint.size, self.entry.leaf, self.hashes, checkpoint.root):
            raise VerificationFailed(
                "log",
                f"the entry is not number {self.index} of the log that the checkpoint describes.",
                plugin=self.entry.plugin,
                found=str(self.entry),
                fix=_DAMAGED,
            )
        if self.statement is not None and statement_digest(self.statement) != self.entry.statement:
            raise VerificationFailed(
                "log", "the statement is not the one that was logged.", plugin=self.entry.plugin, fix=_DAMAGED
            )


def read_proof(body: bytes) -> LogProof:
    """The proof in a file, unverified. Raises VerificationFailed if it is none."""
    try:
        if len(body) > MAX_PROOF_BYTES:
            raise ValueError(f"{len(body)} bytes")
        said = json.loads(body)
        if said["format"] != FORMAT or type(said["index"]) is not int:
            raise ValueError(f"format {str(said['format'])[:20]}")
        hashes = tuple(base64.b64decode(each, validate=True) for each in said["hashes"])
        statement = said.get("statement")
        if any(len(each) != HASH_BYTES for each in hashes) or not isinstance(statement, dict | None):
            raise ValueError("its members are malformed")
        return LogProof(said["index"], entry_from_dict(said["entry"]), hashes, said["checkpoint"].encode(), statement)
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise VerificationFailed(
            "log", f"this is not the proof of an entry: {error}.", expected=f"format {FORMAT}", fix=_DAMAGED
        ) from error
