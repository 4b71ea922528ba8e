"""The key ceremony: new keys on their media, every rotation, and what somebody with an old or stolen key can do."""

from __future__ import annotations

import json
import shutil
from collections.abc import Awaitable, Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import typer
from tuf.api.metadata import Metadata, Root, Timestamp
from typer.testing import CliRunner

from kernel.errors import NotFound, ValidationFailed
from kernel.settings import Settings
from marketplace.ceremony import ONLINE, Ceremony, Rotation
from marketplace.cli import register
from marketplace.client import MarketplaceClient
from marketplace.connect import registry_folder
from marketplace.errors import KeyMissing, VerificationFailed
from marketplace.registry import Registry
from marketplace.registry.metadata import MetadataRows
from marketplace.rehearsal import rehearse
from marketplace.transport import RegistryTransport
from marketplace.tuf_repository import MetadataTable, RepositoryKeys
from plugin_sdk.terminal import CommandTree

Bind = Callable[..., Awaitable[Any]]
Make = Callable[..., Any]
Rotate = Callable[[Callable[[Ceremony, MetadataTable], Any]], Any]


class Road(RegistryTransport):
    """A transport on which somebody replaces or hides what comes by."""

    def __init__(self, registry: Registry) -> None:
        super().__init__(registry.reader)
        self.replaced: dict[str, bytes] = {}

    def stream(self, path: str) -> Iterator[bytes]:
        if path in self.replaced:
            yield self.replaced[path]
        else:
            yield from super().stream(path)


@pytest.fixture
async def shop(registry: Registry, register: Bind, make_release: Make) -> Registry:
    await register(registry)
    signed = make_release(version="1.0.0")
    await registry.publish(signed.package.data, signed.envelope)
    return registry


@pytest.fixture
def media(tmp_path: Path) -> list[Path]:
    return [tmp_path / "media" / name for name in "abc"]


@pytest.fixture
def ceremony(shop: Registry, tmp_path: Path, media: list[Path], clock: Any) -> Rotate:
    """Does something in a ceremony, with keys of its own as another process has."""

    def do(work: Callable[[Ceremony, MetadataTable], Any], at: list[Path] | None = None) -> Any:
        held = [*(media if at is None else at), tmp_path / "media" / "targets"]
        with shop._tables.write() as connection:
            keys = RepositoryKeys(tmp_path / "registry" / "keys")
            return work(Ceremony(keys, clock, held), MetadataRows(connection, clock.now()))

    return do


@pytest.fixture
def begun(ceremony: Rotate, media: list[Path], tmp_path: Path) -> Rotation:
    """After the first ceremony: offline keys on their media, none on the machine."""

    def begin(each: Ceremony, table: MetadataTable) -> Rotation:
        root = each.status(table)[0]
        rotation = each.rotate_root(table, root.keys, media)
        each.rotate_targets(table, tmp_path / "media" / "targets")
        return rotation

    done: Rotation = ceremony(begin)
    shutil.rmtree(tmp_path / "registry" / "keys" / "offline")
    return done


def follower(shop: Registry, tmp_path: Path, name: str, road: Road | None = None) -> MarketplaceClient:
    return MarketplaceClient(road or Road(shop), tmp_path / name, shop.trusted_root)


async def refused(client: MarketplaceClient) -> str:
    with pytest.raises(VerificationFailed) as caught:
        await client.info("acme/guard")
    return caught.value.link


async def test_clients_follow_every_rotation_and_publishing_goes_on(
    shop: Registry, ceremony: Rotate, begun: Rotation, tmp_path: Path, make_release: Make
) -> None:
    old = follower(shop, tmp_path, "old")
    for number, role in enumerate(ONLINE, 1):
        before = {r.role: r for r in ceremony(lambda c, t: c.status(t))}
        rotation = ceremony(partial(Ceremony.rotate_online, role=role))
        after = {r.role: r for r in ceremony(lambda c, t: c.status(t))}
        assert rotation.retired == before[role].keys
        assert rotation.added == after[role].keys == after[role].at_hand
        assert not set(rotation.added) & set(rotation.retired)
        # The registry that was open all the time signs with the new keys.
        signed = make_release(version=f"1.{number}.0")
        await shop.publish(signed.package.data, signed.envelope)
        for client in (old, follower(shop, tmp_path, f"new-{role}")):
            assert (await client.fetch("acme/guard", f"1.{number}.0")).manifest.version == f"1.{number}.0"


async def test_root_rotation_gap_a_root_that_its_predecessor_did_not_sign_is_refused(
    shop: Registry, begun: Rotation, tmp_path: Path
) -> None:
    road = Road(shop)
    second = Metadata[Root].from_bytes(shop.reader.metadata("2.root.json") or b"")
    trusted = Metadata[Root].from_bytes(shop.trusted_root)
    assert len(set(second.signatures) & set(trusted.signed.roles["root"].keyids)) >= 2
    for keyid in trusted.signed.roles["root"].keyids:
        second.signatures.pop(keyid, None)
    # Signed by a threshold of its own keys alone: whoever trusts version 1 has no reason to believe it.
    second.signed.verify_delegate("root", second.signed_bytes, second.signatures)
    road.replaced["metadata/2.root.json"] = second.to_bytes()
    assert await refused(follower(shop, tmp_path, "client", road)) == "root"


async def test_root_rotation_gap_a_version_left_out_is_refused(shop: Registry, begun: Rotation, tmp_path: Path) -> None:
    road = Road(shop)
    road.replaced["metadata/2.root.json"] = shop.reader.metadata("3.root.json") or b""
    assert await refused(follower(shop, tmp_path, "client", road)) == "root"


async def test_stolen_online_key_signs_nothing_once_it_is_rotated(
    shop: Registry, ceremony: Rotate, begun: Rotation, tmp_path: Path
) -> None:
    stolen = RepositoryKeys(tmp_path / "registry" / "keys").online("timestamp")
    road = Road(shop)
    forged = Metadata[Timestamp].from_bytes(shop.reader.metadata("timestamp.json") or b"")
    forged.signed.version += 100
    forged.sign(stolen.signer)
    road.replaced["metadata/timestamp.json"] = forged.to_bytes()
    deceived = follower(shop, tmp_path, "deceived", road)
    await deceived.info("acme/guard")
    ceremony(lambda c, t: c.rotate_online(t, "timestamp"))
    assert await refused(deceived) == "timestamp"
    # And whoever had believed the thief's high version is not lost for the true one.
    road.replaced.clear()
    assert (await deceived.info("acme/guard")).latest == "1.0.0"


async def test_a_lost_machine_gets_new_online_keys_from_the_media(
    shop: Registry, ceremony: Rotate, begun: Rotation, tmp_path: Path
) -> None:
    old = follower(shop, tmp_path, "old")
    await old.info("acme/guard")
    for name in ("bins", "snapshot", "timestamp"):
        (tmp_path / "registry" / "keys" / "online" / f"{name}.pem").unlink()
    with pytest.raises(KeyMissing):
        ceremony(lambda c, t: c.rotate_online(t, "timestamp"))
    assert len(ceremony(lambda c, t: c.rotate_all(t))) == 3
    assert (await old.info("acme/guard")).latest == "1.0.0"


async def test_one_root_key_of_three_changes_nothing(
    shop: Registry, ceremony: Any, begun: Rotation, media: list[Path], tmp_path: Path
) -> None:
    before = shop.reader.metadata("root.json")
    for work in (
        lambda c, t: c.rotate_online(t, "snapshot"),
        lambda c, t: c.rotate_targets(t, tmp_path / "new"),
        lambda c, t: c.rotate_root(t, [begun.added[0]], [tmp_path / "new"]),
    ):
        with pytest.raises(KeyMissing, match="takes 2 of its 3"):
            ceremony(work, media[:1])
    assert shop.reader.metadata("root.json") == before


async def test_each_root_key_goes_onto_a_medium_of_its_own(ceremony: Rotate, begun: Rotation, tmp_path: Path) -> None:
    here = tmp_path / "here"
    with pytest.raises(ValidationFailed, match="medium of its own"):
        ceremony(lambda c, t: c.rotate_root(t, begun.added[:2], [here, here]))
    with pytest.raises(ValidationFailed, match="needs a place"):
        ceremony(lambda c, t: c.rotate_root(t, begun.added[:2], [here]))
    with pytest.raises(NotFound):
        ceremony(lambda c, t: c.rotate_root(t, ["feedbeef"], [here]))


async def test_a_rotation_that_fails_midway_leaves_the_registry_as_it_was(
    shop: Registry, ceremony: Rotate, begun: Rotation, tmp_path: Path, make_release: Make
) -> None:
    def fails(each: Ceremony, table: MetadataTable) -> None:
        each.rotate_all(table)
        raise RuntimeError("the power went off")

    with pytest.raises(RuntimeError):
        ceremony(fails)
    signed = make_release(version="1.1.0")
    await shop.publish(signed.package.data, signed.envelope)
    assert (await follower(shop, tmp_path, "client").info("acme/guard")).latest == "1.1.0"


def test_the_commands_begin_rotate_and_rehearse(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KEELSTONE_HOME", str(tmp_path / "home"))
    monkeypatch.delenv("KEELSTONE_MARKETPLACE_URL", raising=False)
    folder = registry_folder(Settings(home=tmp_path / "home"))
    Registry.open(folder)._tables.close()
    tree = typer.Typer()
    register(CommandTree(tree, lambda: pytest.fail("a ceremony asks no platform")))

    def run(*words: str | Path, given: str | None = None) -> Any:
        result = CliRunner().invoke(tree, ["marketplace", "ceremony", *map(str, words)], input=given)
        assert result.exit_code == 0, result.output
        return result

    a, b, c, d, kept = (tmp_path / name for name in ("a", "b", "c", "d", "kept"))
    run("begin", given=f"{a}\n{b}\n{c}\n{kept}\ny\n" + "\n" * 8)
    shutil.rmtree(folder / "keys" / "offline")
    held: list[str | Path] = ["--media", a, "--media", b, "--media", kept]
    state = {r["role"]: r for r in json.loads(run("status", *held, "--json").stdout)}
    assert (len(state["root"]["keys"]), len(state["root"]["at_hand"])) == (3, 2)
    (away,) = set(state["root"]["keys"]) - set(state["root"]["at_hand"])
    assert "2 of 3" in run("status", *held).stdout
    done = json.loads(run("rotate", "root", *held, "--replace", away[:16], "--onto", d, "--yes", "--json").stdout)
    assert done["retired"] == [away]
    for role in ("bins", "snapshot", "timestamp", "log", "receipts"):
        done = json.loads(run("rotate", role, *held, "--yes", "--json").stdout)
        assert (done["role"], set(done["retired"])) == (role, set(state[role]["keys"]))
    now = {r["role"]: r for r in json.loads(run("status", *held, "--json").stdout)}
    assert [(now[role]["version"], now[role]["expires"]) for role in ("log", "receipts")] == [(2, None)] * 2
    assert "never" in run("status").stdout
    before = {path: path.read_bytes() for path in folder.rglob("*.pem")}
    steps = json.loads(run("rehearse", "--json").stdout)
    assert [step for step in steps if not step["as_expected"]] == []
    assert {"a root key is lost", "an online key is stolen", "the machine is lost", "the timestamp expired"} <= {
        step["day"] for step in steps
    }
    assert {path: path.read_bytes() for path in folder.rglob("*.pem")} == before
    assert "✓ the machine is lost" in run("rehearse").stdout


def test_a_rehearsal_on_a_machine_whose_clock_is_late_says_that_clients_refuse(tmp_path: Path, clock: Any) -> None:
    Registry.open(tmp_path / "registry", clock=clock)._tables.close()
    clock.advance(-8)
    first = rehearse(tmp_path / "registry", clock)[0]
    assert not first.as_expected
    assert "a newcomer: refuses at timestamp" in first.seen
