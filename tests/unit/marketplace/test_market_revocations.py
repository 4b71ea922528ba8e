"""A revoked release is refused by everybody who asks, is in the log, and never comes back."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest

from kernel.errors import NotFound, ValidationFailed
from marketplace.client import MarketplaceClient
from marketplace.errors import ReleaseRevoked, VerificationFailed
from marketplace.log.proof import read_proof
from marketplace.registry import Registry
from marketplace.registry.reach import Reached
from marketplace.revocations import read_revocations
from marketplace.service import create_app
from marketplace.signing import KILL, canonical_json, open_statement, sign_yank
from marketplace.transport import RegistryTransport

Make = Callable[..., Any]
Bind = Callable[..., Any]


@pytest.fixture
async def published(registry: Registry, register: Bind, make_release: Make) -> Any:
    await register(registry, "acme")
    signed = make_release()
    await registry.publish(signed.package.data, signed.envelope)
    return signed


@pytest.fixture
def client(registry: Registry, tmp_path: Path) -> MarketplaceClient:
    return MarketplaceClient(RegistryTransport(registry.reader), tmp_path / "cache", registry.trusted_root)


async def test_a_revoked_release_is_neither_installed_nor_verified(
    registry: Registry, published: Any, client: MarketplaceClient
) -> None:
    await client.fetch("acme/guard", "1.0.0")
    before = await client.verify(published.package.data, published.envelope)
    assert any(link.startswith("revocations: 0") for link in before.package.chain)
    revoked = await registry.revoke("acme/guard", "1.0.0", "  It sends\nsecrets out. ")
    assert (revoked.digest, revoked.reason) == (published.package.digest, "It sends secrets out.")
    with pytest.raises(ReleaseRevoked, match="It sends secrets out"):
        await client.fetch("acme/guard", "1.0.0")
    for offline in (False, True):
        with pytest.raises(ReleaseRevoked):
            await client.verify(published.package.data, published.envelope, offline=offline)
    assert await client.revocations() == (revoked,)
    assert registry.reader.search("guard") == []


async def test_it_is_the_operators_signed_word_in_the_log(registry: Registry, published: Any) -> None:
    await registry.revoke("acme/guard", "1.0.0", "Bad.")
    proof = read_proof(registry.reader.log_file("entry/2"))
    assert (proof.index, proof.entry.kind, proof.entry.plugin) == (2, "kill", "acme/guard")
    key = registry._keys.online("receipts")
    said = open_statement(canonical_json(proof.statement), KILL, {key.id: key.public})
    assert said.subjects == {"acme/guard@1.0.0": published.package.digest}
    assert said.predicate["reason"] == "Bad."


async def test_asked_again_it_changes_nothing_and_an_unknown_release_is_refused(
    registry: Registry, published: Any
) -> None:
    first = await registry.revoke("acme/guard", "1.0.0", "Bad.")
    timestamp = registry.reader.metadata("timestamp.json")
    assert await registry.revoke("acme/guard", "1.0.0", "Worse.") == first
    assert registry.reader.metadata("timestamp.json") == timestamp
    with pytest.raises(NotFound):
        await registry.revoke("acme/guard", "2.0.0", "Bad.")
    with pytest.raises(ValidationFailed):
        await registry.revoke("acme/guard", "1.0.0", " ")


async def test_its_publisher_may_still_withdraw_it_and_publish_a_mended_one(
    registry: Registry, published: Any, client: MarketplaceClient, make_release: Make, key: Any
) -> None:
    await registry.revoke("acme/guard", "1.0.0", "Bad.")
    receipt = await registry.yank(sign_yank("acme/guard", "1.0.0", published.package.digest, "Sorry.", key))
    assert receipt.state == "yanked"
    mended = make_release(version="1.0.1")
    await registry.publish(mended.package.data, mended.envelope)
    assert (await client.fetch("acme/guard", "1.0.1")).manifest.version == "1.0.1"
    with pytest.raises(ReleaseRevoked):
        await client.fetch("acme/guard", "1.0.0")


async def test_whoever_waits_hears_at_once_and_otherwise_after_a_while(registry: Registry, published: Any) -> None:
    assert await registry.reader.revocations.wait(0, 0.01) == 0
    waiting = [asyncio.create_task(registry.reader.revocations.wait(0, 30.0)) for _ in range(20)]
    await asyncio.sleep(0)
    await registry.revoke("acme/guard", "1.0.0", "Bad.")
    assert await asyncio.gather(*waiting) == [1] * 20
    assert await registry.reader.revocations.wait(0, 30.0) == 1


async def test_over_http_platforms_wait_and_report_and_strangers_cannot_do_harm(
    registry: Registry, published: Any
) -> None:
    revoked = await registry.revoke("acme/guard", "1.0.0", "Bad.")
    app = httpx.ASGITransport(create_app(registry))
    async with httpx.AsyncClient(transport=app, base_url="http://market") as http:
        assert (await http.get("/revocations/wait", params={"known": 0})).json() == {"revoked": 1}
        assert (await http.get("/revocations")).json()["revoked"][0]["digest"] == revoked.digest
        path = f"/revocations/{revoked.digest}/reach"
        told = {"host": "platform-1", "installed": True, "seconds": 1.5}
        assert (await http.post(path, json=told)).status_code == 204
        assert (await http.post(path, json={**told, "seconds": 99.0})).status_code == 204
        assert (await http.post(f"/revocations/{'0' * 64}/reach", json=told)).status_code == 404
        for bad in ({**told, "host": "a b"}, {**told, "host": ""}, {**told, "seconds": "soon"}, {}):
            assert (await http.post(path, json=bad)).status_code == 422
        for seconds in ("-1", "NaN", "Infinity"):
            body = f'{{"host": "platform-2", "installed": true, "seconds": {seconds}}}'
            headers = {"content-type": "application/json"}
            assert (await http.post(path, content=body, headers=headers)).status_code == 422
        for known, seconds in ((-1, 1), (0, 600), (0, 0)):
            found = await http.get("/revocations/wait", params={"known": known, "seconds": seconds})
            assert found.status_code == 422
    assert registry.reader.revocations.reach(revoked.digest) == (revoked, [Reached("platform-1", True, 1.5)])
    with pytest.raises(NotFound):
        registry.reader.revocations.reach("0" * 64)


@pytest.mark.parametrize(
    "document",
    [
        b"",
        b"[]",
        b"{}",
        b'{"format":2,"revoked":[]}',
        b'{"format":1,"revoked":[{"digest":"x"}]}',
        b'{"format":1,"revoked":[{"digest":"x","plugin":"a/b","version":"1","reason":"r","at":"soon"}]}',
    ],
)
def test_a_list_that_cannot_be_read_is_not_taken_for_an_empty_one(document: bytes) -> None:
    with pytest.raises(VerificationFailed):
        read_revocations(document)
