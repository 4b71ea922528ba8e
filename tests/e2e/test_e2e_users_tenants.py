"""People and tenants over REST and GraphQL."""

from __future__ import annotations

import asyncio
import itertools

import pytest

from tests.support.stage import Stage

pytestmark = pytest.mark.asyncio(loop_scope="module")

USERS, TENANTS = "/api/v1/users", "/api/v1/tenants"
_numbers = itertools.count(1)


def address() -> str:
    return f"person{next(_numbers)}@people.example"


async def made(stage: Stage, tenant: str = "acme", **changes) -> dict:
    admin = await stage.client(tenant)
    return await admin.ok("POST", USERS, json={"email": address(), "name": "Ada", **changes})


async def history(stage: Stage, stream: str, tenant: str = "acme") -> list[dict]:
    admin = await stage.client(tenant)
    return (await admin.ok("GET", "/api/v1/events", params={"stream": stream}))["items"]


# ---------------------------------------------------------------------------- people


async def test_a_person_is_registered_tidied_and_told_as_an_event(stage: Stage):
    admin = await stage.client("acme")
    email = address()
    body = {"email": f"  {email.replace('people', 'PEOPLE')} ", "name": " Ada \t Lovelace "}
    body["attributes"] = {"count": 0, "flag": False, "text": "", "none": None, "list": []}
    user = await admin.ok("POST", USERS, json=body)
    assert (user["email"], user["name"], user["version"]) == (email, "Ada Lovelace", 1)
    assert user["attributes"] == body["attributes"], "falsy values are kept"
    assert await admin.ok("GET", f"{USERS}/{user['id']}") == user
    (event,) = await history(stage, f"user:{user['id']}")
    assert event["type"] == "user.created"
    assert event["data"]["attributes"] == body["attributes"]
    verified = await admin.ok("GET", "/api/v1/events/verify", params={"stream": f"user:{user['id']}"})
    assert verified == {"stream": f"user:{user['id']}", "whole": True, "broken_at": None}


async def test_an_address_is_taken_once_in_a_tenant_whatever_its_case(stage: Stage):
    user = await made(stage)
    admin = await stage.client("acme")
    for email in (user["email"], user["email"].upper()):
        problem = await admin.problem(409, "POST", USERS, json={"email": email, "name": "Again"})
        assert problem["code"] == "conflict"
    await made(stage, "globex", email=user["email"])
    other = await made(stage)
    await admin.problem(409, "PATCH", f"{USERS}/{other['id']}", json={"email": user["email"]})
    assert (await admin.ok("GET", f"{USERS}/{other['id']}"))["email"] == other["email"]


async def test_of_many_registrations_at_once_one_wins_and_the_rest_leave_nothing(stage: Stage):
    admin = await stage.client("acme")
    body = {"email": address(), "name": "Ada"}
    answers = await asyncio.gather(*(admin.post(USERS, json=body) for _ in range(8)))
    assert sorted(a.status_code for a in answers) == [201, *[409] * 7]
    assert len((await admin.ok("GET", USERS, params={"email": body["email"]}))["items"]) == 1


async def test_a_profile_changes_by_the_version_that_was_seen(stage: Stage):
    user = await made(stage)
    admin = await stage.client("acme")
    path = f"{USERS}/{user['id']}"
    changed = await admin.ok("PATCH", path, json={"name": "Countess", "version": 1})
    assert (changed["name"], changed["version"]) == ("Countess", 2)
    problem = await admin.problem(409, "PATCH", path, json={"name": "Late", "version": 1})
    assert (problem["code"], problem["expected"], problem["found"]) == ("concurrency", "version 1", "version 2")
    assert (await admin.ok("PATCH", path, json={"name": "Countess"}))["version"] == 2, "nothing changed"
    assert (await admin.ok("PATCH", path, json={"attributes": {}}))["version"] == 2
    types = [(e["type"], e["data"].get("changed")) for e in await history(stage, f"user:{user['id']}")]
    assert types == [("user.created", None), ("user.updated", ["name"])]


async def test_changes_at_once_lose_nothing(stage: Stage):
    user = await made(stage)
    admin = await stage.client("acme")
    path = f"{USERS}/{user['id']}"
    answers = await asyncio.gather(*(admin.patch(path, json={"name": f"N{n}"}) for n in range(10)))
    won = [a.json()["name"] for a in answers if a.status_code == 200]
    assert won
    assert {a.status_code for a in answers} <= {200, 409}
    events = await history(stage, f"user:{user['id']}")
    assert [e["version"] for e in events] == list(range(1, len(won) + 2))
    assert {e["data"]["name"] for e in events[1:]} == set(won)


async def test_preferences_are_merged_and_null_takes_one_away(stage: Stage):
    user = await made(stage)
    admin = await stage.client("acme")
    path = f"{USERS}/{user['id']}/preferences"
    await admin.ok("PUT", path, json={"theme": "dark", "size": 0, "beta": False})
    after = await admin.ok("PUT", path, json={"theme": None, "name": ""})
    assert after["preferences"] == {"size": 0, "beta": False, "name": ""}
    problem = await admin.problem(422, "PUT", path, json={f"k{n}": n for n in range(101)})
    assert "preferences" in problem["detail"]


async def test_a_removed_person_is_gone_and_removing_again_says_so(stage: Stage):
    user = await made(stage)
    admin = await stage.client("acme")
    path = f"{USERS}/{user['id']}"
    assert (await admin.delete(path)).status_code == 204
    for method in ("GET", "DELETE"):
        problem = await admin.problem(404, method, path)
        assert user["id"] in problem["detail"]
    await admin.problem(404, "PATCH", path, json={"name": "Ghost"})
    await admin.problem(404, "PUT", f"{path}/preferences", json={"a": 1})
    assert [e["type"] for e in await history(stage, f"user:{user['id']}")] == ["user.created", "user.removed"]
    await made(stage, email=user["email"])


async def test_people_come_in_pages_each_once(stage: Stage):
    admin = await stage.client("acme")
    ids = [(await made(stage))["id"] for _ in range(5)]
    seen, after = [], None
    while True:
        page = await admin.ok("GET", USERS, params={"limit": 2, **({"after": after} if after else {})})
        seen += [u["id"] for u in page["items"]]
        after = page["next"]
        if after is None:
            break
    assert len(seen) == len(set(seen))
    assert set(ids) <= set(seen)
    assert seen == sorted(seen)


@pytest.mark.parametrize(
    "query", ["limit=0", "limit=201", "limit=x", f"after={'x' * 65}", "limit=-1", f"email={'x' * 300}"]
)
async def test_a_page_that_cannot_be_asked_for_is_refused(stage: Stage, query):
    await (await stage.client("acme")).problem(422, "GET", f"{USERS}?{query}")


@pytest.mark.parametrize(
    "change",
    [
        {"email": "not an address"},
        {"email": "a@b"},
        {"email": "a@b.c"},
        {"email": "a b@example.com"},
        {"email": "a@exa\u0000mple.com"},
        {"email": "a\u0000@example.com"},
        {"email": "a" * 65 + "@example.com"},
        {"email": "a@" + "b" * 260 + ".com"},
        {"email": ""},
        {"email": None},
        {"email": 7},
        {"name": ""},
        {"name": "   "},
        {"name": "x" * 201},
        {"name": "nul\u0000byte"},
        {"name": "bell\u0007"},
        {"attributes": []},
        {"attributes": "text"},
        {"attributes": {f"k{n}": n for n in range(101)}},
        {"roles": ["emperor"]},
        {"colour": "red"},
    ],
    ids=lambda c: str(c)[:40].replace("\x00", "NUL").replace("\x07", "BEL"),
)
async def test_a_person_who_cannot_be_is_refused_and_nothing_stored(stage: Stage, change):
    admin = await stage.client("acme")
    before = await admin.ok("GET", "/api/v1/events", params={"newest_first": True, "limit": 1})
    body = {"email": address(), "name": "Ada", **change}
    problem = await admin.problem(422, "POST", USERS, json=body)
    assert problem["code"] == "validation"
    assert await admin.ok("GET", "/api/v1/events", params={"newest_first": True, "limit": 1}) == before
    if "roles" not in change:
        user = await made(stage)
        unnamed = {k: v for k, v in change.items() if v is not None}
        if unnamed:
            await admin.problem(422, "PATCH", f"{USERS}/{user['id']}", json=change)


RAW = {
    "nan": '{"email": "%s", "name": "A", "attributes": {"n": NaN}}',
    "infinity": '{"email": "%s", "name": "A", "attributes": {"n": [-Infinity]}}',
    "beyond 64 bits": '{"email": "%s", "name": "A", "attributes": {"n": 18446744073709551617}}',
    "beyond floats": '{"email": "%s", "name": "A", "attributes": {"n": 1e999}}',
    "half a surrogate": '{"email": "%s", "name": "A", "attributes": {"t": "\\ud800"}}',
    "half a surrogate as key": '{"email": "%s", "name": "A", "attributes": {"\\udfff": 1}}',
    "half a surrogate as name": '{"email": "%s", "name": "A\\ud800"}',
    "nul": '{"email": "%s", "name": "A", "attributes": {"t": "a\\u0000b"}}',
    "deep": '{"email": "%s", "name": "A", "attributes": ' + '{"a":' * 60 + "1" + "}" * 60 + "}",
}


@pytest.mark.parametrize("name", RAW)
async def test_json_that_not_every_database_takes_is_refused_at_the_door(stage: Stage, name):
    admin = await stage.client("acme")
    text = RAW[name] % address()
    headers = {"content-type": "application/json"}
    problem = await admin.problem(422, "POST", USERS, content=text, headers=headers)
    assert problem["code"] == "validation"
    user = await made(stage)
    attributes = text.partition('"attributes": ')[2]
    if attributes:
        await admin.problem(
            422, "PATCH", f"{USERS}/{user['id']}", content='{"attributes": ' + attributes, headers=headers
        )
        await admin.problem(422, "PUT", f"{USERS}/{user['id']}/preferences", content=attributes[:-1], headers=headers)
        await admin.problem(422, "PATCH", f"{TENANTS}/acme", content='{"configuration": ' + attributes, headers=headers)
    assert (await admin.ok("GET", f"{USERS}/{user['id']}")) == user


@pytest.mark.parametrize("content", ["", "{", "[]", "null", '"text"', "{}" * 2, "\ufeff{}", b"\xff\xfe", "[" * 100_000])
async def test_a_body_that_is_not_the_json_asked_for_is_refused(stage: Stage, content):
    admin = await stage.client("acme")
    answer = await admin.post(USERS, content=content, headers={"content-type": "application/json"})
    assert answer.status_code in (400, 422), answer.text
    assert answer.headers["content-type"] == "application/problem+json"


# ---------------------------------------------------------------------------- tenants


async def test_a_tenant_is_provisioned_once_and_by_operators_only(stage: Stage):
    operator = await stage.client("platform")
    body = {"id": "initech", "name": "Initech", "configuration": {"seats": 0}}
    tenant = await operator.ok("POST", TENANTS, json=body)
    assert (tenant["id"], tenant["plan"], tenant["version"]) == ("initech", "free", 1)
    problem = await operator.problem(409, "POST", TENANTS, json=body)
    assert problem["tenant"] == "initech"
    for role in ("admin", "member"):
        client = await stage.member("acme", role)
        await client.problem(403, "POST", TENANTS, json={"id": "umbrella", "name": "Umbrella"})
    listed = await operator.ok("GET", TENANTS)
    assert {"acme", "globex", "initech"} <= {t["id"] for t in listed["items"]}
    assert "umbrella" not in {t["id"] for t in listed["items"]}


@pytest.mark.parametrize(
    "change",
    [
        {"id": "platform"},
        {"id": "*"},
        {"id": "admin"},
        {"id": "ab"},
        {"id": "Upper"},
        {"id": "under_score"},
        {"id": "dash-"},
        {"id": "x" * 41},
        {"id": "new\nline"},
        {"id": "../etc"},
        {"name": ""},
        {"name": "nul\u0000"},
        {"plan": ""},
        {"plan": "x" * 61},
        {"configuration": []},
        {"colour": "red"},
    ],
    ids=str,
)
async def test_a_tenant_that_cannot_be_is_refused(stage: Stage, change):
    operator = await stage.client("platform")
    before = await operator.ok("GET", TENANTS)
    problem = await operator.problem(422, "POST", TENANTS, json={"id": "hooli", "name": "Hooli", **change})
    assert problem["code"] == "validation"
    assert await operator.ok("GET", TENANTS) == before


async def test_an_admin_sees_and_configures_its_own_tenant_only(stage: Stage):
    admin = await stage.client("acme")
    assert [t["id"] for t in (await admin.ok("GET", TENANTS))["items"]] == ["acme"]
    await admin.ok("PATCH", f"{TENANTS}/acme", json={"configuration": {"region": "eu", "seats": 0, "beta": False}})
    after = await admin.ok("PATCH", f"{TENANTS}/acme", json={"name": "Acme Inc.", "configuration": {"region": None}})
    assert after["configuration"] == {"seats": 0, "beta": False}
    assert after["name"] == "Acme Inc."
    types = [e["type"] for e in await history(stage, "tenant:acme")]
    assert types[:3] == ["tenant.created", "tenant.configured", "tenant.configured"]
    member = await stage.member("acme", "member")
    await member.ok("GET", f"{TENANTS}/acme")
    await member.problem(403, "PATCH", f"{TENANTS}/acme", json={"name": "Mine"})


async def test_the_plan_is_the_operators_to_change(stage: Stage):
    admin, operator = await stage.client("acme"), await stage.client("platform")
    before = await admin.ok("GET", f"{TENANTS}/acme")
    await admin.problem(403, "PATCH", f"{TENANTS}/acme", json={"plan": "enterprise", "name": "Sneaky"})
    assert await admin.ok("GET", f"{TENANTS}/acme") == before
    assert (await operator.ok("PATCH", f"{TENANTS}/acme", json={"plan": "team"}))["plan"] == "team"
    await admin.ok("PATCH", f"{TENANTS}/acme", json={"plan": "team", "configuration": {}})


async def test_the_overview_follows_what_happens(stage: Stage):
    await stage.quiet()
    admin = await stage.client("acme")
    before = await admin.ok("GET", f"{TENANTS}/acme/overview")
    user = await made(stage)
    await made(stage)
    await admin.ok("DELETE", f"{USERS}/{user['id']}")
    await stage.quiet()
    after = await admin.ok("GET", f"{TENANTS}/acme/overview")
    assert after["users"] == before["users"] + 1
    assert after["events"] == before["events"] + 3
    operator = await stage.client("platform")
    rebuilt = await operator.ok("POST", "/api/v1/projections/tenants-overview/rebuild")
    assert rebuilt["events"] > 0
    assert await admin.ok("GET", f"{TENANTS}/acme/overview") == after
    await admin.problem(403, "POST", "/api/v1/projections/tenants-overview/rebuild")


@pytest.mark.parametrize("tenant", ["nosuch", "*", "platform2", "%2a", "..", "a" * 100])
async def test_an_operator_cannot_work_in_a_tenant_that_is_not_there(stage: Stage, tenant):
    operator = await stage.client("platform")
    for method, path, body in (
        ("GET", f"{TENANTS}/{tenant}", None),
        ("PATCH", f"{TENANTS}/{tenant}", {"name": "Ghost"}),
        ("GET", f"{TENANTS}/{tenant}/overview", None),
        ("GET", f"{TENANTS}/{tenant}/activations", None),
    ):
        answer = await operator.request(method, path, json=body)
        assert answer.status_code in (403, 404), (path, answer.status_code, answer.text)
        assert answer.headers["content-type"] == "application/problem+json"
    ghost = await stage.client("platform", **{"x-keelstone-tenant": tenant})
    answer = await ghost.post(USERS, json={"email": address(), "name": "Ghost"})
    assert answer.status_code in (403, 404), answer.text
    told = (await ghost.post("/graphql", json={"query": "{ users { id } }"})).json()
    code = told["errors"][0]["extensions"]["code"] if "errors" in told else told["code"]
    assert code in ("not-found", "tenant-mismatch")


async def test_an_operator_works_in_a_tenant_by_naming_it(stage: Stage):
    operator = await stage.client("platform", **{"x-keelstone-tenant": "globex"})
    user = await operator.ok("POST", USERS, json={"email": address(), "name": "Ada"})
    globex = await stage.client("globex")
    assert (await globex.ok("GET", f"{USERS}/{user['id']}"))["id"] == user["id"]
    (event,) = await history(stage, f"user:{user['id']}", "globex")
    assert event["metadata"]["principal"] != "", "who did it is kept"


# ---------------------------------------------------------------------------- GraphQL


async def test_graphql_shows_the_same_as_rest(stage: Stage):
    admin = await stage.client("acme")
    found = await admin.graphql(
        """mutation M($email: String!) {
             createUser(email: $email, name: "Grace", attributes: {count: 0, flag: false}) {
               id email name attributes version
             }
           }""",
        email=address(),
    )
    user = found["data"]["createUser"]
    assert user["attributes"] == {"count": 0, "flag": False}
    rest = await admin.ok("GET", f"{USERS}/{user['id']}")
    assert {k: rest[k] for k in user} == user
    asked = await admin.graphql(
        'query Q($id: ID!) { user(id: $id) { id name } users(limit: 200) { id } tenants { id } tenant(id: "acme") '
        '{ id name configuration } events(limit: 3, types: ["user.created"]) { type stream data } }',
        id=user["id"],
    )
    data = asked["data"]
    assert data["user"] == {"id": user["id"], "name": "Grace"}
    assert user["id"] in [u["id"] for u in data["users"]]
    assert [t["id"] for t in data["tenants"]] == ["acme"]
    assert data["events"][0]["stream"] == f"user:{user['id']}"


@pytest.mark.parametrize(
    ("query", "code"),
    [
        ('{ user(id: "nosuch") { id } }', "not-found"),
        ('{ tenant(id: "globex") { id } }', "tenant-mismatch"),
        ('{ activations(tenant: "globex") { plugin } }', "tenant-mismatch"),
        ('mutation { createUser(email: "x", name: "") { id } }', "validation"),
        ('mutation { createUser(email: "", name: "A") { id } }', "validation"),
        ('mutation { createUser(email: "a@b.example", name: "A", attributes: [1]) { id } }', "validation"),
        ('mutation { createUser(email: "a@b.example", name: "A", attributes: "x") { id } }', "validation"),
        ('mutation { activatePlugin(plugin: "acme/ghost") { plugin } }', "not-found"),
        ('mutation { activatePlugin(plugin: "keelstone/users") { plugin } }', "forbidden"),
        ('mutation { deactivatePlugin(plugin: "acme/ghost") { plugin } }', "not-found"),
    ],
)
async def test_graphql_errors_carry_the_same_codes(stage: Stage, query, code):
    told = await (await stage.client("acme")).graphql(query)
    assert told["errors"][0]["extensions"]["code"] == code, told
    assert told["errors"][0]["extensions"]["status"] >= 400


@pytest.mark.parametrize(
    "query",
    [
        "{ nosuch }",
        "{",
        "",
        "{ users { id } " * 3,
        "{ " + " ".join(f"a{n}: users {{ id }}" for n in range(40)) + " }",
        "{ users { " + "id " * 3_000 + "} }",
        "{ __schema { types { fields { type { fields { type { fields { type { name } } } } } } } } }",
    ],
    ids=["unknown", "cut", "empty", "unclosed", "aliases", "tokens", "deep"],
)
async def test_graphql_that_makes_no_sense_or_costs_too_much_is_refused(stage: Stage, query):
    answer = await (await stage.client("acme")).post("/graphql", json={"query": query})
    assert answer.status_code in (200, 400)
    if answer.status_code == 200:
        assert answer.json()["errors"]
        assert not answer.json().get("data")


async def test_graphql_asks_the_anonymous_to_sign_in_and_members_for_permission(stage: Stage):
    told = await stage.anonymous.graphql("{ users { id } }")
    assert told["errors"][0]["extensions"]["code"] == "unauthenticated"
    member = await stage.member("acme", "member")
    assert "errors" not in await member.graphql("{ users { id } }")
    told = await member.graphql('mutation { createUser(email: "a@b.example", name: "A") { id } }')
    assert told["errors"][0]["extensions"]["code"] == "forbidden"
    assert (await stage.anonymous.get("/graphql", params={"query": "{ users { id } }"})).status_code >= 400
