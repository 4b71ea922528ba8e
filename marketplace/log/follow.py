"""Following one log from this machine: what was seen last is remembered, and nothing that contradicts it is believed.

The folder holds the newest checkpoint seen (``checkpoint``), the one up to which every entry was read (``audited``),
those that proofs came with while the key under them counted (``known/``), and the proofs of releases, so that all of
them can be checked again without the network, also once the log has another key.
"""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from pathlib import Path
from urllib.parse import quote

from kernel.errors import BackendUnavailable, NotFound
from kernel.files import write_durably
from marketplace.errors import LogInconsistent, VerificationFailed
from marketplace.log.audit import Audit, Pick, check_extends, follow
from marketplace.log.checkpoint import Checkpoint, read_checkpoint, require_witnesses
from marketplace.log.entry import MAX_ENTRY_BYTES, Entry
from marketplace.log.key import LogKeys
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
        keys: LogKeys,
        witnesses: Sequence[VerifierKey] = (),
        needed: int = 0,
    ) -> None:
        self._transport, self._folder, self.keys = transport, folder, keys
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
        if (retired := self.keys.retired_signer(checkpoint)) is not None:
            raise VerificationFailed(
                "log",
                "the newest checkpoint that is shown here is signed by a key that the log has given up.",
                expected=f"key {self.keys.present.id.hex()}",
                found=f"key {retired.key.id.hex()}",
                fix="Somebody may be showing an old log. Try over another network; tell the marketplace's operator.",
            )
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
        self._remember(_known(checkpoint), checkpoint)
        return checkpoint

    def fetch_proof(self, plugin: str, version: str, against: Checkpoint | None = None) -> None:
        """Fetch the proof that a release was logged, and keep it. Whoever uses it verifies it.

        It is ``against`` a checkpoint that was seen, or the newest trusted one. Raises VerificationFailed if there is
        none, and as :meth:`latest`.
        """
        checkpoint = against or self.trusted()
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

    def entry(self, index: int, against: Checkpoint | None = None) -> tuple[LogProof, Checkpoint]:
        """The proof of any entry, verified, with its checkpoint; ``against`` as in :meth:`fetch_proof`. Raises
        VerificationFailed, and as :meth:`latest`."""
        checkpoint = against or self.trusted()
        try:
            proof = read_proof(self._fetch(f"entry/{index}/at/{checkpoint.size}", MAX_PROOF_BYTES))
        except NotFound as error:
            raise VerificationFailed(
                "log", f"there is no entry {index} among the log's first {checkpoint.size}.", fix=_MISSING
            ) from error
        if proof.index != index:
            raise VerificationFailed("log", "the proof is of another entry.", expected=index, found=proof.index)
        return proof, self.check(proof)

    def tile(self, place: Tile) -> bytes:
        """A tile of the log, unverified. Raises VerificationFailed or BackendUnavailable."""
        return self._read_tile(place)

    def fetch_entries(self, indices: Sequence[int]) -> None:
        """Fetch the proofs of entries that are not kept here yet, and keep them. Whoever uses them verifies them.

        Those whose checkpoint a retired key signed are fetched anew. Raises VerificationFailed, and as :meth:`latest`.
        """
        for index in indices:
            if self._must_fetch(index):
                proof, _ = self.entry(index)
                write_durably(self._entry_file(index), proof.to_bytes())

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

    def kept_entry(self, index: int) -> Entry:
        """An entry whose proof is kept here, verified. Raises VerificationFailed."""
        try:
            proof = read_proof(self._entry_file(index).read_bytes())
        except FileNotFoundError as error:
            raise VerificationFailed("log", f"there is no proof here of entry {index}.", fix=_AGAIN) from error
        if proof.index != index:
            raise VerificationFailed("log", "the proof is of another entry.", expected=index, found=proof.index)
        self.check(proof)
        return proof.entry

    def stored_proof(self, plugin: str, version: str) -> bytes | None:
        """The proof file of a release as it is kept here, unverified; None if it is not."""
        return _read(self._proof_file(plugin, version))

    def stored_entry(self, index: int) -> bytes | None:
        """The proof file of an entry as it is kept here, unverified; None if it is not."""
        return _read(self._entry_file(index))

    def check(self, proof: LogProof, *, online: bool = False) -> Checkpoint:
        """Verify a proof; its checkpoint. ``online`` allows to ask the log whether it begins with a checkpoint that
        only a retired key signed and that was not seen here before. Raises VerificationFailed or LogInconsistent.
        """
        checkpoint, seen = self.keys.open(proof.checkpoint), self._stored("checkpoint")
        proof.prove(checkpoint)
        if seen is not None and seen.size == checkpoint.size and seen.root != checkpoint.root:
            raise LogInconsistent(
                "the proof is from another log than was seen here: one size, two roots.",
                expected=f"root {seen.root.hex()[:16]}",
                found=f"root {checkpoint.root.hex()[:16]}",
                fix="Keep the proof, and tell the marketplace's operator.",
            )
        if seen is None or (seen.size, seen.root) != (checkpoint.size, checkpoint.root):
            self._require_on_the_line(checkpoint, online)
        require_witnesses(checkpoint, self._witnesses, self._needed)
        return checkpoint

    # -------------------------------------------------------------------------- inside

    def _require_on_the_line(self, checkpoint: Checkpoint, online: bool) -> None:
        """A retired key may be a thief's by now: what it signed counts if it was known before, or the log begins with
        it."""
        retired = self.keys.retired_signer(checkpoint)
        if retired is None or checkpoint.size == retired.size:
            return
        known = self._stored(_known(checkpoint))
        if known is not None and known.root == checkpoint.root:
            return
        if not online:
            raise VerificationFailed(
                "log",
                f"the proof's checkpoint of {checkpoint.size} entries is signed by a key that the log has given up, "
                "and it was not seen here while the key counted.",
                found=f"key {retired.key.id.hex()}",
                fix=_AGAIN,
            )
        handed_over = Checkpoint(checkpoint.origin, retired.size, retired.root, checkpoint.note)
        try:
            check_extends(checkpoint, handed_over, self._read_tile)
        except BackendUnavailable as error:
            raise VerificationFailed(
                "log",
                "the proof's checkpoint is signed by a key that the log has given up, and whether the log begins with "
                f"it cannot be seen now: {error.detail}",
                fix=_AGAIN,
            ) from error
        self._remember(_known(checkpoint), checkpoint)

    def _must_fetch(self, index: int) -> bool:
        """Whether the proof of an entry is not here, damaged, or against a checkpoint that a retired key signed."""
        try:
            self.kept_entry(index)
            proof = read_proof(self._entry_file(index).read_bytes())
            return self.keys.retired_signer(self.keys.open(proof.checkpoint)) is not None
        except LogInconsistent:
            raise
        except VerificationFailed:
            return True

    def _stored(self, name: str) -> Checkpoint | None:
        # What cannot be read is as good as never seen: a disk that lost it must not stop everything for ever.
        try:
            body = (self._folder / name).read_bytes()
            checkpoint = read_checkpoint(body)
        except (FileNotFoundError, ValueError):
            return None
        if checkpoint.origin != self.keys.present.name:
            return None
        # But what another key signed has been seen: keys follow one another by their own word, or somebody lies.
        if not self.keys.knows_signer(checkpoint):
            raise LogInconsistent(
                "the log's key was replaced, and the old one did not say so.",
                file=str(self._folder / name),
                expected=f"a handover by {', '.join(f'key {s.key_id.hex()}' for s in checkpoint.note.signatures[:2])}",
                found=f"key {self.keys.present.id.hex()}",
                fix="Install nothing from this marketplace. Keep this file, and tell its operator.",
            )
        retired = self.keys.retired_signer(checkpoint)
        if retired is not None and checkpoint.size > retired.size:
            raise LogInconsistent(
                "what was seen here was signed with a key that the log had given up: somebody else has it.",
                file=str(self._folder / name),
                expected=f"at most {retired.size} entries",
                found=f"{checkpoint.size} entries",
                fix="Keep this file and tell the marketplace's operator; then move it away.",
            )
        with contextlib.suppress(VerificationFailed):
            return self.keys.open(body)
        return None

    def _remember(self, name: str, checkpoint: Checkpoint) -> None:
        stored = self._stored(name)
        if stored is None or stored.to_bytes() != checkpoint.to_bytes():
            write_durably(self._folder / name, checkpoint.to_bytes())

    def _proof_file(self, plugin: str, version: str) -> Path:
        return self._folder / "proofs" / quote(f"{plugin}@{version}", "")

    def _entry_file(self, index: int) -> Path:
        return self._folder / "entries" / str(index)

    def _fetch_checkpoint(self, path: str) -> Checkpoint:
        return self.keys.open(self._fetch(path, MAX_NOTE_BYTES))

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


def _known(checkpoint: Checkpoint) -> str:
    return f"known/{checkpoint.size}"


def _read(path: Path) -> bytes | None:
    try:
        return path.read_bytes()
    except FileNotFoundError:
        return None
