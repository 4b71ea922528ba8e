"""Two generations of the contract on one host: real components of both, over both lanes."""

from __future__ import annotations

import asyncio
import json

import pytest
from sandbox_server import http, serving

from kernel.errors import NotFound, Rejected
from kernel.ports import AiAnswer, AiModels, KvValue, Notifier, SecretSource, ServiceCalls, TenantPlans
from sandbox.contract import GENERATIONS
from tests.support.caller import caller

PROMPT = {"model": "fast", "system": None, "text": "Say hello.", "max-tokens": 50}
NOTICE = {"channel": "email", "recipient": "ann@example.com", "subject": "Hello", "body": "It is done."}
REQUEST = {"method": "GET", "url": "https://api.example.com/", "headers": [], "body": None}
FIND = ("keelstone/users", "find", '{"id": "u1"}')
NEW = [
    ("kv", "set-if", "k", "v", None),
    ("kv", "set-for", "k", "v", 60),
    ("kv", "get-many", ["k"]),
    ("kv", "set-many", [{"key": "k", "value": "v"}]),
    ("secrets", "placeholder", "token"),
    ("ai", "complete", PROMPT),
    ("notify", "send", NOTICE),
    ("clock", "now"),
    ("clock", "monotonic"),
    ("random", "number"),
    ("random", "hex", 8),
    ("services", "call", *FIND),
]


class Models:
    def __init__(self, tokens: int = 12) -> None:
        self.asked, self.tokens = [], tokens

    async def complete(self, request):
        self.asked.append(request)
        return AiAnswer("Hello!", "small-1", self.tokens)


class Channels:
    def __init__(self) -> None:
        self.sent = []

    async def notify(self, notice):
        self.sent.append(notice)
        return f"notice-{len(self.sent)}"


class Secrets:
    def __init__(self, **values: str) -> None:
        self.values = values

    async def secrets(self, tenant, plugin):
        return dict(self.values) if (tenant, plugin) == ("acme", "acme/guest") else {}


class Users:
    async def call(self, context, plugin, method, payload):
        if json.loads(payload)["id"] == "gone":
            raise NotFound("There is nobody of that id.")
        if json.loads(payload)["id"] == "hidden":
            raise Rejected("Not for you.")
        return json.dumps({"tenant": context.tenant, "by": context.principal.id, "asked": f"{plugin} {method}"})


async def test_guests_of_both_generations_run_side_by_side_on_one_host(box):
    box.kv.space("acme", "acme/guest")["k"] = KvValue("one", 1)
    old, new = caller("1.0", "kv", "get", "k"), caller("1.1", "kv", "get", "k")
    both = await asyncio.gather(*(box.run(guest) for guest in [old, new] * 4))
    assert [r.output for r in both] == ["one"] * 8
    # The first one published, of 1.0, and one that 1.0 could not have made.
    assert (await box.run("host", "gk")).output == "one"
    assert (await box.run(caller("1.1", "kv", "get-many", ["k", "other"]))).output == "one,none"


@pytest.mark.parametrize(
    ("function", "arguments"),
    [("get", ["k"]), ("set", ["k", "v"]), ("delete", ["k"]), ("list-keys", ["", 10])],
)
async def test_what_both_generations_have_answers_both_alike(box, function, arguments):
    box.kv.space("acme", "acme/guest")["k"] = KvValue("one", 1)
    answers = {(await box.run(caller(g, "kv", function, *arguments))).output for g in GENERATIONS}
    assert len(answers) == 1


async def test_a_reached_limit_has_its_own_code_in_1_1_and_the_common_one_in_1_0(box, make_manifest):
    tight = make_manifest(limits={"kv_keys": 0, "kv_kb": 1, "host_calls": 3})
    assert (await box.run(caller("1.1", "kv", "set", "k", "v"), manifest=tight)).output == "!limit-kv-keys"
    assert (await box.run(caller("1.0", "kv", "set", "k", "v"), manifest=tight)).output == "!limit"
    roomy = make_manifest(limits={"kv_kb": 0})
    result = await box.run(caller("1.1", "kv", "set", "k", "v"), manifest=roomy)
    assert result.output == "!limit-kv-bytes"
    assert result.usage.uses["limit-kv-bytes"] == 1
    none = make_manifest(limits={"host_calls": 0})
    assert (await box.run(caller("1.1", "clock", "now"), manifest=none)).output == "!limit-host-calls"
    silent = make_manifest(limits={"events": 0})
    assert (await box.run(caller("1.1", "events", "emit", "lead.scored", "{}"), manifest=silent)).output == (
        "!limit-events"
    )


@pytest.mark.parametrize("call", NEW, ids=lambda c: f"{c[0]}.{c[1]}")
async def test_without_a_grant_every_new_call_answers_not_granted(box, call):
    result = await box.run(caller("1.1", *call), grants=frozenset())
    assert result.output == "!not-granted"
    assert not result.effects


@pytest.mark.parametrize(
    "call", [c for c in NEW if c[0] in ("secrets", "ai", "notify", "services")], ids=lambda c: c[0]
)
async def test_what_no_plugin_provides_is_unavailable(box, call):
    assert (await box.run(caller("1.1", *call))).output == "!unavailable"


# ---------------------------------------------------------------------- kv


async def test_compare_and_set_writes_only_over_what_was_expected(box):
    box.kv.space("acme", "acme/guest")["k"] = KvValue("one", 7)
    won = await box.run(caller("1.1", "kv", "set-if", "k", "two", "one"))
    assert (won.output, won.effects.kv_writes) == ("true", {"k": "two"})
    assert won.effects.kv_reads == {"k": 7}, "or two calls could win"
    for expected in ("other", None):
        lost = await box.run(caller("1.1", "kv", "set-if", "k", "two", expected))
        assert (lost.output, lost.effects.kv_writes) == ("false", {})
    made = await box.run(caller("1.1", "kv", "set-if", "new", "", None))
    assert (made.output, made.effects.kv_reads) == ("true", {"new": 0})


async def test_a_value_that_ends_is_written_with_its_time(box):
    result = await box.run(caller("1.1", "kv", "set-for", "k", "v", 60))
    assert (result.output, result.effects.kv_writes, result.effects.kv_ttl) == ("done", {"k": "v"}, {"k": 60})
    for seconds in (0, 400 * 86_400):
        assert (await box.run(caller("1.1", "kv", "set-for", "k", "v", seconds))).output == "!invalid"


async def test_a_batch_is_written_whole_or_not_at_all(box, make_manifest):
    entries = [{"key": f"k{i}", "value": "v"} for i in range(3)]
    done = await box.run(caller("1.1", "kv", "set-many", entries))
    assert (done.output, done.effects.kv_writes) == ("done", {"k0": "v", "k1": "v", "k2": "v"})
    few = make_manifest(limits={"kv_keys": 2})
    assert not (await box.run(caller("1.1", "kv", "set-many", entries), manifest=few)).effects
    wrong = [*entries, {"key": "", "value": "v"}]
    result = await box.run(caller("1.1", "kv", "set-many", wrong))
    assert (result.output, bool(result.effects)) == ("!invalid", False)
    assert (await box.run(caller("1.1", "kv", "get-many", [f"k{i}" for i in range(101)]))).output == "!invalid"


# ---------------------------------------------------------------------- clock and random


async def test_time_and_random_are_real(box):
    assert int((await box.run(caller("1.1", "clock", "now"))).output) > 1_700_000_000_000
    first, second = [int((await box.run(caller("1.1", "clock", "monotonic"))).output) for _ in range(2)]
    assert second > first
    drawn = {(await box.run(caller("1.1", "random", "hex", 16))).output for _ in range(4)}
    assert len(drawn) == 4
    assert {len(d) for d in drawn} == {32}
    assert len({(await box.run(caller("1.1", "random", "number"))).output for _ in range(4)}) == 4
    for size in (0, 1_025):
        assert (await box.run(caller("1.1", "random", "hex", size))).output == "!invalid"


# ---------------------------------------------------------------------- ai, notify, services


async def test_a_model_is_asked_within_what_the_manifest_names_and_allows(opened, make_manifest):
    models = Models()
    async with opened({AiModels: models}) as box:
        result = await box.run(caller("1.1", "ai", "complete", PROMPT))
        assert (result.output, result.usage.ai_tokens) == ("Hello!", 12)
        assert result.usage.uses == {"ai.complete fast": 1}
        assert [(a.tenant, a.plugin, a.model, a.text, a.max_tokens) for a in models.asked] == [
            ("acme", "acme/guest", "fast", "Say hello.", 50)
        ]
        other = caller("1.1", "ai", "complete", PROMPT | {"model": "vast"})
        assert (await box.run(other)).output == "!denied"
        few = make_manifest(limits={"ai_tokens": 9})
        await box.run(caller("1.1", "ai", "complete", PROMPT), manifest=few)
        assert models.asked[-1].max_tokens == 9
        none = make_manifest(limits={"ai_tokens": 0})
        assert (await box.run(caller("1.1", "ai", "complete", PROMPT), manifest=none)).output == "!limit-ai-tokens"
        assert len(models.asked) == 2


async def test_a_message_goes_over_a_named_channel(opened, make_manifest):
    channels = Channels()
    async with opened({Notifier: channels}) as box:
        assert (await box.run(caller("1.1", "notify", "send", NOTICE))).output == "notice-1"
        assert (channels.sent[0].tenant, channels.sent[0].recipient) == ("acme", "ann@example.com")
        pager = caller("1.1", "notify", "send", NOTICE | {"channel": "pager"})
        assert (await box.run(pager)).output == "!denied"
        none = make_manifest(limits={"notices": 0})
        assert (await box.run(caller("1.1", "notify", "send", NOTICE), manifest=none)).output == "!limit-notices"
        small = make_manifest(limits={"output_kb": 1})
        long = caller("1.1", "notify", "send", NOTICE | {"body": "x" * 2_000})
        assert (await box.run(long, manifest=small)).output == "!limit-size"
        assert len(channels.sent) == 1


async def test_a_service_is_called_in_the_callers_tenant_by_the_plugin_itself(opened):
    async with opened({ServiceCalls: Users()}) as box:
        result = await box.run(caller("1.1", "services", "call", *FIND), tenant="globex")
        assert json.loads(result.output) == {"tenant": "globex", "by": "acme/guest", "asked": "keelstone/users find"}
        assert result.usage.uses == {"services.call keelstone/users find": 1}
        for plugin, method in (("keelstone/users", "remove"), ("keelstone/tenants", "find")):
            assert (await box.run(caller("1.1", "services", "call", plugin, method, "{}"))).output == "!denied"
        for who, code in (("gone", "!not-found"), ("hidden", "!denied")):
            call = caller("1.1", "services", "call", "keelstone/users", "find", json.dumps({"id": who}))
            assert (await box.run(call)).output == code


# ---------------------------------------------------------------------- secrets


async def test_a_placeholder_stands_for_a_secret_of_this_tenant_only(opened):
    ask = caller("1.1", "secrets", "placeholder", "token")
    async with opened({SecretSource: Secrets(token="s3cr3t-value")}) as box:
        first, second = [(await box.run(ask)).output for _ in range(2)]
        assert first.startswith("{{secret:token:")
        assert first != second, "nobody can know it beforehand"
        assert "s3cr3t" not in first
        assert (await box.run(ask, tenant="globex")).output == "!not-found"
        assert (await box.run(caller("1.1", "secrets", "placeholder", "other"))).output == "!denied"


async def test_what_an_answer_echoes_of_a_secret_is_taken_out(opened):
    secret = "s3cr3t-välue/+&"
    echo = json.dumps({"seen": secret}).encode()
    async with serving(lambda r: http("200 OK", echo, "X-Seen: s3cr3t-other")) as server:
        settings = {"hook_url": f"http://127.0.0.1:{server.port}/"}
        ports = {SecretSource: Secrets(token=secret, older="s3cr3t-other")}
        async with opened(ports, http_private_allow=(f"127.0.0.1:{server.port}",)) as box:
            request = REQUEST | {"url": settings["hook_url"]}
            result = await box.run(caller("1.1", "http", "send", request), settings=settings)
            assert result.output == '{"seen": "[secret token]"}'
            (exchange,) = result.recording
            assert {"name": "x-seen", "value": "[secret older]"} in exchange.answer["headers"]
            # Without the grant the plugin cannot have it sent, and the platform does not even look it up.
            plain = await box.run(caller("1.1", "http", "send", request), settings=settings, grants={"http"})
            assert plain.output == echo.decode()


# ---------------------------------------------------------------------- plans


class Plans:
    def __init__(self) -> None:
        self.plans, self.asked = {"acme": "free", "globex": "team"}, 0

    async def plan(self, tenant):
        self.asked += 1
        return self.plans.get(tenant)


async def test_a_plan_caps_what_its_tenants_calls_may_use(opened):
    plans = Plans()
    write = caller("1.1", "kv", "set", "k", "v")
    async with opened({TenantPlans: plans}, plans={"free": {"kv_keys": 0}}) as box:
        assert (await box.run(write, tenant="acme")).output == "!limit-kv-keys"
        assert (await box.run(write, tenant="globex")).output == "done"
        assert (await box.run(write, tenant="acme")).output == "!limit-kv-keys"
        assert plans.asked == 2, "once for each tenant"
    async with opened({TenantPlans: plans}, sandbox_caps={"kv_keys": 0}) as box:
        assert (await box.run(write, tenant="globex")).output == "!limit-kv-keys"
        assert plans.asked == 2, "no plan has caps"
