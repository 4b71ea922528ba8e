"""Bundles: one file over an air gap, verified from the pinned root, taken in whole or not at all."""

from __future__ import annotations

import os
import struct
import zipfile
from collections.abc import Awaitable, Callable
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

from kernel.errors import KeelstoneError, NotFound
from marketplace.archive import write_archive
from marketplace.errors import (
    BundleCorrupt,
    BundleOutdated,
    LogInconsistent,
    ReleaseRevoked,
    ReleaseYanked,
    VerificationFailed,
)
from marketplace.keys import SigningKey, generate_key
from marketplace.mirror.bundle import BundleFile, BundleWriter
from marketplace.mirror.exporting import Exporter, Wanted, read_wanted
from marketplace.mirror.importing import import_bundle
from marketplace.namespaces import make_key_set, propose, sign_proposal
from marketplace.registry import Registry
from marketplace.registry.domains import DropDomain, VerifyDomain
from marketplace.signing import sign_yank
from marketplace.transport import RegistryTransport
from plugin_sdk.services import ReleaseOrigin
from tests.support.sites import Site, fork_of, published

Make = Callable[..., Any]
Bind = Callable[..., Awaitable[None]]
LIMIT = 1024 * 1024


class Gap:
    """Two marketplaces with nothing but a file between them."""

    def __init__(self, central: Registry, site: Site, folder: Path) -> None:
        self.central, self.site, self.folder = central, site, folder
        self.number = 0

    def export(
        self, *wanted: str, requirements: bool = False, packages: bool = True, of: Registry | None = None
    ) -> Path:
        self.number += 1
        out, source = self.folder / f"{self.number}.bundle", of or self.central
        cache = self.folder / f"cache-{id(source)}"
        exporter = Exporter(RegistryTransport(source.reader), cache, source.trusted_root, source.now, LIMIT)
        exporter.export(out, [read_wanted(each) for each in wanted], requirements=requirements, packages=packages)
        return out

    async def bring(self, bundle: Path, **options: Any) -> Any:
        root = None if self.site.registry.reader.upstreams.all() else self.central.trusted_root
        return await import_bundle(self.site.registry, bundle, **{"root": root, "name": "central", **options})


@pytest.fixture
async def gap(central: Registry, site: Site, tmp_path: Path) -> Gap:
    return Gap(central, site, tmp_path)


# ------------------------------------------------------------- the good way


async def test_a_new_owner_comes_in_a_bundle_without_a_release(
    gap: Gap, site: Site, central: Registry, key: SigningKey, tmp_path: Path
) -> None:
    await gap.bring(gap.export())
    client, buyer = site.client(tmp_path / "cache"), generate_key()
    proposed = propose(central.reader.key_set("acme"), [buyer.public], threshold=1, owner="Globex Ltd")
    await central.register_namespace(sign_proposal(proposed, [key, buyer]))
    await gap.bring(gap.export())
    found = (await client.stand_behind(["acme/guard"]))["acme/guard"]
    assert isinstance(found, ReleaseOrigin)
    assert (found.owner, found.signers) == (2, (buyer.id,))


async def test_what_is_verified_of_a_publisher_comes_in_a_bundle_and_lapses_with_the_next(
    gap: Gap, site: Site, central: Registry
) -> None:
    await central.commit(VerifyDomain("acme", "acme.example", b"{}", 0.0))
    await gap.bring(gap.export())
    assert site.registry.reader.index("acme/guard").domain == "acme.example"
    await central.commit(DropDomain("acme", "acme.example"))
    await gap.bring(gap.export())
    assert site.registry.reader.index("acme/guard").domain is None


async def test_a_bundle_brings_releases_that_platforms_verify_from_the_sites_own_root(
    gap: Gap, site: Site, tmp_path: Path
) -> None:
    outcome = await gap.bring(gap.export())
    assert sorted(outcome.released) == ["acme/guard 1.0.0", "acme/guard 1.1.0"]
    package = await site.client(tmp_path / "c").fetch("acme/guard", "1.0.0")
    assert any(line.startswith("upstream central: log entry") for line in package.chain)
    assert site.road.asked == []
    (upstream,) = site.registry.reader.upstreams.all()
    assert upstream.seen is not None
    assert (upstream.url, upstream.seen.way) == (None, "bundle")


async def test_importing_again_changes_nothing(gap: Gap, site: Site) -> None:
    bundle = gap.export()
    await gap.bring(bundle)
    before = site.registry.reader.metadata("timestamp.json")
    outcome = await gap.bring(bundle)
    assert (outcome.plugins, outcome.released, outcome.held) == ([], [], {})
    assert site.registry.reader.metadata("timestamp.json") == before


async def test_the_same_gives_the_same_bytes_and_any_unzip_tool_lists_it(gap: Gap) -> None:
    one, two = gap.export(), gap.export()
    assert one.read_bytes() == two.read_bytes()
    with zipfile.ZipFile(one) as archive:
        assert archive.testzip() is None
        assert archive.namelist()[0] == "bundle.json"


async def test_a_range_takes_what_fits_it_and_requirements_come_along_if_asked(
    gap: Gap, site: Site, central: Registry, make_release: Make
) -> None:
    needs = '[requires.plugins]\n"acme/guard" = "<1.1"\n'
    await published(central, make_release("acme/house", more=needs))
    alone = gap.export("acme/house@^1")
    assert (await gap.bring(alone)).released == ["acme/house 1.0.0"]
    outcome = await gap.bring(gap.export("acme/house", requirements=True))
    assert outcome.released == ["acme/guard 1.0.0"]
    with pytest.raises(NotFound, match="fits"):
        gap.export("acme/house@^2")
    with pytest.raises(NotFound, match="no plugin"):
        gap.export("acme/barn")
    assert read_wanted("acme/guard@>=1,<2") == Wanted("acme/guard", ">=1,<2")


async def test_later_bundles_bring_news_and_the_releases_of_another_part(
    gap: Gap, site: Site, central: Registry, make_release: Make, key: SigningKey, tmp_path: Path
) -> None:
    await gap.bring(gap.export("acme/guard@1.0.0"))
    fresh = generate_key()
    proposed = propose(central.reader.key_set("acme"), [fresh.public], threshold=1)
    await central.register_namespace(sign_proposal(proposed, [key, fresh]))
    await published(central, make_release(version="1.2.0", by=fresh))
    await central.revoke("acme/guard", "1.0.0", "It calls home.")
    outcome = await gap.bring(gap.export("acme/guard@>=1.1"))
    assert sorted(outcome.released) == ["acme/guard 1.1.0", "acme/guard 1.2.0"]
    assert outcome.revoked == ["acme/guard 1.0.0"]
    client = site.client(tmp_path / "c")
    for version in ("1.1.0", "1.2.0"):
        await client.fetch("acme/guard", version)
    with pytest.raises(ReleaseRevoked):
        await client.fetch("acme/guard", "1.0.0")


async def test_a_bundle_of_a_mirror_shows_all_three_chains(gap: Gap, site: Site, tmp_path: Path, clock: Any) -> None:
    await gap.bring(gap.export())
    bundle = gap.export(of=site.registry)
    outer = Site(tmp_path / "outer", site.registry, clock)
    await import_bundle(outer.registry, bundle, root=site.registry.trusted_root, name="middle")
    package = await outer.client(tmp_path / "c").fetch("acme/guard", "1.0.0")
    assert sum(": taken at " in line for line in package.chain) == 2
    await outer.registry.close()


async def test_proofs_alone_leave_the_packages_to_whoever_has_them(gap: Gap, site: Site, tmp_path: Path) -> None:
    await gap.bring(gap.export(packages=False))
    with pytest.raises(KeelstoneError, match="not in the bundle"):
        await site.client(tmp_path / "c").fetch("acme/guard", "1.0.0")
    await gap.bring(gap.export("acme/guard@1.0.0"))
    await site.client(tmp_path / "c").fetch("acme/guard", "1.0.0")


# ------------------------------------------------------------- attacks


async def test_rollback_a_bundle_older_than_the_last_one_is_refused_unless_asked(
    gap: Gap, site: Site, central: Registry, make_release: Make, key: SigningKey, tmp_path: Path
) -> None:
    # An older line, first, so that no rule holds it.
    await published(central, make_release("acme/latch"))
    digest = await second_line(central, make_release)
    old = gap.export("acme/guard")
    await central.yank(sign_yank("acme/guard", "0.9.0", digest, "it bites", key))
    await central.revoke("acme/guard", "1.0.0", "It calls home.")
    new = gap.export("acme/latch", "acme/guard@1.1.0")
    await gap.bring(new)
    await gap.bring(new)
    with pytest.raises(BundleOutdated, match="before what is known here"):
        await gap.bring(old)
    outcome = await gap.bring(old, older=True)
    # It brings what was missing, and nothing back: what was ended or withdrawn since is so as soon as it is here.
    assert sorted(outcome.released) == ["acme/guard 0.9.0", "acme/guard 1.0.0"]
    assert (outcome.revoked, outcome.withdrawn) == (["acme/guard 1.0.0"], ["acme/guard 1.0.0", "acme/guard 0.9.0"])
    client = site.client(tmp_path / "c")
    await client.fetch("acme/guard", "1.1.0")
    await client.fetch("acme/latch", "1.0.0")
    with pytest.raises(ReleaseRevoked):
        await client.fetch("acme/guard", "1.0.0")
    with pytest.raises(ReleaseYanked, match="it bites"):
        await client.fetch("acme/guard", "0.9.0")
    with pytest.raises(BundleOutdated):
        await gap.bring(old)
    assert (await gap.bring(new)).plugins == []


async def test_freeze_a_bundle_made_of_expired_metadata_is_refused(gap: Gap, tmp_path: Path) -> None:
    bundle = gap.export()
    changed = rebuilt(bundle, tmp_path, lambda m: {**m, "bundle.json": m["bundle.json"].replace(b"2026", b"2036")})
    gap.site.clock.at += 11 * 365 * 86_400
    with pytest.raises(VerificationFailed, match="had expired when it was made"):
        await gap.bring(changed)


async def test_a_bundle_from_the_future_is_refused(gap: Gap) -> None:
    bundle = gap.export()
    gap.site.clock.at -= 3_600
    with pytest.raises(VerificationFailed, match="future"):
        await gap.bring(bundle)


async def test_a_bundle_crosses_long_after_its_timestamp_expired_and_says_of_when_it_is(gap: Gap, clock: Any) -> None:
    bundle = gap.export()
    clock.advance(300)
    outcome = await gap.bring(bundle)
    assert len(outcome.released) == 2
    (upstream,) = gap.site.registry.reader.upstreams.all()
    assert upstream.seen is not None
    assert upstream.seen.at == outcome.at
    assert datetime.fromisoformat(outcome.at).timestamp() < clock.at - 299 * 86_400


async def test_wrong_root_a_bundle_of_another_marketplace_is_refused(
    gap: Gap, tmp_path: Path, clock: Any, site: Site
) -> None:
    bundle = gap.export()
    stranger = Registry.open(tmp_path / "stranger", clock=clock)
    with pytest.raises(VerificationFailed):
        await gap.bring(bundle, root=stranger.trusted_root)
    assert site.registry.reader.upstreams.all() == []
    with pytest.raises(NotFound, match="no marketplace whose root is pinned"):
        await gap.bring(bundle, root=None)
    await stranger.close()


async def test_mix_and_match_parts_of_two_bundles_are_refused(
    gap: Gap, central: Registry, make_release: Make, tmp_path: Path
) -> None:
    old = members(gap.export())
    await published(central, make_release(version="1.2.0"))
    new_bundle = gap.export()
    new = members(new_bundle)
    both = [name for name in new if name in old and new[name] != old[name]]
    assert {name.partition("/")[0] for name in both} >= {"metadata", "targets", "log", "bundle.json"}
    for name in both:
        if name == "bundle.json":
            continue
        with pytest.raises(KeelstoneError):
            await gap.bring(rebuilt(new_bundle, tmp_path, lambda m, name=name: {**m, name: old[name]}))  # type: ignore[misc]
    with pytest.raises(NotFound):
        gap.site.registry.reader.index("acme/guard")


async def test_forked_log_in_a_bundle_is_refused(
    gap: Gap, central: Registry, tmp_path: Path, clock: Any, make_release: Make
) -> None:
    await gap.bring(gap.export())
    fork = fork_of(tmp_path / "registry", tmp_path / "fork", clock)
    await published(fork, make_release(version="1.2.0"))
    with pytest.raises(LogInconsistent, match="forked"):
        await gap.bring(gap.export(of=fork))
    await fork.close()


async def test_dependency_confusion_a_bundle_does_not_bring_a_local_namespace(
    gap: Gap, site: Site, make_release: Make
) -> None:
    mine = generate_key()
    await site.registry.register_namespace(make_key_set("acme", [mine]).document)
    await published(site.registry, make_release("acme/guard", "0.1.0", by=mine))
    outcome = await gap.bring(gap.export())
    assert outcome.held == {"acme": "The namespace acme is this marketplace's own."}
    assert [each.version for each in site.registry.reader.index("acme/guard").releases] == ["0.1.0"]


async def test_a_package_in_a_bundle_with_other_bytes_or_of_no_release_is_refused(gap: Gap, tmp_path: Path) -> None:
    bundle = gap.export()
    name = next(name for name in members(bundle) if name.startswith("packages/"))
    with pytest.raises(VerificationFailed, match="not those that were published"):
        await gap.bring(rebuilt(bundle, tmp_path, lambda m: {**m, name: b"other"}))
    with pytest.raises(BundleCorrupt, match="no release in it"):
        await gap.bring(rebuilt(bundle, tmp_path, lambda m: {**m, "packages/" + "0" * 64: b"x"}))
    assert not gap.site.registry.reader.upstreams.has("0" * 64)


@pytest.mark.parametrize(
    "name",
    [
        "../evil", "/etc/passwd", "metadata/../../evil.json", "packages/../x", "C:/x", "metadata\\timestamp.json",
        "targets/Plugins/x.json", "readme.txt", "log/proofs/acme/guard/..json/x", "packages/" + "0" * 63,
        "targets/\u0430.json",
    ],
)  # fmt: skip
async def test_archive_traversal_and_confusion_a_member_that_does_not_belong_is_refused(
    gap: Gap, tmp_path: Path, name: str
) -> None:
    bundle = gap.export()
    raw = name.encode()
    placeholder = "x" * len(raw)
    written = write_archive({**members(bundle), placeholder: b"x"})
    (tmp_path / "evil.bundle").write_bytes(written.replace(placeholder.encode(), raw))
    with pytest.raises(BundleCorrupt):
        await gap.bring(tmp_path / "evil.bundle")


async def test_archive_traversal_and_confusion_one_archive_has_one_reading(gap: Gap, tmp_path: Path) -> None:
    good = gap.export().read_bytes()
    start = struct.unpack_from("<I", good, len(good) - 6)[0]
    name = good.index(b"timestamp.json")
    twice = good.replace(b"metadata/snapshot.json", b"metadata/targets.json\x00")
    cases = {
        "cut": good[:-1],
        "cut in the middle": good[: len(good) // 2],
        "a comment": good[:-2] + b"\x01\x00x",
        "hidden bytes before": b"x" + good,
        "hidden bytes behind": good + b"x",
        "hidden bytes between": good[:start] + b"xx" + good[start:],
        "a name in the header alone": good[:name] + b"Timestamp.json" + good[name + 14 :],
        "a link": good[:start]
        + good[start:].replace(struct.pack("<I", 0o100644 << 16), struct.pack("<I", 0o120777 << 16), 1),
        "compressed": good[:8] + b"\x08\x00" + good[10:],
        "empty": b"",
        "twice": twice,
    }
    for what, data in cases.items():
        file = tmp_path / "bad.bundle"
        file.write_bytes(data)
        with pytest.raises(BundleCorrupt):
            BundleFile(file, LIMIT)
        assert what


async def test_a_bit_that_flipped_anywhere_is_noticed(gap: Gap, tmp_path: Path) -> None:
    bundle = gap.export()
    data = bundle.read_bytes()
    file = tmp_path / "flipped.bundle"
    for at in range(7, len(data), len(data) // 60):
        file.write_bytes(data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :])
        try:
            with BundleFile(file, LIMIT) as opened:
                bad = [name for name in opened.names if _unreadable(opened, name)]
            assert len(bad) == 1
        except BundleCorrupt:
            pass


def _mode(mode: int) -> bytes:
    return struct.pack("<I", mode << 16)


def _unreadable(bundle: BundleFile, name: str) -> bool:
    try:
        bundle.read(name)
    except BundleCorrupt:
        return True
    return False


async def test_endless_data_a_member_larger_than_its_kind_may_be_is_refused_before_it_is_read(
    gap: Gap, tmp_path: Path
) -> None:
    bundle = gap.export()
    for name in ("log/checkpoint", "packages/" + "0" * 64, "log/tile/0/000.p/3"):
        with pytest.raises(BundleCorrupt, match="too large"):
            BundleFile(rebuilt(bundle, tmp_path, lambda m, n=name: {**m, n: b" " * (LIMIT + 1)}), LIMIT)  # type: ignore[misc]


async def test_killed_at_every_step_of_an_import_nothing_is_half_done(gap: Gap, site: Site, tmp_path: Path) -> None:
    class Died(Exception):
        pass

    bundle = gap.export()
    for wanted in ("changes-written", "documents-rendered", "logged", "metadata-signed", "committing"):

        def die(step: str, wanted: str = wanted) -> None:
            if step == wanted:
                raise Died(step)

        await site.registry.close()
        site.open(on_step=die)
        with pytest.raises(Died):
            await gap.bring(bundle)
        await site.registry.close()
        site.open()
        with pytest.raises(NotFound):
            site.registry.reader.index("acme/guard")
        assert site.registry.reader.upstreams.claims() == {}
    assert len((await gap.bring(bundle)).released) == 2
    await site.client(tmp_path / "c").fetch("acme/guard", "1.0.0")


async def test_an_export_that_fails_leaves_no_file(gap: Gap, tmp_path: Path) -> None:
    with pytest.raises(NotFound):
        gap.export("acme/barn")
    assert [name for name in os.listdir(tmp_path) if name.endswith(".bundle") or name.startswith(".")] == []


async def second_line(central: Registry, make_release: Make) -> str:
    """The digest of acme/guard 0.9.0, published after 1.1.0 with a reviewer's leave."""
    receipt = await central.publish(*_handed_in(make_release(version="0.9.0")))
    if receipt.state == "quarantined":
        await central.decide(receipt.digest, approved=True, reason="It is asked for", reviewer="ada")
    return receipt.digest


def _handed_in(signed: Any) -> tuple[bytes, bytes]:
    return signed.package.data, signed.envelope


def members(bundle: Path) -> dict[str, bytes]:
    with BundleFile(bundle, LIMIT) as opened:
        return {name: opened.read(name) or b"" for name in opened.names}


def rebuilt(bundle: Path, folder: Path, change: Callable[[dict[str, bytes]], dict[str, bytes]]) -> Path:
    """A bundle of its form with other members."""
    out = folder / "rebuilt.bundle"
    with out.open("wb") as file:
        writer = BundleWriter(file)
        for name, data in change(members(bundle)).items():
            writer.add(name, data)
        writer.close()
    return out
