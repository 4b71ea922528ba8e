"""Signing in, staying signed in, keys and roles, over HTTP."""

from __future__ import annotations

import asyncio
import base64
import json
import time

import pytest
from joserfc import jwt
from joserfc.jwk import OctKey, OKPKey

from api.cli.connection import Credentials
from kernel.context import PLATFORM_TENANT
from tests.support.stage import Client, Stage, problem_of

pytestmark = pytest.mark.asyncio(loop_scope="module")

PASSWORD = "correct horse battery staple"
TOKEN, REFRESH, REVOKE, ME = (f"/api/v1/auth/{name}" for name in ("token", "refresh", "revoke", "me"))


async def register(stage: Stage, email: str, tenant: str = "acme", roles: tuple[str, ...] = ("member",)) -> dict:
    admin = await stage.client(tenant)
    body = {"email": email, "name": "Ada", "password": PASSWORD, "roles": list(roles)}
    return await admin.ok("POST", "/api/v1/users", json=body)


async def event_types(stage: Stage, stream: str, tenant: str = "acme") -> list[str]:
    admin = await stage.client(tenant)
    page = await admin.ok("GET", "/api/v1/events", params={"stream": stream, "limit": 200})
    return [e["type"] for e in page["items"]]


# ---------------------------------------------------------------------------- passwords


async def test_a_right_password_gives_a_token_that_says_who_i_am(stage: Stage):
    user = await register(stage, "ada@acme.example")
    pair = await stage.sign_in("acme", " ADA@acme.example ", PASSWORD)
    assert pair["token_type"] == "Bearer"
    me = await (await stage.client("acme", pair["access_token"])).ok("GET", ME)
    assert (me["id"], me["kind"], me["tenant"], me["roles"]) == (user["id"], "user", "acme", ["member"])
    assert "users:read" in me["permissions"]
    assert "users:write" not in me["permissions"]
    assert await event_types(stage, f"identity:{user['id']}") == ["identity.roles_assigned", "identity.signed_in"]


@pytest.mark.parametrize(
    "wrong",
    [
        {"password": "wrong password here"},
        {"email": "nobody@acme.example"},
        {"tenant": "globex"},
        {"tenant": "nosuchtenant"},
        {"tenant": "*"},
        {"tenant": ""},
        {"tenant": PLATFORM_TENANT},
        {"tenant": "acme' OR '1'='1"},
        {"email": ""},
        {"password": ""},
    ],
)
async def test_whatever_was_wrong_the_answer_is_the_same(stage: Stage, wrong):
    kept = Credentials(stage.home).load()["acme"]
    body = {"tenant": "acme", **kept, **wrong}
    problem = await stage.anonymous.problem(401, "POST", TOKEN, json=body)
    assert problem["code"] == "unauthenticated"
    assert problem["detail"].startswith("The tenant, address or password is wrong")
    assert "tenant" not in problem


async def test_no_password_signs_in_to_all_tenants_at_once(stage: Stage):
    user = await register(stage, "only@acme.example")
    body = {"tenant": "*", "email": "only@acme.example", "password": PASSWORD}
    await stage.anonymous.problem(401, "POST", TOKEN, json=body)
    body["password"] = "wrong password here"
    for _ in range(3):
        await stage.anonymous.problem(401, "POST", TOKEN, json=body)
    await stage.sign_in("acme", "only@acme.example", PASSWORD)
    assert "identity.sign_in_locked" not in await event_types(stage, f"identity:{user['id']}")


async def test_sign_in_rests_after_ten_wrong_passwords_even_in_parallel_and_for_the_right_one(stage: Stage):
    user = await register(stage, "locked@acme.example")
    body = {"tenant": "acme", "email": "locked@acme.example", "password": "wrong password here"}
    await asyncio.gather(*(stage.anonymous.problem(401, "POST", TOKEN, json=body) for _ in range(10)))
    assert "identity.sign_in_locked" in await event_types(stage, f"identity:{user['id']}")
    await stage.anonymous.problem(401, "POST", TOKEN, json={**body, "password": PASSWORD})
    await register(stage, "other@acme.example")
    await stage.sign_in("acme", "other@acme.example", PASSWORD)


async def test_a_right_password_forgets_the_wrong_ones_before(stage: Stage):
    user = await register(stage, "clumsy@acme.example")
    body = {"tenant": "acme", "email": "clumsy@acme.example", "password": "wrong password here"}
    for _ in range(2):
        for _ in range(6):
            await stage.anonymous.problem(401, "POST", TOKEN, json=body)
        await stage.sign_in("acme", "clumsy@acme.example", PASSWORD)
    assert "identity.sign_in_locked" not in await event_types(stage, f"identity:{user['id']}")


@pytest.mark.parametrize("password", ["short", "x" * 201])
async def test_a_password_of_the_wrong_length_is_refused_and_nobody_registered(stage: Stage, password):
    admin = await stage.client("acme")
    body = {"email": "length@acme.example", "name": "Ada", "password": password}
    problem = await admin.problem(422, "POST", "/api/v1/users", json=body)
    assert password not in json.dumps(problem)
    assert (await admin.ok("GET", "/api/v1/users", params={"email": "length@acme.example"}))["items"] == []


# ---------------------------------------------------------------------------- refresh tokens


async def test_a_refresh_token_is_used_once_and_using_it_twice_ends_its_family(stage: Stage):
    user = await register(stage, "rotate@acme.example")
    first = await stage.sign_in("acme", "rotate@acme.example", PASSWORD)
    other_device = await stage.sign_in("acme", "rotate@acme.example", PASSWORD)
    second = await stage.anonymous.ok("POST", REFRESH, json={"refresh_token": first["refresh_token"]})
    await (await stage.client("acme", second["access_token"])).ok("GET", ME)
    for token in (first["refresh_token"], second["refresh_token"]):
        problem = await stage.anonymous.problem(401, "POST", REFRESH, json={"refresh_token": token})
        assert problem["code"] == "unauthenticated"
    assert "identity.token_reused" in await event_types(stage, f"identity:{user['id']}")
    await stage.anonymous.ok("POST", REFRESH, json={"refresh_token": other_device["refresh_token"]})


async def test_of_two_uses_at_once_at_most_one_wins(stage: Stage):
    await register(stage, "race@acme.example")
    pair = await stage.sign_in("acme", "race@acme.example", PASSWORD)
    answers = await asyncio.gather(
        *(stage.anonymous.post(REFRESH, json={"refresh_token": pair["refresh_token"]}) for _ in range(5))
    )
    assert sorted(a.status_code for a in answers).count(200) <= 1


async def test_after_signing_out_the_token_is_worth_nothing(stage: Stage):
    await register(stage, "out@acme.example")
    pair = await stage.sign_in("acme", "out@acme.example", PASSWORD)
    for _ in range(2):
        assert (await stage.anonymous.post(REVOKE, json={"refresh_token": pair["refresh_token"]})).status_code == 204
    await stage.anonymous.problem(401, "POST", REFRESH, json={"refresh_token": pair["refresh_token"]})


async def test_an_access_token_is_no_refresh_token_and_the_other_way_round(stage: Stage):
    await register(stage, "mixed@acme.example")
    pair = await stage.sign_in("acme", "mixed@acme.example", PASSWORD)
    await stage.anonymous.problem(401, "POST", REFRESH, json={"refresh_token": pair["access_token"]})
    await (await stage.client("acme", pair["refresh_token"])).problem(401, "GET", ME)


async def test_a_refresh_token_brings_the_roles_of_now(stage: Stage):
    user = await register(stage, "promoted@acme.example")
    pair = await stage.sign_in("acme", "promoted@acme.example", PASSWORD)
    admin = await stage.client("acme")
    await admin.ok("PUT", f"/api/v1/roles/users/{user['id']}", json={"roles": ["admin"]})
    fresh = await stage.anonymous.ok("POST", REFRESH, json={"refresh_token": pair["refresh_token"]})
    me = await (await stage.client("acme", fresh["access_token"])).ok("GET", ME)
    assert me["roles"] == ["admin"]


async def test_a_removed_person_signs_in_and_refreshes_no_more(stage: Stage):
    user = await register(stage, "gone@acme.example")
    pair = await stage.sign_in("acme", "gone@acme.example", PASSWORD)
    await (await stage.client("acme")).ok("DELETE", f"/api/v1/users/{user['id']}")
    await stage.anonymous.problem(401, "POST", REFRESH, json={"refresh_token": pair["refresh_token"]})
    body = {"tenant": "acme", "email": "gone@acme.example", "password": PASSWORD}
    await stage.anonymous.problem(401, "POST", TOKEN, json=body)


async def test_a_person_signs_in_with_a_changed_address_only(stage: Stage):
    user = await register(stage, "before@acme.example")
    admin = await stage.client("acme")
    await admin.ok("PATCH", f"/api/v1/users/{user['id']}", json={"email": "after@acme.example"})
    await stage.sign_in("acme", "after@acme.example", PASSWORD)
    body = {"tenant": "acme", "email": "before@acme.example", "password": PASSWORD}
    await stage.anonymous.problem(401, "POST", TOKEN, json=body)


# ---------------------------------------------------------------------------- access tokens


def parts(token: str) -> list[dict]:
    return [json.loads(base64.urlsafe_b64decode(p + "=" * (-len(p) % 4))) for p in token.split(".")[:2]]


def unsigned(header: dict, claims: dict) -> str:
    encoded = [base64.urlsafe_b64encode(json.dumps(p).encode()).decode().rstrip("=") for p in (header, claims)]
    return ".".join([*encoded, ""])


async def forgeries(stage: Stage) -> dict[str, str]:
    good = await stage.token("acme")
    header, claims = parts(good)
    jwks = await stage.anonymous.ok("GET", "/api/v1/auth/jwks.json")
    own = OKPKey.generate_key("Ed25519", {"kid": header["kid"]})
    public = OctKey.import_key(json.dumps(jwks["keys"][0]))
    body, signature = good.rpartition(".")[::2]
    elsewhere = unsigned({}, {**claims, "tid": "globex"}).split(".")[1]
    return {
        "garbage": "garbage",
        "dots": "..",
        "empty parts": "a.b.c",
        "cut": good[:-10],
        "turned signature": body + "." + signature[::-1],
        "another's claims": ".".join([good.split(".")[0], elsewhere, signature]),
        "algorithm none": unsigned({**header, "alg": "none"}, claims),
        "own key, our kid": jwt.encode(header, claims, own, algorithms=["Ed25519"]),
        "public key as secret": jwt.encode({**header, "alg": "HS256"}, claims, public, algorithms=["HS256"]),
        "unknown kid": jwt.encode({**header, "kid": "other"}, claims, own, algorithms=["Ed25519"]),
        "latin": "t\u00f6ken",
        "long": "x" * 20_000,
        "key shape": "ks_acme_" + "0" * 32 + "." + "A" * 43,
        "key of no tenant": "ks_nosuch_" + "0" * 32 + "." + "A" * 43,
        "key of all tenants": "ks_*_" + "0" * 32 + "." + "A" * 43,
    }


async def test_no_forged_token_is_good_and_public_pages_still_answer(stage: Stage):
    for name, token in (await forgeries(stage)).items():
        headers = {"authorization": f"Bearer {token}".encode("latin-1", "replace")}
        answer = await stage.anonymous.get(ME, headers=headers)
        assert problem_of(answer, 401)["code"] == "unauthenticated", name
        assert answer.headers["www-authenticate"].startswith("Bearer")
        assert (await stage.anonymous.get("/healthz", headers=headers)).status_code == 200, name


@pytest.mark.parametrize("header", ["", "Bearer", "Bearer ", "Basic YWRtaW46YWRtaW4=", "bearer x y", "\u20ac"])
async def test_a_header_that_cannot_be_read_is_not_signed_in(stage: Stage, header):
    answer = await stage.anonymous.get(ME, headers={"authorization": header.encode()})
    assert problem_of(answer, 401)["code"] == "unauthenticated"


async def test_a_stale_token_says_so_and_gives_nothing_away(stage: Stage):
    user = await register(stage, "stale@acme.example")
    from kernel.adapters.local_keys import open_keys
    from plugins.builtin.identity.infrastructure import load_signing_keys
    from plugins.builtin.identity.tokens import TokenSigner

    keys = await load_signing_keys(stage.platform.database, open_keys(stage.settings))
    stale = TokenSigner(keys, 60, clock=lambda: time.time() - 3600).sign(user["id"], "acme", ("admin",))
    client = await stage.client("acme", stale)
    for path in (ME, "/api/v1/users", "/api/v1/tenants/acme"):
        problem = await client.problem(401, "GET", path)
        assert problem["code"] == "token-expired"
        assert "refresh" in problem["fix"]
    told = await client.graphql("{ users { id } }")
    assert told["errors"][0]["extensions"]["code"] == "token-expired"


async def test_anyone_can_check_tokens_with_the_published_keys(stage: Stage):
    from joserfc.jwk import KeySet

    jwks = await stage.anonymous.ok("GET", "/api/v1/auth/jwks.json")
    assert all("d" not in key for key in jwks["keys"]), "no private part"
    decoded = jwt.decode(await stage.token("acme"), KeySet.import_key_set(jwks), algorithms=["Ed25519"])
    assert decoded.claims["tid"] == "acme"
    assert decoded.claims["exp"] - decoded.claims["iat"] == 15 * 60


# ---------------------------------------------------------------------------- keys


async def test_a_key_acts_with_its_roles_until_it_is_revoked(stage: Stage):
    admin = await stage.client("acme")
    made = await admin.ok("POST", "/api/v1/api-keys", json={"name": "importer", "roles": ["member"]})
    client = await stage.client("acme", made["key"])
    me = await client.ok("GET", ME)
    assert (me["id"], me["kind"], me["roles"]) == (f"api-key:{made['id']}", "api_key", ["member"])
    await client.ok("GET", "/api/v1/users")
    await client.problem(403, "POST", "/api/v1/users", json={"email": "x@acme.example", "name": "X"})
    listed = await admin.ok("GET", "/api/v1/api-keys")
    mine = next(k for k in listed if k["id"] == made["id"])
    assert mine["key"] is None
    assert made["key"].rpartition(".")[2] not in json.dumps(listed)
    await admin.ok("DELETE", f"/api/v1/api-keys/{made['id']}")
    await client.problem(401, "GET", ME)
    await admin.problem(404, "DELETE", f"/api/v1/api-keys/{made['id']}")


@pytest.mark.parametrize(
    "body",
    [
        {"name": "k", "roles": []},
        {"name": "k", "roles": ["emperor"]},
        {"name": "", "roles": ["member"]},
        {"name": "k", "roles": ["member"], "days": 0},
        {"name": "k", "roles": ["member"], "colour": "red"},
        {"name": "nul\u0000", "roles": ["member"]},
    ],
)
async def test_a_key_that_makes_no_sense_is_refused(stage: Stage, body):
    admin = await stage.client("acme")
    before = len(await admin.ok("GET", "/api/v1/api-keys"))
    await admin.problem(422, "POST", "/api/v1/api-keys", json=body)
    assert len(await admin.ok("GET", "/api/v1/api-keys")) == before


# ---------------------------------------------------------------------------- roles


async def test_roles_list_what_each_may_with_the_plugins_permissions(stage: Stage):
    table = await (await stage.client("acme")).ok("GET", "/api/v1/roles")
    assert table["operator"] == ["*"]
    assert "plugins:activate" in table["admin"]
    assert "plugins:install" not in table["admin"]
    assert set(table["member"]) <= set(table["admin"])


async def escalations(stage: Stage, admin: Client) -> dict[str, tuple[str, str, dict]]:
    user = await register(stage, f"mallory{time.time_ns()}@acme.example")
    return {
        "by role": ("PUT", f"/api/v1/roles/users/{user['id']}", {"roles": ["operator"]}),
        "by key": ("POST", "/api/v1/api-keys", {"name": "k", "roles": ["operator"]}),
        "by registration": (
            "POST",
            "/api/v1/users",
            {"email": f"m{time.time_ns()}@acme.example", "name": "M", "password": PASSWORD, "roles": ["operator"]},
        ),
    }


async def test_an_admin_makes_no_operator_in_any_way(stage: Stage):
    admin = await stage.client("acme")
    before = await admin.ok("GET", "/api/v1/users", params={"limit": 200})
    for name, (method, path, body) in (await escalations(stage, admin)).items():
        problem = await admin.problem(403, method, path, json=body)
        assert problem["code"] == "forbidden", name
    after = await admin.ok("GET", "/api/v1/users", params={"limit": 200})
    assert len(after["items"]) == len(before["items"]) + 1, "only the person that the roles were asked for"


async def test_who_may_register_people_but_gives_no_roles_gives_none_at_registration(stage: Stage):
    member = await stage.member("acme", "member")
    body = {"email": "friend@acme.example", "name": "F", "password": PASSWORD, "roles": ["admin"]}
    await member.problem(403, "POST", "/api/v1/users", json=body)


async def test_operators_exist_in_the_platform_tenant_only(stage: Stage):
    operator = await stage.client("platform", **{"x-keelstone-tenant": "acme"})
    body = {"email": "op@acme.example", "name": "Op", "password": PASSWORD, "roles": ["operator"]}
    problem = await operator.problem(403, "POST", "/api/v1/users", json=body)
    assert "platform" in problem["detail"]
    await operator.problem(403, "POST", "/api/v1/api-keys", json={"name": "k", "roles": ["operator"]})
    home = await stage.client("platform")
    made = await home.ok("POST", "/api/v1/api-keys", json={"name": "k", "roles": ["operator"]})
    await (await stage.client("platform", made["key"])).ok("GET", "/api/v1/tenants")


async def test_roles_are_given_to_people_that_exist_only(stage: Stage):
    admin = await stage.client("acme")
    await admin.problem(404, "PUT", f"/api/v1/roles/users/{'0' * 32}", json={"roles": ["member"]})
    user = await register(stage, "roles@acme.example")
    problem = await admin.problem(422, "PUT", f"/api/v1/roles/users/{user['id']}", json={"roles": ["emperor"]})
    assert "emperor" in problem["detail"]
    assert (await admin.ok("GET", f"/api/v1/roles/users/{user['id']}"))["roles"] == ["member"]


async def test_a_member_neither_sees_nor_gives_roles_and_makes_no_keys(stage: Stage):
    member = await stage.member("acme", "member")
    await member.problem(403, "GET", "/api/v1/roles")
    await member.problem(403, "PUT", "/api/v1/roles/users/x", json={"roles": ["admin"]})
    await member.problem(403, "GET", "/api/v1/api-keys")
    await member.problem(403, "POST", "/api/v1/api-keys", json={"name": "k", "roles": ["member"]})
