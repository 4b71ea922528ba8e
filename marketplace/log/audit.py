"""Following a log: that it only ever grew, and what it says that is new.

Whoever remembers a checkpoint sees from the next one whether the log still begins with what it began with. Recomputing
the root over all new entries shows that these entries, and no others, are what the checkpoint was signed over.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from marketplace.errors import LogInconsistent, VerificationFailed
from marketplace.log.checkpoint import Checkpoint
from marketplace.log.entry import Entry, read_entry
from marketplace.log.tiles import WIDTH, ReadTile, Tile, TileNodes, read_bundle
from marketplace.log.tree import CompactRange, consistency_proof, leaf_hash, subtrees, verify_consistency

Pick = Callable[[Entry], bool]
UNREADABLE = "unreadable"
NEWEST = 10
_TELL = (
    "Install nothing from this marketplace. Keep both checkpoints, tell its operator, and compare with what others saw."
)


@dataclass(slots=True)
class Audit:
    """What following a log found: ``entries`` new ones since ``before`` (0: from its beginning)."""

    before: int
    checkpoint: Checkpoint
    kinds: Counter[str] = field(default_factory=Counter)
    newest: deque[tuple[int, Entry]] = field(default_factory=lambda: deque(maxlen=NEWEST))
    """The newest of those that were asked for, oldest first, with their indexes."""
    claims: list[tuple[int, Entry]] = field(default_factory=list)
    """Entries that were to be compared with what the marketplace lists."""
    problems: list[str] = field(default_factory=list)
    """Entries that contradict each other or what the marketplace lists, or cannot be read; in words."""

    @property
    def entries(self) -> int:
        """How many entries are new."""
        return self.checkpoint.size - self.before


def check_extends(old: Checkpoint, new: Checkpoint, read: ReadTile) -> None:
    """Check that the log at ``new`` begins with the log at ``old``. ``read`` gets tiles of the log at ``new``.

    Raises LogInconsistent: forked (two roots for one size, or another beginning) or shortened.
    """
    seen = f"{old.size} entries, root {old.root.hex()[:16]}"
    shown = f"{new.size} entries, root {new.root.hex()[:16]}"
    if new.size < old.size:
        raise LogInconsistent("the log is shorter than it was.", expected=f"at least {seen}", found=shown, fix=_TELL)
    if new.size == old.size and new.root != old.root:
        raise LogInconsistent("the log was forked: one size, two roots.", expected=seen, found=shown, fix=_TELL)
    try:
        proof = consistency_proof(old.size, new.size, TileNodes(new.size, read))
    except ValueError as error:
        raise LogInconsistent(f"the log's tiles are damaged: {error}.", expected=shown, fix=_TELL) from error
    if not verify_consistency(old.size, new.size, old.root, new.root, proof):
        raise LogInconsistent(
            "the log was forked: it does not begin with what was shown here before.",
            expected=f"a log that begins with {seen}",
            found=shown,
            fix=_TELL,
        )


def follow(
    old: Checkpoint | None,
    new: Checkpoint,
    read: ReadTile,
    asked: Pick = lambda entry: True,
    claimed: Pick = lambda entry: False,
) -> Audit:
    """Check the log from ``old`` (None: its beginning) to ``new``, entry by entry.

    ``asked`` picks the entries that are shown, ``claimed`` those that are kept to be compared with the marketplace.
    Raises LogInconsistent, or VerificationFailed if the entries are not what the checkpoint was signed over.
    """
    start = old.size if old is not None else 0
    if old is not None:
        check_extends(old, new, read)
    nodes = TileNodes(new.size, read)
    tree = CompactRange(start, [nodes(height, number) for height, number in subtrees(start)])
    audit, published = Audit(start, new), dict[tuple[str | None, str | None], str]()
    for index, body in _entries(start, new.size, read):
        tree.append(leaf_hash(body))
        try:
            entry = read_entry(body)
        except ValueError as error:
            audit.kinds[UNREADABLE] += 1
            audit.problems.append(f"Entry {index} cannot be read: {error}.")
            continue
        audit.kinds[entry.kind] += 1
        if asked(entry):
            audit.newest.append((index, entry))
        if claimed(entry):
            audit.claims.append((index, entry))
        first = published.setdefault((entry.plugin, entry.version), entry.digest) if entry.kind == "publish" else None
        if first is not None and first != entry.digest:
            audit.problems.append(f"Entry {index} publishes {entry.plugin} {entry.version} again, with other bytes.")
    if tree.root() != new.root:
        raise VerificationFailed(
            "log",
            "the entries that the log shows are not those that its checkpoint was signed over.",
            expected=f"root {new.root.hex()[:16]}",
            found=f"root {tree.root().hex()[:16]}",
            fix=_TELL,
        )
    return audit


def _entries(start: int, size: int, read: ReadTile) -> Iterator[tuple[int, bytes]]:
    for number in range(start // WIDTH, -(-size // WIDTH)):
        first = number * WIDTH
        place = Tile(None, number, min(WIDTH, size - first))
        try:
            bundle = read_bundle(read(place), place.width)
        except ValueError as error:
            raise VerificationFailed("log", f"{place.path} cannot be read: {error}.", fix=_TELL) from error
        for at, body in enumerate(bundle):
            if first + at >= start:
                yield first + at, body
