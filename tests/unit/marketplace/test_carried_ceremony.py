"""A change of keys goes from signer to signer as a file: no media meet, and too few signatures change nothing."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import typer
from typer.testing import CliRunner

from kernel.errors import Conflict, NotFound, ValidationFailed
from kernel.settings import Settings
from marketplace.carried import Carried, CarriedCeremony, keys_on, read_carried
from marketplace.ceremony import create_key
from marketplace.cli import register
from marketplace.client import MarketplaceClient
from marketplace.connect import registry_folder
from marketplace.errors import KeyMissing, SignatureInvalid
from marketplace.keys import KeyFolder
from marketplace.passphrases import OnePassphrase
from marketplace.registry import Registry
from marketplace.registry.metadata import MetadataRows
from marketplace.transport import RegistryTransport
from marketplace.tuf_repository import RepositoryKeys
from plugin_sdk.terminal import CommandTree

End = Callable[..., Any]
WORDS = OnePassphrase("correct horse battery staple")


@pytest.fixture
def media(tmp_path: Path) -> list[Path]:
    return [tmp_path / "media" / name for name in ("a", "b", "c", "targets")]


@pytest.fixture
def at_home(registry: Registry, media: list[Path], tmp_path: Path, clock: Any) -> End:
    """Works where the marketplace is, after the first ceremony: it has no offline key and no medium."""
    with registry._tables.write() as connection:
        keys = RepositoryKeys(tmp_path / "registry" / "keys", WORDS)
        ceremony = CarriedCeremony(keys, clock, media[:3])
        table = MetadataRows(connection, clock.now())
        ceremony.rotate_root(table, ceremony.status(table)[0].keys, media[:3])
        ceremony.rotate_targets(table, media[3])
    shutil.rmtree(tmp_path / "registry" / "keys" / "offline")

    def work(do: Callable[[CarriedCeremony, MetadataRows], Any]) -> Any:
        with registry._tables.write() as connection:
            keys = RepositoryKeys(tmp_path / "registry" / "keys")
            return do(CarriedCeremony(keys, clock), MetadataRows(connection, clock.now()))

    return work


def key_of(medium: Path) -> str:
    return KeyFolder(medium).public(KeyFolder(medium).names()[0]).keyid


def signed_by(carried: Carried, *media: Path) -> Carried:
    """The file after it has been to each of ``media``, at a place of its own."""
    for medium in media:
        carried = read_carried(carried.to_bytes())
        carried.sign(keys_on([medium], carried.asked(), WORDS))
    return read_carried(carried.to_bytes())


async def trusts(registry: Registry, folder: Path) -> int:
    """The root that a newcomer with the first one follows to; raises if it refuses."""
    await MarketplaceClient(RegistryTransport(registry.reader), folder, registry.trusted_root).revocations()
    return root_in(folder)


def root_in(cache: Path) -> int:
    (metadata,) = cache.glob("*/metadata/root.json")
    version: int = json.loads(metadata.read_bytes())["signed"]["version"]
    return version


async def test_a_root_key_is_replaced_by_two_who_do_not_meet(
    registry: Registry, at_home: End, media: list[Path], tmp_path: Path
) -> None:
    lost, new = key_of(media[2]), create_key(tmp_path / "d", "root", WORDS)
    carried = at_home(lambda c, t: c.propose(t, "root", [lost[:16]], [new.public]))
    assert carried.changes() == {"root": ((lost,), (new.id,))}
    assert [each.needed for each in carried.missing()] == [2, 2]
    for so_far in (carried, signed_by(carried, media[0]), signed_by(carried, media[0], media[2])):
        with pytest.raises(SignatureInvalid, match="everybody who must"):
            at_home(lambda c, t, so_far=so_far: c.submit(t, so_far))
    whole = signed_by(carried, media[0], media[1])
    assert whole.missing() == []
    rotation = at_home(lambda c, t: c.submit(t, whole))
    assert (rotation.retired, rotation.added, rotation.root) == ((lost,), (new.id,), 4)
    assert await trusts(registry, tmp_path / "client") == 4
    with pytest.raises(Conflict, match="has changed since"):
        at_home(lambda c, t: c.submit(t, whole))


async def test_the_targets_key_is_replaced_with_the_word_of_the_new_one(
    registry: Registry, at_home: End, media: list[Path], tmp_path: Path
) -> None:
    new = create_key(tmp_path / "d", "targets", WORDS)
    carried = at_home(lambda c, t: c.propose(t, "targets", [], [new.public]))
    half = signed_by(carried, media[0], media[1])
    (missing,) = half.missing()
    assert (missing.reason, missing.keys) == ("the targets", (new.id,))
    # What was left out on the way is missed: the new root would have no targets that it vouches for.
    with pytest.raises(SignatureInvalid, match="nothing is signed by the new one"):
        at_home(lambda c, t: c.submit(t, Carried("targets", half.before, half.root)))
    at_home(lambda c, t: c.submit(t, signed_by(half, tmp_path / "d")))
    assert await trusts(registry, tmp_path / "client") == 4


@pytest.mark.parametrize("role", ["snapshot", "timestamp"])
async def test_an_online_key_counts_once_two_have_signed_for_it(
    registry: Registry, at_home: End, media: list[Path], tmp_path: Path, role: str
) -> None:
    carried = at_home(lambda c, t: c.propose(t, role, [], []))
    assert await trusts(registry, tmp_path / "before") == 3
    at_home(lambda c, t: c.submit(t, signed_by(carried, media[1], media[2])))
    assert await trusts(registry, tmp_path / "after") == 4
    ((_, (fresh,)),) = carried.changes().values()
    assert {r.role: r.at_hand for r in at_home(lambda c, t: c.status(t))}[role] == (fresh,)


async def test_a_file_that_was_changed_on_the_way_is_good_for_nothing(at_home: End, media: list[Path]) -> None:
    carried = at_home(lambda c, t: c.propose(t, "timestamp", [], []))
    whole = json.loads(signed_by(carried, media[0], media[1]).to_bytes())
    for part, name, value in (("roles", "root", {"threshold": 1}), ("expires", None, "2099-01-01T00:00:00Z")):
        said = json.loads(json.dumps(whole))
        if name is None:
            said["root"]["signed"][part] = value
        else:
            said["root"]["signed"][part][name] |= value
        forged = read_carried(json.dumps(said).encode())
        with pytest.raises(SignatureInvalid, match="everybody who must"):
            at_home(lambda c, t, forged=forged: c.submit(t, forged))
    # And who signs it anew sees what was changed.
    said = json.loads(carried.to_bytes())
    said["root"]["signed"]["roles"]["root"]["threshold"] = 1
    assert read_carried(json.dumps(said).encode()).thresholds() == {"root": (2, 1)}
    said["before"]["signed"]["roles"]["root"]["threshold"] = 1
    for nonsense in (json.dumps(said).encode(), b"{}", b"[", json.dumps({**whole, "before": whole["root"]}).encode()):
        with pytest.raises(ValidationFailed, match="no change of the marketplace's keys"):
            read_carried(nonsense)


async def test_only_what_is_asked_for_is_signed_and_only_what_several_sign_is_carried(
    at_home: End, media: list[Path], tmp_path: Path
) -> None:
    carried = at_home(lambda c, t: c.propose(t, "timestamp", [], []))
    with pytest.raises(KeyMissing, match="None of the keys at hand"):
        signed_by(carried, media[3])
    one = create_key(tmp_path / "d", "root", WORDS).public
    for role, replace, public in (
        ("bins", [], []),
        ("log", [], []),
        ("root", [], []),
        ("root", [key_of(media[0])], []),
        ("targets", [], []),
        ("timestamp", [], [one]),
        ("root", [key_of(media[0])] * 2, [one, create_key(tmp_path / "e", "root", WORDS).public]),
        ("root", [key_of(media[0])], [KeyFolder(media[1]).public("root-1")]),
    ):
        with pytest.raises(ValidationFailed):
            at_home(lambda c, t, asked=(role, replace, public): c.propose(t, *asked))
    with pytest.raises(NotFound):
        at_home(lambda c, t: c.propose(t, "root", ["feedbeef"], [one]))


def test_the_commands_carry_a_change_between_three_places(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("KEELSTONE_MARKETPLACE_URL", raising=False)
    monkeypatch.setenv("KEELSTONE_KEY_PASSPHRASE", "correct horse battery staple")
    folder = registry_folder(Settings(home=tmp_path / "home"))
    Registry.open(folder)._tables.close()
    tree = typer.Typer()
    register(CommandTree(tree, lambda: pytest.fail("a ceremony asks no platform")))

    def run(*words: str | Path, home: str = "home", code: int = 0) -> Any:
        monkeypatch.setenv("KEELSTONE_HOME", str(tmp_path / home))
        result = CliRunner().invoke(tree, ["marketplace", "ceremony", *map(str, words)])
        assert result.exit_code == code, result.output
        return result

    a, b, c, t, d = (tmp_path / name for name in "abctd")
    run("begin", "--root-key", a, "--root-key", b, "--root-key", c, "--targets-key", t, "--yes")
    shutil.rmtree(folder / "keys" / "offline")
    file, public = tmp_path / "change.json", tmp_path / "d.pub.json"
    new = json.loads(run("key", d, "--out", public, "--yes", "--json", home="dora").stdout)["key"]
    proposed = run("propose", "root", "--replace", key_of(c)[:16], "--public", public, "--out", file)
    assert "ceremony sign change.json` by 2 of" in proposed.stdout
    assert "everybody who must" in run("submit", file, code=3).output
    run("sign", file, "--media", a, "--yes", home="ada")
    signed = json.loads(run("sign", file, "--media", b, "--yes", "--json", home="ben").stdout)
    assert (signed["missing"], signed["changes"]["root"]["added"]) == ([], [new])
    assert not any((tmp_path / name).exists() for name in ("ada", "ben"))
    assert json.loads(run("submit", file, "--json").stdout)["added"] == [new]
    assert new in json.loads(run("status", "--media", d, "--json").stdout)[0]["at_hand"]
    assert "no public key" in run("propose", "targets", "--public", a / "root-1.pem", "--out", file, code=1).output
