"""The Merkle tree of RFC 6962: hashes, proofs, and their verification. Pure functions over bytes.

A tree of ``size`` leaves is never held here. Proofs are made from the hashes of its perfect subtrees, which a
:class:`Nodes` hands over (``tiles.TileNodes`` reads them from tiles): a few for each level, however large it is.

Sources: RFC 6962, section 2.1 (hashes and proofs); RFC 9162, sections 2.1.3.2 and 2.1.4.2 (verification).
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Protocol

HASH_BYTES = 32
EMPTY_ROOT = hashlib.sha256(b"").digest()
"""The root of a tree without leaves."""


class Nodes(Protocol):
    """The stored hashes of a tree."""

    def __call__(self, height: int, number: int) -> bytes:
        """The hash of the perfect subtree over the leaves from ``number << height`` to ``(number + 1) << height``."""
        ...


def leaf_hash(entry: bytes) -> bytes:
    """The hash of one leaf."""
    return hashlib.sha256(b"\x00" + entry).digest()


def node_hash(left: bytes, right: bytes) -> bytes:
    """The hash of a node over its two children."""
    return hashlib.sha256(b"\x01" + left + right).digest()


def root_hash(size: int, nodes: Nodes) -> bytes:
    """The root of the first ``size`` leaves."""
    return _range(0, size, nodes) if size else EMPTY_ROOT


def perfect_root(hashes: Sequence[bytes]) -> bytes:
    """The root over the hashes of equally high subtrees, whose number is a power of two."""
    row = list(hashes)
    while len(row) > 1:
        row = [node_hash(row[at], row[at + 1]) for at in range(0, len(row), 2)]
    return row[0]


def subtrees(size: int) -> list[tuple[int, int]]:
    """The perfect subtrees (height, number) that a tree consists of, from left to right."""
    found, start = [], 0
    for height in reversed(range(size.bit_length())):
        if size >> height & 1:
            found.append((height, start >> height))
            start += 1 << height
    return found


class CompactRange:
    """The least that is needed to go on appending to a tree: one hash for each set bit of its size."""

    def __init__(self, size: int = 0, hashes: Sequence[bytes] = ()) -> None:
        """``hashes`` are those of ``subtrees(size)``."""
        if len(hashes) != size.bit_count():
            raise ValueError(f"a tree of {size} leaves has {size.bit_count()} perfect subtrees, not {len(hashes)}")
        self.size, self._hashes = size, list(hashes)

    def append(self, leaf: bytes) -> None:
        """Add a leaf, by its hash."""
        rest = self.size
        while rest & 1:
            leaf = node_hash(self._hashes.pop(), leaf)
            rest >>= 1
        self._hashes.append(leaf)
        self.size += 1

    def root(self) -> bytes:
        """The root of what was appended so far."""
        if not self._hashes:
            return EMPTY_ROOT
        *others, found = self._hashes
        for left in reversed(others):
            found = node_hash(left, found)
        return found


def inclusion_proof(index: int, size: int, nodes: Nodes) -> list[bytes]:
    """The proof that leaf ``index`` is in the tree of ``size`` leaves, from the leaf upwards.

    Raises ValueError if there is no such leaf.
    """
    if not 0 <= index < size:
        raise ValueError(f"leaf {index} of a tree with {size}")
    low, high, proof = 0, size, []
    while high - low > 1:
        middle = low + _split(high - low)
        if index < middle:
            proof.append(_range(middle, high, nodes))
            high = middle
        else:
            proof.append(_range(low, middle, nodes))
            low = middle
    return proof[::-1]


def consistency_proof(old: int, new: int, nodes: Nodes) -> list[bytes]:
    """The proof that the tree of ``new`` leaves begins with the tree of ``old`` leaves.

    Empty if they are the same or ``old`` is 0. Raises ValueError if ``old`` is the larger one.
    """
    if not 0 <= old <= new:
        raise ValueError(f"a tree of {new} leaves does not begin with one of {old}")
    if old in (0, new):
        return []
    low, high, proof = 0, new, []
    while old != high:
        middle = low + _split(high - low)
        if old <= middle:
            proof.append(_range(middle, high, nodes))
            high = middle
        else:
            proof.append(_range(low, middle, nodes))
            low = middle
    if low:
        # The old tree's right edge; if it began at 0, it would be the old root, which whoever verifies has.
        proof.append(_range(low, high, nodes))
    return proof[::-1]


def verify_inclusion(index: int, size: int, leaf: bytes, proof: Sequence[bytes], root: bytes) -> bool:
    """Whether ``proof`` shows that the leaf with hash ``leaf`` is number ``index`` of the tree with ``root``."""
    if not 0 <= index < size:
        return False
    at, last, found = index, size - 1, leaf
    for sibling in proof:
        if not last:
            return False
        if at & 1 or at == last:
            found = node_hash(sibling, found)
            while not at & 1 and at:
                at, last = at >> 1, last >> 1
        else:
            found = node_hash(found, sibling)
        at, last = at >> 1, last >> 1
    return not last and found == root


def verify_consistency(old: int, new: int, old_root: bytes, new_root: bytes, proof: Sequence[bytes]) -> bool:
    """Whether ``proof`` shows that the tree with ``new_root`` begins with the tree with ``old_root``."""
    if old == new:
        return not proof and old_root == new_root
    if not 0 <= old < new:
        return False
    if old == 0:
        return not proof and old_root == EMPTY_ROOT
    hashes = list(proof)
    if old & (old - 1) == 0:
        hashes.insert(0, old_root)
    if not hashes:
        return False
    at, last = old - 1, new - 1
    while at & 1:
        at, last = at >> 1, last >> 1
    before = after = hashes[0]
    for sibling in hashes[1:]:
        if not last:
            return False
        if at & 1 or at == last:
            before, after = node_hash(sibling, before), node_hash(sibling, after)
            while not at & 1 and at:
                at, last = at >> 1, last >> 1
        else:
            after = node_hash(after, sibling)
        at, last = at >> 1, last >> 1
    return not last and before == old_root and after == new_root


def _split(size: int) -> int:
    """The largest power of two below ``size``."""
    return 1 << (size - 1).bit_length() - 1


def _range(low: int, high: int, nodes: Nodes) -> bytes:
    """The hash over the leaves from ``low`` to ``high``, a range that the tree's own splits make."""
    size = high - low
    if size & (size - 1) == 0:
        height = size.bit_length() - 1
        return nodes(height, low >> height)
    middle = low + _split(size)
    return node_hash(_range(low, middle, nodes), _range(middle, high, nodes))
