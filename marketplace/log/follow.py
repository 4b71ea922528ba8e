"""Following one log from this machine: what was seen last is remembered, and nothing that contradicts it is believed.

The folder holds the newest checkpoint seen (``checkpoint``), the one up to which every entry was read (``audited``)
and the proofs of releases, so that all of them can be checked again without the network.
"""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from pathlib import Path
from urllib.parse import quote

from kernel.errors import NotFound
from kernel.files import write_durably
from marketplace.errors import LogInconsistent, VerificationFailed
from marketplace.log.audit import Audit, Pick, check_extends, follow
from marketplace.log.checkpoint import Checkpoint, open_checkpoint, require_witnesses
from marketplace.log.entry import MAX_ENTRY_BYTES
from marketplace.log.note import MAX_NOTE_BYTES, VerifierKey
from marketplace.log.proof import MAX_PROOF_BYTES, LogProof, read_proof
from marketplace.log.tiles import WIDTH, Tile
from marketplace.log.tree import HASH_BYTES
from marketplace.transport import Transport

_AGAIN = "Connect to the marketplace once, so that the log's proof can be fetched."
_MISSING = "Tell the marketplace's operator: what it lists must be in its log."


class LogFollower:
    """One machine's view of one log. Blocking; call it with the cache locked.

    ``needed`` of ``witnesses`` must have signed a checkpoint before it proves anything.
    """

    def __init__(
        self,
        transport: Transport,
        folder: Path,
        key: VerifierKey,
        witnesses: Sequence[VerifierKey] = (),
        needed: int = 0,
    ) -> None:
        self._transport, self._folder, self.key = transport, folder, key
        self._witnesses, self._needed = witnesses, needed

    # -------------------------------------------------------------------------- online

    def latest(self) -> Checkpoint:
        """The log's present checkpoint, checked against the last one seen here, and remembered.

        Raises LogInconsistent, VerificationFailed or BackendUnavailable.
        """
        try:
            checkpoint, seen = self._fetch_checkpoint("checkpoint"), self._stored("checkpoint")
        except NotFound as error:
            raise VerificationFailed("log", "the marketplace does not serve its log.", fix=_MISSING) from error
        if seen is not None:
            check_extends(seen, checkpoint, self._read_tile)
        self._remember("checkpoint", checkpoint)
        return checkpoint

    def trusted(self) -> Checkpoint:
        """The newest checkpoint that enough witnesses signed. Raises as :meth:`latest`."""
        checkpoint = self.latest()
        if len(checkpoint.witnesses(self._witnesses)) < self._needed:
            with contextlib.suppress(NotFound):
                witnessed = self._fetch_checkpoint(f"witnessed/{self._needed}")
                check_extends(witnessed, checkpoint, self._read_tile)
                checkpoint = witnessed
            require_witnesses(checkpoint, self._witnesses, self._needed)
        return checkpoint

    def fetch_proof(self, plugin: str, version: str) -> None:
        """Fetch the proof that a release was logged, and keep it. Whoever uses it verifies it.

        Raises VerificationFailed if there is none, and as :meth:`latest`.
        """
        checkpoint = self.trusted()
        try:
            body = self._fetch(f"proof/{plugin}/{version}/at/{checkpoint.size}", MAX_PROOF_BYTES)
        except NotFound as error:
            raise VerificationFailed(
                "log",
                f"{plugin} {version} is not among the log's first {checkpoint.size} entries.",
                plugin=plugin,
                fix="If it was published just now, the witnesses must see it first." if self._needed else _MISSING,
            ) from error
        write_durably(self._proof_file(plugin, version), body)

    def entry(self, index: int) -> tuple[LogProof, Checkpoint]:
        """The proof of any entry, verified, with its checkpoint. Raises VerificationFailed, and as :meth:`latest`."""
        checkpoint = self.trusted()
        try:
            proof = read_proof(self._fetch(f"entry/{index}/at/{checkpoint.size}", MAX_PROOF_BYTES))
        except NotFound as error:
            raise VerificationFailed(
                "log", f"there is no entry {index} among the log's first {checkpoint.size}.", fix=_MISSING
            ) from error
        if proof.index != index:
            raise VerificationFailed("log", "the proof is of another entry.", expected=index, found=proof.index)
        return proof, self.check(proof)

    def audit(self, asked: Pick, claimed: Pick, *, whole: bool = False) -> Audit:
        """Read every entry since the last audit here (``whole``: all there are), see ``audit.follow``.

        Raises as :meth:`latest`, and VerificationFailed if entries were changed.
        """
        checkpoint = self.latest()
        return follow(None if whole else self._stored("audited"), checkpoint, self._read_tile, asked, claimed)

    def passed(self, audit: Audit) -> None:
        """Remember that an audit found nothing wrong: the next one goes on from there."""
        self._remember("audited", audit.checkpoint)

    # -------------------------------------------------------------------------- offline

    def proof(self, plugin: str, version: str) -> tuple[LogProof, Checkpoint]:
        """The proof of a release that is kept here, verified, with its checkpoint. Raises VerificationFailed."""
        try:
            body = self._proof_file(plugin, version).read_bytes()
        except FileNotFoundError as error:
            raise VerificationFailed(
                "log", f"there is no proof here that {plugin} {version} was logged.", plugin=plugin, fix=_AGAIN
            ) from error
        proof = read_proof(body)
        return proof, self.check(proof)

    def check(self, proof: LogProof) -> Checkpoint:
        """Verify a proof; its checkpoint. Raises VerificationFailed or LogInconsistent."""
        checkpoint, seen = proof.verify(self.key), self._stored("checkpoint")
        if seen is not None and seen.size == checkpoint.size and seen.root != checkpoint.root:
            raise LogInconsistent(
                "the proof is from another log than was seen here: one size, two roots.",
                expected=f"root {seen.root.hex()[:16]}",
                found=f"root {checkpoint.root.hex()[:16]}",
                fix="Keep the proof, and tell the marketplace's operator.",
            )
        require_witnesses(checkpoint, self._witnesses, self._needed)
        return checkpoint

    # -------------------------------------------------------------------------- inside

    def _stored(self, name: str) -> Checkpoint | None:
        # What cannot be read is as good as never seen: a disk that lost it must not stop everything for ever.
        with contextlib.suppress(FileNotFoundError, VerificationFailed):
            return open_checkpoint((self._folder / name).read_bytes(), self.key)
        return None

    def _remember(self, name: str, checkpoint: Checkpoint) -> None:
        stored = self._stored(name)
        if stored is None or stored.to_bytes() != checkpoint.to_bytes():
            write_durably(self._folder / name, checkpoint.to_bytes())

    def _proof_file(self, plugin: str, version: str) -> Path:
        return self._folder / "proofs" / quote(f"{plugin}@{version}", "")

    def _fetch_checkpoint(self, path: str) -> Checkpoint:
        return open_checkpoint(self._fetch(path, MAX_NOTE_BYTES), self.key)

    def _read_tile(self, place: Tile) -> bytes:
        longest = WIDTH * HASH_BYTES if place.level is not None else WIDTH * (MAX_ENTRY_BYTES + 2)
        try:
            return self._fetch(place.path, longest)
        except NotFound as error:
            raise VerificationFailed(
                "log", f"the log does not serve {place.path}, which its checkpoint needs.", fix=_MISSING
            ) from error

    def _fetch(self, path: str, longest: int) -> bytes:
        body = bytearray()
        for chunk in self._transport.stream(f"log/{path}"):
            body += chunk
            if len(body) > longest:
                raise VerificationFailed("log", f"more comes for {path} than it can have.", file=path)
        return bytes(body)
