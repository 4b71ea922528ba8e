"""Who stands behind an update: another owner, another signer or lost provenance hold it until a person allows it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from marketplace.keys import SigningKey, generate_key
from marketplace.namespaces import make_key_set, propose, sign_proposal
from marketplace.registry import Registry
from tests.support.guests import guest, signed
from tests.support.stage import Stage, copied, until

pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def swift(seeded: Path, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Stage]:
    """A platform on which a new owner's updates wait no longer than until somebody allows them."""
    home = copied(seeded, tmp_path_factory.mktemp("swift") / "home")
    async with Stage(home, marketplace_owner_days=0, marketplace_recovery_days=0) as running:
        yield running


def registry_of(stage: Stage) -> Registry:
    assert stage.platform.registry is not None
    return stage.platform.registry


async def publish(stage: Stage, folder: Path, plugin: str, version: str, key: SigningKey) -> None:
    made = signed(folder, key, guest(), plugin, version)
    await registry_of(stage).publish(made.package.data, made.envelope)


async def begin(stage: Stage, folder: Path, publisher: str, key: SigningKey, tenants: Sequence[str] = ("acme",)) -> str:
    """A plugin of ``publisher`` 1.0.0, on for the tenants."""
    plugin = f"{publisher}/guard"
    await registry_of(stage).register_namespace(make_key_set(publisher, [key]).document)
    await publish(stage, folder, plugin, "1.0.0", key)
    operator = await stage.client("platform")
    await operator.ok("POST", "/api/v1/plugins/install", json={"plugin": plugin, "version": "=1.0.0"})
    for tenant in tenants:
        await stage.activate(tenant, plugin)
    return plugin


async def hand_over(stage: Stage, publisher: str, old: SigningKey, new: SigningKey, owner: str | None) -> None:
    registry = registry_of(stage)
    document = propose(registry.reader.key_set(publisher), [new.public], threshold=1, owner=owner)
    await registry.register_namespace(sign_proposal(document, [old, new]))


async def upgrade(stage: Stage, plugin: str) -> dict[str, dict[str, Any]]:
    operator = await stage.client("platform")
    moves = await operator.ok("POST", f"/api/v1/plugins/{plugin}/upgrade", json={"version": "1.1.0"})
    return {move["tenant"]: move for move in moves}


async def test_keys_that_follow_one_another_raise_no_alarm(stage: Stage, tmp_path: Path) -> None:
    key, fresh = generate_key(), generate_key()
    plugin = await begin(stage, tmp_path, "rotates", key)
    await hand_over(stage, "rotates", key, fresh, None)
    await publish(stage, tmp_path, plugin, "1.1.0", fresh)
    assert (await upgrade(stage, plugin))["acme"]["after"] == "1.1.0"


async def test_a_new_owners_update_waits_for_the_window_and_admins_are_told(stage: Stage, tmp_path: Path) -> None:
    key, buyer = generate_key(), generate_key()
    plugin = await begin(stage, tmp_path, "sold", key)
    await hand_over(stage, "sold", key, buyer, "Buyer Ltd")
    await publish(stage, tmp_path, plugin, "1.1.0", buyer)
    operator = await stage.client("platform")
    params = {"plugin": plugin, "version": "1.1.0"}
    foreseen = await operator.ok("GET", "/api/v1/upgrade-preflight", params=params)
    assert [(f["tenant"], f["kind"], f["severity"]) for f in foreseen["findings"]] == [("acme", "trust", "waits")]
    moved = (await upgrade(stage, plugin))["acme"]
    assert moved["after"] == "1.0.0"
    assert "belongs to somebody else" in moved["error"]
    assert "keelstone tenant allow acme sold/guard 1.1.0" in moved["error"]
    admin = await stage.client("acme")
    told = await admin.ok("GET", "/api/v1/events", params={"type": "plugin.update_held"})
    assert [(e["data"]["to"], e["data"]["doubts"]) for e in told["items"] if e["data"]["plugin"] == plugin] == [
        ("1.1.0", ["owner"])
    ]
    body = {"plugin": plugin, "version": "1.1.0", "reason": "We know them."}
    waits = await admin.problem(409, "POST", "/api/v1/tenants/acme/held-updates/allow", json=body)
    assert "wait until" in waits["detail"]
    # An admin's own choice of the version is held as well, and the update that is offered says why.
    refused = await admin.problem(
        409, "PUT", f"/api/v1/tenants/acme/activations/{plugin}", json={"version": "1.1.0", "grants": {}}
    )
    assert refused["code"] == "update-held"
    newer = (await admin.ok("GET", f"/api/v1/tenants/acme/activations/{plugin}"))["newer"]
    assert "belongs to somebody else" in newer["doubts"][0]


async def test_a_held_update_comes_after_the_operator_allowed_exactly_this_package(
    swift: Stage, tmp_path: Path
) -> None:
    key, buyer = generate_key(), generate_key()
    plugin = await begin(swift, tmp_path, "bought", key, ("acme", "globex"))
    await hand_over(swift, "bought", key, buyer, "Buyer Ltd")
    await publish(swift, tmp_path, plugin, "1.1.0", buyer)
    assert {m["after"] for m in (await upgrade(swift, plugin)).values()} == {"1.0.0"}
    again = await upgrade(swift, plugin)
    assert all("held" in move["error"] for move in again.values())
    operator = await swift.client("platform")
    listed = [h for h in await operator.ok("GET", "/api/v1/held-updates") if h["plugin"] == plugin]
    assert sorted(h["tenant"] for h in listed) == ["acme", "globex"]
    admin = await swift.client("acme")
    await admin.problem(
        403, "POST", "/api/v1/held-updates/allow", json={"plugin": plugin, "version": "1", "reason": "x"}
    )
    body = {"plugin": plugin, "version": "1.1.0", "reason": "We spoke with both of them."}
    allowed = await operator.ok("POST", "/api/v1/held-updates/allow", json=body)
    assert (allowed["state"], allowed["reason"]) == ("allowed", "We spoke with both of them.")
    assert {m["after"] for m in (await upgrade(swift, plugin)).values()} == {"1.1.0"}


async def test_an_admin_allows_a_held_update_for_the_own_tenant_only(swift: Stage, tmp_path: Path) -> None:
    key, buyer = generate_key(), generate_key()
    plugin = await begin(swift, tmp_path, "leased", key, ("acme", "globex"))
    await hand_over(swift, "leased", key, buyer, "Buyer Ltd")
    await publish(swift, tmp_path, plugin, "1.1.0", buyer)
    await upgrade(swift, plugin)
    admin = await swift.client("acme")
    query = "{ heldUpdates { plugin version state doubts { kind } } }"
    answer = await admin.ok("POST", "/graphql", json={"query": query})
    mine = [h for h in answer["data"]["heldUpdates"] if h["plugin"] == plugin]
    assert mine == [{"plugin": plugin, "version": "1.1.0", "state": "held", "doubts": [{"kind": "owner"}]}]
    mutation = f'mutation {{ allowUpdate(plugin: "{plugin}", version: "1.1.0", reason: "Known.") {{ state }} }}'
    done = await admin.ok("POST", "/graphql", json={"query": mutation})
    assert done["data"]["allowUpdate"] == {"state": "allowed"}
    moves = await upgrade(swift, plugin)
    assert (moves["acme"]["after"], moves["globex"]["after"]) == ("1.1.0", "1.0.0")
    member = await swift.member("acme", "member")
    await member.problem(
        403,
        "POST",
        "/api/v1/tenants/acme/held-updates/allow",
        json={"plugin": plugin, "version": "1.1.0", "reason": "x"},
    )


async def test_namespace_takeover_by_stolen_online_keys_does_not_reach_a_tenant(swift: Stage, tmp_path: Path) -> None:
    """Whoever has the registry's keys can recover a namespace to their own: no tenant takes what they sign."""
    key, thief = generate_key(), generate_key()
    plugin = await begin(swift, tmp_path, "taken", key)
    registry = registry_of(swift)
    document = propose(registry.reader.key_set("taken"), [thief.public], threshold=1)
    await registry.recover_namespace(sign_proposal(document, [thief]), "They say that they lost it.")
    await publish(swift, tmp_path, plugin, "1.1.0", thief)
    moved = (await upgrade(swift, plugin))["acme"]
    assert moved["after"] == "1.0.0"
    assert "nothing signed by" in moved["error"]
    assert "put new keys in place" in moved["error"]
    # Neither does a trial, which an upgrade in shares begins with.
    operator = await swift.client("platform")
    body = {"plugin": plugin, "version": "1.1.0", "tenants": 100}
    started = await operator.ok("POST", "/api/v1/upgrades", json=body)
    assert [m["error"] is not None for m in started["moves"]] == [True]
    await operator.ok("POST", f"/api/v1/upgrades/{started['id']}/rollback", json={"reason": "held"})


async def test_admins_are_told_of_a_new_owner_once_before_any_update(seeded: Path, tmp_path: Path) -> None:
    home = copied(seeded, tmp_path / "home")
    keys = [generate_key() for _ in range(3)]
    async with Stage(home) as stage:
        plugin = await begin(stage, tmp_path, "traded", keys[0])
        other = await begin(stage, tmp_path / "other", "kept", keys[0], ("acme", "globex"))
    told: list[dict[str, Any]] = []
    for number in (1, 2):  # the second owner is there to be waited for: the first must not come again with it
        async with Stage(home) as stage:
            await hand_over(stage, "traded", keys[number - 1], keys[number], f"Buyer {number}")
        async with Stage(home) as stage:
            operator, acme, globex = [await stage.client(name) for name in ("platform", "acme", "globex")]

            async def heard(asking: Any = acme, most: int = number) -> bool:
                found = await asking.ok("GET", "/api/v1/events", params={"type": "plugin.owner_changed"})
                told[:] = found["items"]
                return len(told) >= most

            await until(heard)
            assert [(e["data"]["plugin"], e["data"]["version"], e["data"]["recovered"]) for e in told] == [
                (plugin, "1.0.0", False)
            ] * number
            assert "belongs to somebody else" in told[-1]["data"]["why"]
            assert "until" in told[-1]["data"]
            (news,) = await operator.ok("GET", "/api/v1/plugins/new-owners")
            assert (news["tenant"], news["plugin"], news["recovered"]) == ("acme", plugin, False)
            assert await acme.ok("GET", "/api/v1/plugins/new-owners") == [news]
            assert await globex.ok("GET", "/api/v1/plugins/new-owners") == [], f"it has {other} only"
            await globex.problem(403, "GET", "/api/v1/plugins/new-owners", params={"tenant": "acme"})
            for asking, seen in ((operator, 1), (acme, 1), (globex, 0)):
                answer = await asking.graphql("{ newOwners { tenant plugin recovered } }")
                mine = {"tenant": "acme", "plugin": plugin, "recovered": False}
                assert answer["data"]["newOwners"] == [mine] * seen
            events = await globex.ok("GET", "/api/v1/events", params={"type": "plugin.owner_changed"})
            assert events["items"] == []
