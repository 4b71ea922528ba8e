"""Publishing as a way through states: what is held for a person, what a verdict does, and scans that take long."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from kernel.errors import Conflict, NotFound, ValidationFailed
from marketplace.errors import ReleaseRefused, VersionTaken
from marketplace.package import read_package
from marketplace.registry import Registry
from marketplace.registry.tables import log_entries
from marketplace.signing import RECEIPT, canonical_json, open_statement
from plugin_sdk.profile import Trial

Bind = Callable[..., Awaitable[None]]
Make = Callable[..., Any]
Open = Callable[..., Registry]
HTTP = '[capabilities.http]\nwhy = "to ask the list"\nhosts = ["api.acme.io"]\n'


async def publish(registry: Registry, signed: Any) -> Any:
    return await registry.publish(signed.package.data, signed.envelope)


@pytest.fixture
async def held(registry: Registry, register: Bind, make_release: Make) -> Any:
    """A poisoned old release: a fix of 1.0 that comes when 2.0 is what everybody watches."""
    await register(registry)
    for version in ("1.0.0", "2.0.0"):
        await publish(registry, make_release(version=version))
    signed = make_release(version="1.0.1")
    receipt = await publish(registry, signed)
    assert receipt.state == "quarantined"
    return signed


async def test_a_poisoned_old_release_is_held_and_nobody_can_have_it(registry: Registry, held: Any) -> None:
    digest = held.package.digest
    assert [r.version for r in registry.reader.index("acme/guard").releases] == ["2.0.0", "1.0.0"]
    assert registry.reader.package_path(digest) is None
    (waiting,) = registry.reader.reviews.queue()
    assert (waiting.plugin, waiting.version, waiting.digest) == ("acme/guard", "1.0.1", digest)
    assert [each["rule"] for each in waiting.findings if each["review"]] == ["old-line"]


async def test_every_state_has_a_receipt_by_the_registrys_key_and_asking_again_gives_the_same(
    registry: Registry, held: Any
) -> None:
    key = registry._keys.online("receipts")
    receipt = await publish(registry, held)
    assert receipt == await publish(registry, held) == registry.reader.reviews.status(held.package.digest).receipt
    assert (receipt.state, receipt.snapshot, receipt.log_index) == ("quarantined", 0, None)
    said = open_statement(canonical_json(receipt.signed), RECEIPT, {key.id: key.public})
    assert (said.predicate["state"], set(said.subjects.values())) == ("quarantined", {held.package.digest})
    approved = await decide(registry, held, approved=True)
    assert (approved.state, approved.version) == ("live", "1.0.1")
    assert approved.log_index is not None
    assert approved.snapshot > 0
    assert await publish(registry, held) == approved == await decide(registry, held, approved=True)


async def decide(registry: Registry, signed: Any, *, approved: bool, reason: str = "looked at it all") -> Any:
    return await registry.decide(signed.package.digest, approved=approved, reason=reason, reviewer="ada")


def logged(registry: Registry) -> list[str]:
    with registry._tables.read() as connection:
        return list(connection.execute(sa.select(log_entries.c.kind).order_by(log_entries.c.position)).scalars())


async def test_an_approved_release_goes_live_and_the_verdict_is_logged(registry: Registry, held: Any) -> None:
    await decide(registry, held, approved=True)
    assert [r.version for r in registry.reader.index("acme/guard").releases] == ["2.0.0", "1.0.1", "1.0.0"]
    assert registry.reader.package_path(held.package.digest) is not None
    assert logged(registry)[-2:] == ["publish", "verdict"]
    assert registry.reader.reviews.queue() == []
    verdict = registry.reader.reviews.status(held.package.digest).verdict
    assert verdict is not None
    assert (verdict["approved"], verdict["reviewer"]) == (True, "ada")
    with pytest.raises(Conflict, match="has a verdict already"):
        await decide(registry, held, approved=False)


async def test_a_rejected_version_is_never_used_again(registry: Registry, held: Any, make_release: Make) -> None:
    rejected = await decide(registry, held, approved=False, reason="it phones home")
    assert rejected.state == "rejected"
    assert logged(registry)[-1] == "verdict"
    assert await publish(registry, held) == rejected
    other = make_release(version="1.0.1", readme="# Guard\n\nOther bytes.\n")
    with pytest.raises(VersionTaken, match="is rejected"):
        await publish(registry, other)
    with pytest.raises(Conflict, match="has a verdict already"):
        await decide(registry, held, approved=True)
    assert "1.0.1" not in [r.version for r in registry.reader.index("acme/guard").releases]


async def test_what_breaks_a_rule_by_now_is_not_approved(registry: Registry, held: Any, make_release: Make) -> None:
    newer = make_release(version="1.0.2")
    assert (await publish(registry, newer)).state == "quarantined"
    assert (await decide(registry, newer, approved=True)).state == "live"
    with pytest.raises(ReleaseRefused, match=r"comes after 1\.0\.2"):
        await decide(registry, held, approved=True)
    assert registry.reader.reviews.status(held.package.digest).receipt.state == "quarantined"
    assert (await decide(registry, held, approved=False)).state == "rejected"


async def test_a_verdict_says_whose_it_is_and_a_rejection_why(registry: Registry, held: Any) -> None:
    digest = held.package.digest
    for reason, reviewer in ((" ", "ada"), ("bad", " ")):
        with pytest.raises(ValidationFailed):
            await registry.decide(digest, approved=False, reason=reason, reviewer=reviewer)
    live = registry.reader.index("acme/guard").releases[0].digest
    with pytest.raises(NotFound):
        await registry.decide(live, approved=False, reason="x", reviewer="ada")
    assert len(registry.reader.reviews.queue()) == 1


async def test_the_reviewer_sees_what_is_new(open_registry: Open, register: Bind, make_release: Make) -> None:
    registry = open_registry(rules={"reach-grown": "review"})
    await register(registry)
    await publish(registry, make_release())
    signed = make_release(version="1.1.0", more=HTTP, readme="# Guard\n\nIt asks a list.\n")
    assert (await publish(registry, signed)).state == "quarantined"
    seen = registry.reader.reviews.show(signed.package.digest)
    assert seen.base == "1.0.0"
    assert any("sends requests to other hosts" in change.words and change.widens for change in seen.changes)
    assert {each.name for each in seen.files} == {"plugin.toml", "README.md", "CHANGELOG.md", "sbom.cdx.json"}
    assert not seen.settings_changed
    package, envelope = registry.reader.reviews.package(signed.package.digest)
    assert (package.digest, bool(envelope)) == (signed.package.digest, True)


class Gate:
    """A contract checker that takes as long as the test wants."""

    def __init__(self, *answer: str) -> None:
        self.opened, self.answer, self.asked = threading.Event(), answer, 0

    def __call__(self, component: bytes, manifest: object, schema: object) -> Trial:
        self.asked += 1
        assert self.opened.wait(30)
        return Trial(self.answer)


async def settled(registry: Registry, digest: str, state: str) -> Any:
    async with asyncio.timeout(30):
        while registry.reader.reviews.status(digest).receipt.state != state:  # noqa: ASYNC110 - a scan tells nobody
            await asyncio.sleep(0.01)
    return registry.reader.reviews.status(digest)


async def test_a_scan_that_takes_long_is_answered_and_goes_on(
    open_registry: Open, register: Bind, make_release: Make
) -> None:
    gate, signed = Gate(), make_release()
    registry = open_registry(check_contract=gate, patience=0.05)
    await register(registry)
    first = await publish(registry, signed)
    assert first.state in ("received", "scanning")
    assert await publish(registry, signed) == first
    with pytest.raises(VersionTaken):
        await publish(registry, make_release(readme="# Guard\n\nOther bytes.\n"))
    with pytest.raises(NotFound):
        registry.reader.index("acme/guard")
    gate.opened.set()
    status = await settled(registry, signed.package.digest, "live")
    assert await publish(registry, signed) == status.receipt
    assert gate.asked == 1


async def test_what_a_long_scan_refuses_is_told_to_whoever_asks(
    open_registry: Open, register: Bind, make_release: Make
) -> None:
    gate, signed = Gate("user_creating answers nonsense"), make_release()
    registry = open_registry(check_contract=gate, patience=0.05)
    await register(registry)
    await publish(registry, signed)
    gate.opened.set()
    status = await settled(registry, signed.package.digest, "refused")
    assert [each["rule"] for each in status.findings] == ["contract"]
    # It was never accepted, so the mended package may have the version.
    gate.answer = ()
    mended = make_release(readme="# Guard\n\nMended.\n")
    assert (await publish(registry, mended)).version == "1.0.0"
    await settled(registry, mended.package.digest, "live")


async def test_a_registry_that_was_stopped_while_scanning_finishes_it_after_its_next_start(
    open_registry: Open, register: Bind, make_release: Make
) -> None:
    gate, signed = Gate(), make_release()
    stopped = open_registry(check_contract=gate, patience=0.05)
    await register(stopped)
    assert (await publish(stopped, signed)).state in ("received", "scanning")
    await stopped._scans.stop()
    gate.opened.set()
    again = open_registry()
    assert again.reader.reviews.status(signed.package.digest).receipt.state in ("received", "scanning")
    await again.resume()
    await settled(again, signed.package.digest, "live")
    assert [r.version for r in again.reader.index("acme/guard").releases] == ["1.0.0"]


async def test_of_two_publishers_racing_for_one_version_one_wins(
    registry: Registry, register: Bind, make_release: Make, tmp_path: Path
) -> None:
    await register(registry)
    racers = [make_release(readme=f"# Guard\n\nRacer {n}.\n") for n in range(8)]
    found = await asyncio.gather(*(publish(registry, each) for each in racers), return_exceptions=True)
    won = [each for each in found if not isinstance(each, BaseException)]
    assert len(won) == 1
    assert all(isinstance(each, VersionTaken) for each in found if isinstance(each, BaseException))
    path = registry.reader.package_path(won[0].digest)
    assert path is not None
    assert read_package(path.read_bytes(), max_bytes=1 << 20).digest == won[0].digest


async def test_a_rule_still_refuses_at_once(registry: Registry, register: Bind, make_release: Make) -> None:
    await register(registry)
    signed = make_release(hook="user_vanishing")
    with pytest.raises(ReleaseRefused):
        await publish(registry, signed)
    with pytest.raises(NotFound):
        registry.reader.reviews.status(signed.package.digest)
