"""What operators and integrators watch: health, metrics, OpenAPI, events, explain."""

from __future__ import annotations

import re

import pytest
from jsonschema import Draft202012Validator
from prometheus_client.parser import text_string_to_metric_families

from kernel.hookspecs import HOOK_CONTRACT_VERSION
from tests.support.guests import guest
from tests.support.stage import Stage, as_text

pytestmark = pytest.mark.asyncio(loop_scope="module")

EVENTS = "/api/v1/events"


async def test_alive_ready_and_what_runs(stage: Stage):
    alive = await stage.anonymous.ok("GET", "/healthz")
    assert alive == {"status": "alive", "instance": stage.platform.instance}
    ready = await stage.anonymous.ok("GET", "/readyz")
    assert ready["ready"] is True
    assert set(ready["checks"].values()) == {"ok"}
    assert set(ready["plugins"]) >= {f"keelstone/{n}" for n in ("catalog", "identity", "tenants", "users")}
    assert ready["generation"] == stage.platform.activations.current.generation


async def test_a_platform_whose_bus_is_away_is_not_ready_and_says_so(seeded, tmp_path):
    from tests.support.stage import copied

    async with Stage(copied(seeded, tmp_path / "home")) as own:
        await own.platform.bus.close()
        answer = await own.anonymous.get("/readyz")
        assert answer.status_code == 503
        assert answer.json()["checks"]["bus"].startswith("failed")
        assert (await own.anonymous.get("/healthz")).status_code == 200
        await own.platform.bus.start()


async def test_every_answer_has_a_correlation_id_and_the_safe_headers(stage: Stage):
    given = await stage.anonymous.get("/healthz", headers={"x-correlation-id": "my-own-work-01"})
    assert given.headers["x-correlation-id"] == "my-own-work-01"
    for wrong in ("short", "with space in it", "x" * 65, 'quote"quote'):
        answer = await stage.anonymous.get("/nothing/there", headers={"x-correlation-id": wrong})
        assert answer.headers["x-correlation-id"] != wrong
        assert re.fullmatch(r"[0-9a-f]{32}", answer.headers["x-correlation-id"])
    for path in ("/healthz", "/api/v1/users", "/nothing/there"):
        headers = (await stage.anonymous.get(path)).headers
        assert headers["x-content-type-options"] == "nosniff"
        assert headers["cache-control"] == "no-store"
        assert headers["x-frame-options"] == "DENY"


async def test_metrics_count_requests_by_route_and_hooks_by_plugin_and_tenant(stage: Stage):
    await stage.install(guest(), "metrics/guard")
    await stage.activate("acme", "metrics/guard")
    acme = await stage.client("acme")
    user = await acme.ok("POST", "/api/v1/users", json={"email": "metrics@acme.example", "name": "Ada"})
    await acme.ok("GET", f"/api/v1/users/{user['id']}")
    await acme.get("/no/such/page/at/all")
    await acme.request("BREW", "/api/v1/users")
    text = (await stage.anonymous.get("/metrics")).text
    found = {
        (s.name, tuple(sorted(s.labels.items()))): s.value
        for f in text_string_to_metric_families(text)
        for s in f.samples
    }
    routes = {dict(labels)["route"] for (name, labels) in found if name == "keelstone_http_seconds_count"}
    assert "/api/v1/users/{user}" in routes
    assert "unmatched" in routes
    assert user["id"] not in text
    assert "/no/such/page" not in text
    assert "BREW" not in text
    hook = (("hook", "user_creating"), ("plugin", "metrics/guard"), ("tenant", "acme"))
    assert found["keelstone_hook_seconds_count", hook] == 1
    assert found["keelstone_guest_calls_total", (("plugin", "metrics/guard"), ("tenant", "acme"))] == 1
    await acme.ok("DELETE", "/api/v1/tenants/acme/activations/metrics/guard")


# ---------------------------------------------------------------------------- OpenAPI


async def test_the_openapi_document_is_3_1_and_whole(stage: Stage):
    document = await stage.anonymous.ok("GET", "/openapi.json")
    assert document["openapi"].startswith("3.1")
    assert document["info"]["version"] == HOOK_CONTRACT_VERSION
    references = set(re.findall(r'"\$ref": "#/components/schemas/([^"]+)"', as_text(document)))
    assert references <= set(document["components"]["schemas"])
    for name, schema in document["components"]["schemas"].items():
        Draft202012Validator.check_schema(schema)
        assert schema.get("description") or schema.get("title"), name
    ids = []
    for path, operations in document["paths"].items():
        named = set(re.findall(r"\{(\w+)\}", path))
        for method, operation in operations.items():
            ids.append(operation["operationId"])
            assert operation["summary"], f"{method} {path}"
            assert operation["responses"], f"{method} {path}"
            taken = {p["name"] for p in operation.get("parameters", ()) if p["in"] == "path"}
            # A tenant in a path is taken by the permission check itself.
            assert taken | {"tenant"} >= named, f"{method} {path}"
    assert len(ids) == len(set(ids))


async def test_every_operation_says_which_permission_it_needs_and_asks_for_it(stage: Stage):
    document = await stage.anonymous.ok("GET", "/openapi.json")
    public = {
        f"{method} {path}"
        for path, operations in document["paths"].items()
        for method, operation in operations.items()
        if operation.get("security") == []
    }
    assert public == {
        "get /healthz",
        "get /readyz",
        "get /metrics",
        "post /api/v1/auth/token",
        "post /api/v1/auth/refresh",
        "post /api/v1/auth/revoke",
        "get /api/v1/auth/jwks.json",
    }
    for path, operations in document["paths"].items():
        for method in operations:
            if f"{method} {path}" in public or path == "/graphql":
                continue
            filled = re.sub(r"\{\w+\}", "x", path)
            params = {"stream": "x", "consumer": "x"}
            body = {} if method in ("post", "put", "patch") else None
            answer = await stage.anonymous.request(method, filled, params=params, json=body)
            # The body's shape is read before anybody asks who sent it.
            assert answer.status_code in (401, 422), f"{method} {path}: {answer.status_code}"


# ---------------------------------------------------------------------------- events


async def test_events_come_in_pages_by_type_by_stream_and_backwards(stage: Stage):
    acme = await stage.client("acme")
    users = [
        await acme.ok("POST", "/api/v1/users", json={"email": f"event{n}@acme.example", "name": "Ada"})
        for n in range(3)
    ]
    seen, after = [], 0
    while after is not None:
        page = await acme.ok("GET", EVENTS, params={"after": after, "limit": 2})
        seen += page["items"]
        after = page["next"]
    positions = [e["position"] for e in seen]
    assert positions == sorted(set(positions))
    assert all(e["tenant"] == "acme" for e in seen)
    only = await acme.ok("GET", EVENTS, params={"type": ["user.*"], "limit": 200})
    assert {e["type"].partition(".")[0] for e in only["items"]} == {"user"}
    newest = await acme.ok("GET", EVENTS, params={"newest_first": True, "limit": 1})
    assert newest["items"][0]["position"] == positions[-1]
    mine = await acme.ok("GET", EVENTS, params={"stream": f"user:{users[0]['id']}"})
    assert [e["version"] for e in mine["items"]] == [1]
    assert mine["items"][0]["metadata"]["correlation_id"]
    assert len(mine["items"][0]["hash"]) == 64
    assert (await acme.ok("GET", EVENTS, params={"type": "no.such"}))["items"] == []
    member = await stage.member("acme", "member")
    await member.problem(403, "GET", EVENTS)


@pytest.mark.parametrize(
    "query", ["after=-1", "limit=0", "limit=1000", f"stream={'x' * 300}", "after=x", "newest_first=perhaps"]
)
async def test_events_that_cannot_be_asked_for_so_are_refused(stage: Stage, query):
    await (await stage.client("acme")).problem(422, "GET", f"{EVENTS}?{query}")


async def test_events_past_the_end_are_none(stage: Stage):
    acme = await stage.client("acme")
    assert await acme.ok("GET", EVENTS, params={"after": 2**62}) == {"items": [], "next": None}
    await acme.problem(422, "GET", EVENTS, params={"after": 2**80})
    verified = await acme.ok("GET", f"{EVENTS}/verify", params={"stream": "no:such"})
    assert verified["whole"] is True


# ---------------------------------------------------------------------------- explain


async def test_explain_tells_a_tenant_of_its_own_work_only(stage: Stage):
    await stage.install(guest({"payload": {"email": "x@acme.example", "name": "Changed"}}), "explain/guard")
    await stage.activate("acme", "explain/guard")
    acme, globex, operator = [await stage.client(t) for t in ("acme", "globex", "platform")]
    headers = {"x-correlation-id": "shared-by-both-01"}
    body = {"email": "y@acme.example", "name": "Ada"}
    assert (await acme.post("/api/v1/users", json=body, headers=headers)).status_code == 201
    assert (await globex.post("/api/v1/users", json=body, headers=headers)).status_code == 201
    path = "/api/v1/hooks/shared-by-both-01/explain"
    (told,) = await acme.ok("GET", path)
    (step,) = told["implementations"]
    assert (told["hook"], told["kind"], told["tenant"]) == ("user_creating", "filter", "acme")
    assert (step["plugin"], step["version"], step["outcome"]) == ("explain/guard", "1.0.0", "changed")
    assert step["changed"] == ["email", "name"]
    assert step["breaker"] == "closed"
    assert "@" not in as_text(told), "values may be personal"
    await globex.problem(404, "GET", path)
    assert [t["tenant"] for t in await operator.ok("GET", path)] == ["acme"]
    await acme.problem(404, "GET", "/api/v1/hooks/nothing-here-01/explain")
    member = await stage.member("acme", "member")
    await member.problem(403, "GET", path)
    await acme.ok("DELETE", "/api/v1/tenants/acme/activations/explain/guard")


# ---------------------------------------------------------------------------- dead letters


async def test_dead_letters_that_are_not_there_are_not_found(stage: Stage):
    acme = await stage.client("acme")
    assert await acme.ok("GET", "/api/v1/dead-letters") == []
    await acme.problem(404, "POST", "/api/v1/dead-letters/retry", json={"consumer": "x", "stream": "y"})
    await acme.problem(404, "DELETE", "/api/v1/dead-letters/nosuch", params={"consumer": "x"})
    await acme.problem(422, "DELETE", "/api/v1/dead-letters/nosuch")
    await acme.problem(422, "POST", "/api/v1/dead-letters/retry", json={"consumer": "x"})
    await acme.problem(422, "POST", "/api/v1/dead-letters/retry", json={"consumer": "nul\u0000", "stream": "y"})
    member = await stage.member("acme", "member")
    await member.problem(403, "GET", "/api/v1/dead-letters")
