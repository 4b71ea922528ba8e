"""The tree: RFC 6962's own numbers, and a naive tree beside ours for whatever Hypothesis thinks of."""

from __future__ import annotations

import hashlib
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from marketplace.log.tiles import (
    GrowingTiles,
    Tile,
    TileNodes,
    read_bundle,
    read_path,
    tails_of,
    width_at,
    write_bundle,
)
from marketplace.log.tree import (
    EMPTY_ROOT,
    CompactRange,
    consistency_proof,
    inclusion_proof,
    leaf_hash,
    node_hash,
    root_hash,
    subtrees,
    verify_consistency,
    verify_inclusion,
)

# The reference vectors of Certificate Transparency: eight leaves, the root after each, and some proofs.
LEAVES = [bytes.fromhex(each) for each in (
    "", "00", "10", "2021", "3031", "40414243", "5051525354555657", "606162636465666768696a6b6c6d6e6f",
)]  # fmt: skip
ROOTS = [
    "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d",
    "fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125",
    "aeb6bcfe274b70a14fb067a5e5578264db0fa9b51af5e0ba159158f329e06e77",
    "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
    "4e3bbb1f7b478dcfe71fb631631519a3bca12c9aefca1612bfce4c13a86264d4",
    "76e67dadbcdf1e10e1b74ddc608abd2f98dfb16fbce75277b5232a127f2087ef",
    "ddb89be403809e325750d3d263cd78929c2942b7942a34b77e122c9594a74c8c",
    "5dc9da79a70659a9ad559cb701ded9a2ab9d823aad2f4960cfe370eff4604328",
]
CONSISTENCY = {
    (1, 1): [],
    (1, 8): [
        "96a296d224f285c67bee93c30f8a309157f0daa35dc5b87e410b78630a09cfc7",
        "5f083f0a1a33ca076a95279832580db3e0ef4584bdff1f54c8a360f50de3031e",
        "6b47aaf29ee3c2af9af889bc1fb9254dabd31177f16232dd6aab035ca39bf6e4",
    ],
    (6, 8): [
        "0ebc5d3437fbe2db158b9f126a1d118e308181031d0a949f8dededebc558ef6a",
        "ca854ea128ed050b41b35ffc1b87b8eb2bde461e9e3b5596ece6b9d5975a0ae0",
        "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
    ],
    (2, 5): [
        "5f083f0a1a33ca076a95279832580db3e0ef4584bdff1f54c8a360f50de3031e",
        "bc1a0643b12e4d2d7c77918f44e0f4f79a838b6cf9ec5b5c283e1f4d88599e6b",
    ],
}
INCLUSION = {
    (0, 1): [],
    (0, 8): [
        "96a296d224f285c67bee93c30f8a309157f0daa35dc5b87e410b78630a09cfc7",
        "5f083f0a1a33ca076a95279832580db3e0ef4584bdff1f54c8a360f50de3031e",
        "6b47aaf29ee3c2af9af889bc1fb9254dabd31177f16232dd6aab035ca39bf6e4",
    ],
    (5, 8): [
        "bc1a0643b12e4d2d7c77918f44e0f4f79a838b6cf9ec5b5c283e1f4d88599e6b",
        "ca854ea128ed050b41b35ffc1b87b8eb2bde461e9e3b5596ece6b9d5975a0ae0",
        "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
    ],
    (2, 3): ["fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125"],
    (1, 5): [
        "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d",
        "5f083f0a1a33ca076a95279832580db3e0ef4584bdff1f54c8a360f50de3031e",
        "bc1a0643b12e4d2d7c77918f44e0f4f79a838b6cf9ec5b5c283e1f4d88599e6b",
    ],
}


def naive_root(leaves: list[bytes]) -> bytes:
    """RFC 6962, section 2.1, word for word."""
    if not leaves:
        return hashlib.sha256(b"").digest()
    if len(leaves) == 1:
        return hashlib.sha256(b"\0" + leaves[0]).digest()
    k = 1
    while k * 2 < len(leaves):
        k *= 2
    return hashlib.sha256(b"\1" + naive_root(leaves[:k]) + naive_root(leaves[k:])).digest()


def naive_path(m: int, leaves: list[bytes]) -> list[bytes]:
    """RFC 6962, section 2.1.1."""
    if len(leaves) == 1:
        return []
    k = 1
    while k * 2 < len(leaves):
        k *= 2
    if m < k:
        return [*naive_path(m, leaves[:k]), naive_root(leaves[k:])]
    return [*naive_path(m - k, leaves[k:]), naive_root(leaves[:k])]


def naive_consistency(m: int, leaves: list[bytes], whole: bool = True) -> list[bytes]:
    """RFC 6962, section 2.1.2."""
    if m == len(leaves):
        return [] if whole else [naive_root(leaves)]
    k = 1
    while k * 2 < len(leaves):
        k *= 2
    if m <= k:
        return [*naive_consistency(m, leaves[:k], whole), naive_root(leaves[k:])]
    return [*naive_consistency(m - k, leaves[k:], False), naive_root(leaves[:k])]


class Shelf:
    """Tiles in memory, grown as a registry grows them: loaded, appended to, and stored, batch by batch."""

    def __init__(self) -> None:
        self.size = 0
        self.tiles: dict[tuple[int, int], bytes] = {}
        self.loaded = 0

    def add(self, leaves: list[bytes]) -> bytes:
        tails = {level: self.tiles[level, number] for level, number in tails_of(self.size)}
        self.loaded += len(tails)
        growing = GrowingTiles(self.size, tails)
        for leaf in leaves:
            growing.append(leaf_hash(leaf))
        self.tiles |= growing.changed()
        self.size = growing.size
        return growing.root()

    def read(self, place: Tile) -> bytes:
        assert place.level is not None
        return self.tiles[place.level, place.number][: place.width * 32]

    def nodes(self, size: int | None = None) -> TileNodes:
        return TileNodes(self.size if size is None else size, self.read)


def shelf_of(leaves: list[bytes]) -> Shelf:
    shelf = Shelf()
    shelf.add(leaves)
    return shelf


def many(count: int) -> list[bytes]:
    return [number.to_bytes(4, "big") for number in range(count)]


# ------------------------------------------------------------------------------ reference vectors


def test_the_roots_are_those_of_the_reference() -> None:
    shelf, tree = Shelf(), CompactRange()
    assert root_hash(0, shelf.nodes()) == tree.root() == EMPTY_ROOT == naive_root([])
    for leaf, root in zip(LEAVES, ROOTS, strict=True):
        tree.append(leaf_hash(leaf))
        assert shelf.add([leaf]).hex() == tree.root().hex() == root_hash(shelf.size, shelf.nodes()).hex() == root


@pytest.mark.parametrize(("old", "new"), CONSISTENCY)
def test_the_consistency_proofs_are_those_of_the_reference(old: int, new: int) -> None:
    proof = consistency_proof(old, new, shelf_of(LEAVES[:new]).nodes())
    assert [each.hex() for each in proof] == CONSISTENCY[old, new]
    assert verify_consistency(old, new, bytes.fromhex(ROOTS[old - 1]), bytes.fromhex(ROOTS[new - 1]), proof)


@pytest.mark.parametrize(("index", "size"), INCLUSION)
def test_the_inclusion_proofs_are_those_of_the_reference(index: int, size: int) -> None:
    proof = inclusion_proof(index, size, shelf_of(LEAVES[:size]).nodes())
    assert [each.hex() for each in proof] == INCLUSION[index, size]
    assert verify_inclusion(index, size, leaf_hash(LEAVES[index]), proof, bytes.fromhex(ROOTS[size - 1]))


# ------------------------------------------------------------------------------ beside a naive tree


@given(st.lists(st.binary(max_size=6), min_size=1, max_size=70), st.data())
def test_proofs_are_those_of_a_naive_tree_and_verify(leaves: list[bytes], data: st.DataObject) -> None:
    new = len(leaves)
    old, index = data.draw(st.integers(1, new)), data.draw(st.integers(0, new - 1))
    nodes, root = shelf_of(leaves).nodes(), naive_root(leaves)
    path, grown = inclusion_proof(index, new, nodes), consistency_proof(old, new, nodes)
    assert path == naive_path(index, leaves)
    assert grown == naive_consistency(old, leaves)
    assert verify_inclusion(index, new, leaf_hash(leaves[index]), path, root)
    assert verify_consistency(old, new, naive_root(leaves[:old]), root, grown)


@given(st.integers(1, 600), st.integers(0, 600), st.data())
def test_a_proof_that_was_changed_anywhere_proves_nothing(size: int, index: int, data: st.DataObject) -> None:
    index %= size
    leaves = many(size)
    nodes = shelf_of(leaves).nodes()
    root, leaf = root_hash(size, nodes), leaf_hash(leaves[index])
    path = inclusion_proof(index, size, nodes)
    other = data.draw(st.integers(0, size - 1).filter(lambda number: number != index)) if size > 1 else None
    assert not verify_inclusion(index, size, leaf_hash(b"else"), path, root)
    assert not verify_inclusion(index, size, leaf, [*path, root], root)
    assert not verify_inclusion(index, size, leaf, path, EMPTY_ROOT)
    assert not verify_inclusion(size, size, leaf, path, root)
    assert not verify_inclusion(-1, size, leaf, path, root)
    if other is not None:
        assert not verify_inclusion(other, size, leaf, path, root)
        assert not verify_inclusion(index, size, leaf, path[:-1], root)
        at = data.draw(st.integers(0, len(path) - 1))
        assert not verify_inclusion(index, size, leaf, [*path[:at], EMPTY_ROOT, *path[at + 1 :]], root)


@given(st.integers(1, 600), st.integers(1, 600))
def test_consistency_is_shown_to_the_same_beginning_only(first: int, second: int) -> None:
    old, new = sorted((first, second))
    leaves = many(new)
    nodes = shelf_of(leaves).nodes()
    before, after = naive_root(leaves[:old]), root_hash(new, nodes)
    proof = consistency_proof(old, new, nodes)
    assert verify_consistency(old, new, before, after, proof)
    other = naive_root([*leaves[: old - 1], b"else"])
    assert not verify_consistency(old, new, other, after, proof)
    assert not verify_consistency(old, new, before, other, proof)
    assert not verify_consistency(old, new, before, after, [*proof, after])
    if proof:
        assert not verify_consistency(old, new, before, after, proof[:-1])
        assert not verify_consistency(old, new, before, after, [])
    if old < new:
        assert not verify_consistency(new, old, after, before, proof)
        with pytest.raises(ValueError, match="does not begin"):
            consistency_proof(new, old, nodes)


@given(st.lists(st.integers(0, 400), min_size=1, max_size=6))
def test_a_log_grows_to_the_same_in_whatever_batches(batches: list[int]) -> None:
    leaves, shelf = many(sum(batches)), Shelf()
    for count in batches:
        root = shelf.add(leaves[shelf.size : shelf.size + count])
        assert root == naive_root(leaves[: shelf.size])
    assert shelf.tiles == shelf_of(leaves).tiles


@given(st.integers(0, 700), st.integers(0, 700))
def test_a_tree_can_be_taken_up_again_from_its_perfect_subtrees(first: int, second: int) -> None:
    old, new = sorted((first, second))
    leaves = many(new)
    nodes = shelf_of(leaves).nodes()
    tree = CompactRange(old, [nodes(height, number) for height, number in subtrees(old)])
    for leaf in leaves[old:]:
        tree.append(leaf_hash(leaf))
    assert tree.root() == naive_root(leaves)


def test_a_larger_log_has_tiles_on_several_levels() -> None:
    leaves = many(70_000)
    shelf = shelf_of(leaves)
    for level, number, width in (
        (0, 272, 256),
        (0, 273, 112),
        (1, 0, 256),
        (1, 1, 17),
        (2, 0, 1),
        (2, 1, 0),
        (3, 0, 0),
    ):
        assert width_at(70_000, level, number) == width
        assert len(shelf.tiles.get((level, number), b"")) == width * 32
    root = root_hash(70_000, shelf.nodes())
    for index in (0, 255, 256, 65_535, 65_536, 69_999):
        proof = inclusion_proof(index, 70_000, shelf.nodes())
        assert verify_inclusion(index, 70_000, leaf_hash(leaves[index]), proof, root)
    roots = {size: root_hash(size, shelf.nodes(size)) for size in (1, 256, 257, 65_536, 65_537, 70_000)}
    for old, new in pairwise(roots):
        assert verify_consistency(old, new, roots[old], roots[new], consistency_proof(old, new, shelf.nodes(new)))


def test_adding_to_a_long_log_reads_one_tile_a_level() -> None:
    shelf = shelf_of(many(70_000))
    shelf.loaded = 0
    before = dict(shelf.tiles)
    shelf.add([b"one more"])
    assert shelf.loaded == 3
    assert [place for place in shelf.tiles if shelf.tiles[place] != before.get(place)] == [(0, 273)]


def test_every_log_begins_with_the_empty_one() -> None:
    root = naive_root(many(5))
    assert consistency_proof(0, 5, shelf_of(many(5)).nodes()) == []
    assert verify_consistency(0, 5, EMPTY_ROOT, root, [])
    assert not verify_consistency(0, 5, root, root, [])
    assert not verify_consistency(0, 5, EMPTY_ROOT, root, [root])


def test_a_leaf_does_not_pass_for_a_node() -> None:
    left, right = leaf_hash(b"a"), leaf_hash(b"b")
    assert leaf_hash(left + right) != node_hash(left, right)


# ------------------------------------------------------------------------------ tiles


def test_tiles_have_the_paths_of_the_standard() -> None:
    assert Tile(0, 1_234_067).path == "tile/0/x001/x234/067"
    assert Tile(63, 5, 8).path == "tile/63/005.p/8"
    assert Tile(None, 999, 255).path == "tile/entries/999.p/255"
    assert Tile(None, 1000).path == "tile/entries/x001/000"


@given(st.none() | st.integers(0, 63), st.integers(0, 10**15), st.integers(1, 256))
def test_every_tile_has_one_path(level: int | None, number: int, width: int) -> None:
    tile = Tile(level, number, width)
    assert read_path(tile.path) == tile


@pytest.mark.parametrize(
    "path",
    [
        *("tile/0/1", "tile/00/001", "tile/64/001", "tile/0/x000/001", "tile/-1/001", "tile/0/../001", "tile/0/001/"),
        *("tile/0/001.p", "tile/0/001.p/0", "tile/0/001.p/08", "tile/0/001.p/256", "tile/0/x1/001", "checkpoint", ""),
        "tile/0/\u0660\u0660\u0661",
    ],
)
def test_other_paths_are_no_tiles(path: str) -> None:
    assert read_path(path) is None


@given(st.lists(st.binary(max_size=300), max_size=40))
def test_bundles_give_back_their_entries(entries: list[bytes]) -> None:
    body = write_bundle(entries)
    assert read_bundle(body, len(entries)) == entries
    with pytest.raises(ValueError, match="entries"):
        read_bundle(body, len(entries) + 1)
    if body:
        with pytest.raises(ValueError, match="entr"):
            read_bundle(body[:-1], len(entries))


def test_an_entry_too_long_for_a_bundle_is_refused() -> None:
    with pytest.raises(ValueError, match="65536"):
        write_bundle([bytes(65_536)])


def test_a_tile_of_the_wrong_size_is_refused() -> None:
    with pytest.raises(ValueError, match="bytes"):
        root_hash(3, TileNodes(3, lambda place: bytes(64)))
    with pytest.raises(ValueError, match="leaf 3"):
        inclusion_proof(3, 3, TileNodes(3, lambda place: bytes(96)))
    with pytest.raises(ValueError, match="perfect subtrees"):
        CompactRange(3, [bytes(32)])
