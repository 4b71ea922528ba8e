"""Bad input: each gets one clear error, nothing is half-done, and the others are still served."""

from __future__ import annotations

import pytest
import pytest_asyncio

from marketplace.archive import read_archive, write_archive
from marketplace.keys import generate_key
from marketplace.namespaces import make_key_set
from marketplace.testing import make_signed, write_plugin
from tests.support.guests import CAPABILITIES, guest, signed, text_guest
from tests.support.stage import Client, Stage, as_text, copied, problem_of

pytestmark = pytest.mark.asyncio(loop_scope="module")

USERS, INSTALL, PUBLISH = "/api/v1/users", "/api/v1/plugins/install", "/marketplace/publish"
TIGHT = "[limits]\ntime_ms = 200\nmemory_mb = 8\noutput_kb = 64\n"
ALL = CAPABILITIES["kv"] + CAPABILITIES["log"]


def activation(plugin: str, tenant: str = "acme") -> str:
    return f"/api/v1/tenants/{tenant}/activations/{plugin}"


@pytest_asyncio.fixture(autouse=True, loop_scope="module")
async def _nothing_left_on(stage: Stage):
    """Whatever a test switched on is off again for the next one."""
    yield
    for tenant in ("acme", "globex"):
        operator = await stage.client("platform")
        for found in await operator.ok("GET", f"/api/v1/tenants/{tenant}/activations"):
            if found["state"] == "active":
                await operator.ok("DELETE", activation(found["plugin"], tenant))


async def register(client: Client, email: str, **more):
    return await client.post(USERS, json={"email": email, "name": "Ada", **more})


# ---------------------------------------------------------------------------- guests that misbehave


@pytest.mark.parametrize(
    ("name", "cause"),
    [
        ("trap", "guest-trap"),
        ("loop", "guest-time-limit"),
        ("start_loop", "guest-time-limit"),
        ("memory", "guest-memory-limit"),
        ("recursion", "guest-stack-limit"),
        ("flood", "guest-output-limit"),
        ("bad_text", "guest-output-invalid"),
        ("bad_pointer", "guest-trap"),
        ("error", "guest-error"),
    ],
)
async def test_a_guest_that_misbehaves_fails_its_own_tenants_call_clearly_and_no_other(stage: Stage, name, cause):
    plugin = f"bad/{name.replace('_', '-')}"
    await stage.install(text_guest(name), plugin, more=TIGHT)
    await stage.activate("acme", plugin)
    acme, globex = await stage.client("acme"), await stage.client("globex")
    answer = await register(acme, f"{name}@bad.example")
    problem = problem_of(answer, 503)
    assert problem["code"] == "plugin-unavailable"
    assert problem["cause"] == cause, problem
    assert (problem["plugin"], problem["hook"], problem["tenant"]) == (plugin, "user_creating", "acme")
    assert problem["fix"]
    assert (await acme.ok("GET", USERS, params={"email": f"{name}@bad.example"}))["items"] == []
    assert (await register(globex, f"{name}@bad.example")).status_code == 201
    told = await acme.ok("GET", f"/api/v1/hooks/{answer.headers['x-correlation-id']}/explain")
    assert told[0]["implementations"][0]["outcome"] == "failed"
    await acme.ok("DELETE", activation(plugin))
    assert (await register(acme, f"{name}@bad.example")).status_code == 201


@pytest.mark.parametrize(
    ("reply", "told"),
    [
        ({"payload": {"email": "x@bad.example"}}, "name"),
        ({"payload": {"email": "x@bad.example", "name": "A", "roles": ["operator"]}}, "roles"),
        ({"payload": {"email": "x@bad.example", "name": "A", "attributes": {"n": 2**70}}}, "64 bits"),
        ({"allow": True}, "allow"),
        ([], "reply"),
    ],
    ids=["missing", "extra", "number", "foreign", "list"],
)
async def test_a_guest_that_answers_nonsense_is_told_what_does_not_fit(stage: Stage, reply, told):
    plugin = f"bad/nonsense-{told.replace(' ', '-')}"
    await stage.install(guest(reply), plugin)
    await stage.activate("acme", plugin)
    acme = await stage.client("acme")
    problem = problem_of(await register(acme, "nonsense@bad.example"), 503)
    assert problem["cause"] == "plugin-failed"
    assert told in problem["detail"]


async def test_a_guest_that_keeps_failing_is_rested_and_others_are_not(stage: Stage):
    await stage.install(text_guest("trap"), "bad/always")
    for tenant in ("acme", "globex"):
        await stage.activate(tenant, "bad/always")
    acme, globex = await stage.client("acme"), await stage.client("globex")
    causes = [(await register(acme, "always@bad.example")).json()["cause"] for _ in range(7)]
    assert causes == ["guest-trap"] * 5 + ["breaker-open"] * 2
    assert (await register(globex, "always@bad.example")).json()["cause"] == "guest-trap"
    await acme.ok("DELETE", activation("bad/always"))
    assert (await register(acme, "always@bad.example")).status_code == 201


async def test_a_payload_too_large_for_a_guest_is_the_callers_to_mend_and_rests_nobody(stage: Stage):
    await stage.install(guest(), "bad/narrow", more="[limits]\ninput_kb = 1\n")
    await stage.activate("acme", "bad/narrow")
    acme = await stage.client("acme")
    for _ in range(7):
        problem = problem_of(await register(acme, "big@bad.example", attributes={"text": "x" * 2_000}), 413)
        assert (problem["code"], problem["plugin"]) == ("guest-input-limit", "bad/narrow")
    assert (await register(acme, "big@bad.example")).status_code == 201


async def test_a_failing_policy_plugin_locks_its_tenant_and_an_operator_lets_it_out(stage: Stage):
    await stage.install(text_guest("trap"), "bad/policy", hook="access_deciding")
    await stage.activate("globex", "bad/policy")
    globex, operator = await stage.client("globex"), await stage.client("platform")
    problem = await globex.problem(503, "GET", USERS)
    assert problem["plugin"] == "bad/policy"
    assert "operator" in problem["fix"]
    await (await stage.client("acme")).ok("GET", USERS)
    assert (await operator.ok("DELETE", activation("bad/policy", "globex")))["state"] == "disabled"
    await globex.ok("GET", USERS)


# ---------------------------------------------------------------------------- components that cannot run


@pytest.mark.parametrize("name", ["unknown_import", "wrong_type", "no_handle", "other_handle"])
async def test_a_component_that_does_not_fit_is_refused_and_leaves_no_trace(stage: Stage, name):
    plugin = f"unfit/{name.replace('_', '-')}"
    operator = await stage.client("platform")
    files = {p for p in (stage.home / "blobs").rglob("*") if p.is_file()}
    package = signed(stage.home / "unfit", stage.key, text_guest(name), plugin, more=ALL)
    registry = stage.platform.registry
    await registry.register_namespace(make_key_set("unfit", [stage.key]).document, by_operator=True)
    answer = await stage.anonymous.post(PUBLISH, files={"package": package.package.data, "signature": package.envelope})
    if answer.status_code == 201:
        problem = await operator.problem(422, "POST", INSTALL, json={"plugin": plugin})
        assert problem["plugin"] == plugin
        assert problem["code"] in ("bad-component", "import-not-covered")
    else:
        assert answer.status_code == 422
        await operator.problem(404, "POST", INSTALL, json={"plugin": plugin})
    assert plugin not in [p["id"] for p in await operator.ok("GET", "/api/v1/plugins")]
    assert {p for p in (stage.home / "blobs").rglob("*") if p.is_file()} == files


async def test_a_component_that_asks_for_more_than_its_manifest_is_refused(stage: Stage):
    registry = stage.platform.registry
    await registry.register_namespace(make_key_set("greedy", [stage.key]).document, by_operator=True)
    package = signed(stage.home / "greedy", stage.key, guest(kv=("k", "v")), "greedy/guard")
    answer = await stage.anonymous.post(PUBLISH, files={"package": package.package.data, "signature": package.envelope})
    assert answer.status_code == 422, answer.text
    assert "kv" in answer.text


# ---------------------------------------------------------------------------- packages


def repacked(data: bytes, change) -> bytes:
    """The package with its members changed by ``change(name, content)``; None leaves one out."""
    changed = {name: change(name, content) for name, content in read_archive(data, 10**8).items()}
    return write_archive({name: content for name, content in changed.items() if content is not None})


async def bad_packages(stage: Stage) -> dict[str, tuple[dict, set[str]]]:
    """Form parts by name, with the codes that fit."""
    key, other = stage.key, generate_key()
    registry = stage.platform.registry
    await registry.register_namespace(make_key_set("shady", [key]).document, by_operator=True)
    home = write_plugin(stage.home / "shady", "shady/guard")
    good = make_signed(home, key, guest())
    data, envelope = good.package.data, good.envelope
    foreign = make_signed(home, other, guest())
    return {
        "nothing": ({}, {"validation"}),
        "empty": ({"package": b"", "signature": envelope}, {"package-corrupt"}),
        "garbage": ({"package": b"garbage" * 100, "signature": envelope}, {"package-corrupt"}),
        "cut": ({"package": data[: len(data) // 2], "signature": envelope}, {"package-corrupt"}),
        "turned byte": ({"package": data[:-600] + bytes([data[-600] ^ 1]) + data[-599:], "signature": envelope}, None),
        "no signature": ({"package": data}, {"signature-missing"}),
        "empty signature": ({"package": data, "signature": b""}, {"signature-missing", "signature-invalid"}),
        "garbage signature": ({"package": data, "signature": b"{}"}, {"signature-invalid"}),
        "foreign signature": (
            {"package": data, "signature": foreign.envelope},
            {"signer-unknown"},
        ),
        "too large": (
            {"package": bytes(34 * 1024 * 1024), "signature": envelope},
            {"body-too-large"},
        ),
    }


NAMES = (
    "nothing", "empty", "garbage", "cut", "turned byte", "no signature", "empty signature", "garbage signature",
    "foreign signature", "too large",
)  # fmt: skip


@pytest.mark.parametrize("name", NAMES)
async def test_a_bad_package_is_refused_with_one_clear_error_and_not_published(stage: Stage, name):
    packages = await bad_packages(stage)
    assert set(packages) == set(NAMES)
    parts, codes = packages[name]
    files = {k: (k, v) for k, v in parts.items()} or {"x": ("x", b"x")}
    answer = await stage.anonymous.post(PUBLISH, files=files)
    assert answer.status_code in (401, 403, 413, 422), answer.text
    problem = answer.json()
    assert codes is None or problem["code"] in codes, problem
    assert problem["detail"]
    assert "Traceback" not in answer.text
    operator = await stage.client("platform")
    await operator.problem(404, "POST", INSTALL, json={"plugin": "shady/guard"})


async def test_a_manifest_with_an_unknown_key_is_refused_by_its_key(stage: Stage):
    registry = stage.platform.registry
    await registry.register_namespace(make_key_set("shady", [stage.key]).document, by_operator=True)
    good = signed(stage.home / "unknown", stage.key, guest(), "shady/key")
    data = repacked(good.package.data, lambda n, c: c + b"\ncolour = 1\n" if n == "plugin.toml" else c)
    answer = await stage.anonymous.post(PUBLISH, files={"package": data, "signature": good.envelope})
    assert answer.status_code in (403, 422)
    await (await stage.client("platform")).problem(404, "POST", INSTALL, json={"plugin": "shady/key"})


async def test_a_package_damaged_on_the_registrys_disk_is_found_before_it_is_installed(stage: Stage):
    await stage.publish(guest({"reject": {"reason": "damaged"}}), "damaged/guard")
    operator = await stage.client("platform")
    for file in (stage.home / "marketplace").rglob("*"):
        if file.is_file() and b"damaged/guard" in (content := file.read_bytes()) and b"component.wasm" in content:
            file.write_bytes(content[:-100] + b"x" * 100)
    answer = await operator.post(INSTALL, json={"plugin": "damaged/guard"})
    assert answer.status_code >= 400, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    assert "damaged/guard" not in as_text(await operator.ok("GET", "/api/v1/plugins"))


# ---------------------------------------------------------------------------- requests


async def test_a_body_too_large_is_refused_with_or_without_a_length(stage: Stage):
    acme = await stage.client("acme")
    big = b'{"email": "big@bad.example", "name": "' + b"x" * 2_000_000 + b'"}'

    async def chunks():
        for at in range(0, len(big), 65_536):
            yield big[at : at + 65_536]

    headers = {"content-type": "application/json"}
    for content in (big, chunks()):
        problem = await acme.problem(413, "POST", USERS, content=content, headers=headers)
        assert problem["code"] == "body-too-large"
    answer = await acme.post("/graphql", content=chunks(), headers=headers)
    assert answer.status_code == 413, answer.text


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/", 404),
        ("GET", "/api/v1/nothing", 404),
        ("DELETE", "/api/v1/users", 405),
        ("BREW", "/api/v1/users", 405),
        ("GET", "/api/v1/users/%00", 400),
        ("GET", "/api/v1/users?email=%00", 400),
        ("GET", "/api/v1/users/" + "x" * 5_000, 404),
        ("GET", "/api/v1/users/..%2f..%2fetc%2fpasswd", 404),
        ("GET", "/api/v1/users/%ff%fe", 404),
        ("GET", "/api/v1/users/' OR 1=1 --", 404),
        ("PUT", "/api/v1/tenants/acme/activations/a/b/c/d", 404),
        ("PUT", "/api/v1/tenants/acme/activations/%2e%2e/x", 404),
        ("GET", "/api/v1/plugins/keelstone/users?version=newest", 422),
        ("DELETE", "/api/v1/plugins/no/such?data=burn", 422),
    ],
)
async def test_an_odd_address_gets_a_problem_document(stage: Stage, method, path, status):
    client = await stage.client("platform" if "plugins" in path else "acme")
    body = {} if method == "PUT" else None
    answer = await client.request(method, path, json=body)
    problem_of(answer, status)


async def test_a_request_that_takes_too_long_ends_clearly_and_leaves_nothing(stage: Stage, seeded, tmp_path):
    home = copied(seeded, tmp_path / "home")
    async with Stage(home, request_timeout_ms=100) as hurried:
        # Compiling a component takes a process of its own, and longer than that.
        await hurried.publish(guest(), "slow/guard")
        operator = await hurried.client("platform", await stage.token("platform"))
        problem = await operator.problem(504, "POST", INSTALL, json={"plugin": "slow/guard"})
        assert problem["code"] == "deadline"
    async with Stage(home) as patient:
        operator = await patient.client("platform", await stage.token("platform"))
        assert "slow/guard" not in as_text(await operator.ok("GET", "/api/v1/plugins"))
        assert not [p for p in (home / "blobs").rglob("*") if p.is_file()]
        await operator.ok("POST", INSTALL, json={"plugin": "slow/guard"})


@pytest.mark.parametrize(
    ("method", "path", "options"),
    [
        ("GET", "/api/v1/tenants/acme/consents", {"params": {"before": 2**31}}),
        ("GET", "/api/v1/tenants/acme/consents", {"params": {"before": 2**80}}),
        ("DELETE", "/api/v1/tenants/acme/policy", {"params": {"version": 2**80}}),
        ("PUT", "/api/v1/tenants/acme/policy", {"json": {"policy": {}, "version": 2**80}}),
    ],
)
async def test_a_number_that_no_column_holds_is_refused_at_the_border(
    stage: Stage, method: str, path: str, options: dict
) -> None:
    acme = await stage.client("acme")
    problem = await acme.problem(422, method, path, **options)
    assert problem["code"] == "validation"
