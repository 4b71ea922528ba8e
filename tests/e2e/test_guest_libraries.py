"""The guest libraries against the real sandbox: every host call, granted and refused; JSON of any kind.

One probe per language, compiled from source, does what its payload's attributes tell it.
"""

import asyncio
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from kernel.errors import KeelstoneError
from plugin_sdk.scaffold import new_plugin
from plugin_sdk.testing import Guest
from plugin_sdk.toolchain import Toolchains, ToolchainUnavailable, build_plugin

pytestmark = pytest.mark.toolchain

MANIFEST = """
[capabilities.kv]
why = "Tries the key-value store."
[capabilities.http]
why = "Tries the network."
hosts = ["setting:target"]
methods = ["GET", "POST"]
[capabilities.events]
why = "Tries to emit events."
emits = ["probe.tried"]
[events]
subscribes = ["user.created"]
[[events.declares]]
type = "probe.tried"
summary = "The probe tried something."
data = { type = "object", required = ["n"], properties = { n = { type = "integer" } } }
[hooks.access_deciding]
[hooks.event_received]
"""
SETTINGS = {"text": "string", "number": "number", "flag": "boolean", "list": "array", "target": "string"}
ASSEMBLYSCRIPT = """
import { AccessRequest, config, DecideReply, events, EventView, FilterReply, http, HttpRequest, Json, kv, log,
  ObserveReply, UserDraft } from "keelstone";

export function user_creating(draft: UserDraft): FilterReply {
  const said = Json.list();
  const todo = draft.attributes.text("do");
  if (todo == "settings") {
    said.push(Json.text(config.text("text", "none")));
    said.push(Json.number(config.number("number", -1)));
    said.push(Json.bool(config.flag("flag", false)));
    const list = config.list("list");
    for (let i = 0; i < list.length; i++) said.push(Json.text(list[i]));
  } else if (todo == "log") {
    log.debug("d"); log.info("i \\u00e9\\ud83d\\ude00"); log.warn("w"); log.error("e");
  } else if (todo == "kv") {
    kv.set("b", "2"); kv.set("a", "1 \\u00e9\\ud83d\\ude00"); kv.set("c", "");
    const c = kv.get("c");
    said.push(Json.bool(c !== null && c.length == 0));
    kv.remove("c");
    said.push(Json.bool(kv.get("c") === null));
    const keys = kv.keys("", 10);
    for (let i = 0; i < keys.length; i++) { const v = kv.get(keys[i]); said.push(Json.text(v === null ? "?" : v)); }
  } else if (todo == "refused") {
    const got = kv.tryGet("a");
    said.push(Json.text(got.failed ? got.failure.code : "got"));
    const listed = kv.tryKeys("", 1);
    said.push(Json.text(listed.failed ? listed.failure.code : "listed"));
    const emitted = events.tryEmit("probe.tried", Json.object());
    said.push(Json.text(emitted.failed ? emitted.failure.code : "emitted"));
    const sent = http.send(new HttpRequest("GET", "https://example.com/"));
    said.push(Json.text(sent.failed ? sent.failure.code : "sent"));
    const asked = config.tryGet("text");
    said.push(Json.text(asked.failed ? asked.failure.code : "asked"));
  } else if (todo == "insist") {
    kv.set("a", "1");
    said.push(Json.text("went on"));
  } else if (todo == "emit") {
    events.emit("probe.tried", Json.object().set("n", Json.integer(7)));
  } else if (todo == "fetch") {
    const request = new HttpRequest("POST", config.text("target", "") + "echo");
    const outcome = http.send(request.json('{"x":1}').header("x-probe", "yes"));
    if (outcome.failed) return FilterReply.fail(outcome.failure.toString());
    said.push(Json.integer(outcome.value.status)).push(Json.bool(outcome.value.ok)).push(Json.text(outcome.value.body));
    const header = outcome.value.header("X-Answer");
    said.push(Json.text(header === null ? "none" : header));
  } else if (todo == "crash") {
    throw new Error("on purpose");
  } else if (todo == "fail") {
    return FilterReply.fail("cannot");
  }
  draft.attributes.set("said", said);
  return FilterReply.change(draft);
}

export function access_deciding(request: AccessRequest): DecideReply {
  if (request.action == "allow") return DecideReply.allow(request.principal + "/" + request.roles.join(","));
  if (request.action == "deny") return DecideReply.deny("no");
  return DecideReply.abstain();
}

export function event_received(event: EventView): ObserveReply {
  if (event.data.has("fail")) return ObserveReply.retry("later");
  log.info(event.type + " " + event.version.toString() + " " + event.tenant);
  return ObserveReply.done();
}
"""
PYTHON = """
import random
import time

from keelstone_guest import (
    AccessRequest, Allow, Deny, EventView, HostError, UserDraft, config, events, hook, http, kv, log,
)


def settings() -> list:
    return [config.get("text", "none"), config.get("number", -1), config.get("flag"), *config.get("list", [])]


def logs() -> list:
    log.debug("d"), log.info("i \\u00e9\\U0001F600"), log.warn("w"), log.error("e")
    print("printed")
    return []


def store() -> list:
    kv.set("b", "2"), kv.set("a", "1 \\u00e9\\U0001F600"), kv.set("c", "")
    empty = kv.get("c") == ""
    kv.delete("c")
    return [empty, kv.get("c") is None, *(kv.get(k) for k in kv.keys("", 10))]


def refused() -> list:
    calls = [
        lambda: kv.get("a"), lambda: kv.keys(), lambda: events.emit("probe.tried", {}),
        lambda: http.get("https://example.com/"), lambda: config.get("text"),
    ]
    said = []
    for call in calls:
        try:
            call()
        except HostError as error:
            said.append(error.code)
    return said


def insist() -> list:
    kv.set("a", "1")
    return ["went on"]


def emit() -> list:
    events.emit("probe.tried", {"n": 7})
    return []


def fetch() -> list:
    answer = http.post(config.get("target") + "echo", json={"x": 1}, headers={"x-probe": "yes"})
    return [answer.status, answer.ok, answer.body, answer.headers.get("x-answer", "none")]


def crash() -> list:
    raise ValueError("on purpose")


def machine() -> list:
    return [time.time() > 1_700_000_000, random.random()]


TODO = {
    "settings": settings, "log": logs, "kv": store, "refused": refused, "insist": insist, "emit": emit,
    "fetch": fetch, "crash": crash, "fail": crash, "machine": machine,
}


@hook("user_creating")
def create(draft: UserDraft) -> UserDraft:
    todo = TODO.get(str(draft.attributes.get("do")), list)
    return draft.replace(attributes={**draft.attributes, "said": todo()})


@hook("access_deciding")
def decide(request: AccessRequest) -> Allow | Deny | None:
    if request.action == "allow":
        return Allow(f"{request.principal}/{','.join(request.roles)}")
    return Deny("no") if request.action == "deny" else None


@hook("event_received")
def observe(event: EventView) -> None:
    if "fail" in event.data:
        raise RuntimeError("later")
    log.info(f"{event.type} {event.version} {event.tenant}")
"""
SOURCES = {"assemblyscript": ASSEMBLYSCRIPT, "python": PYTHON}


@pytest.fixture(scope="module", params=sorted(SOURCES))
def folder(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The built probe of one language."""
    folder = new_plugin(tmp_path_factory.mktemp("probe"), "probe", request.param, "me")
    manifest = (folder / "plugin.toml").read_text()
    (folder / "plugin.toml").write_text(manifest.replace("[limits]", MANIFEST + "[limits]\nhost_calls = 50"))
    schema = {"type": "object", "properties": {name: {"type": kind} for name, kind in SETTINGS.items()}}
    (folder / "settings.schema.json").write_text(json.dumps(schema))
    source = "assembly/index.ts" if request.param == "assemblyscript" else "guest/plugin.py"
    (folder / source).write_text(SOURCES[request.param])
    try:
        build_plugin(folder, Toolchains())
    except ToolchainUnavailable as reason:
        pytest.skip(str(reason))
    return folder


@pytest.fixture
async def probe(folder: Path) -> Any:
    async with Guest(folder) as guest:
        yield guest


@pytest.fixture(scope="module")
def steady(folder: Path) -> Iterator[tuple[asyncio.Runner, Guest]]:
    """One open guest for thousands of calls."""
    with asyncio.Runner() as runner:
        guest = Guest(folder)
        yield runner, guest
        runner.run(guest.close())


async def do(guest: Guest, what: str, **options: Any) -> Any:
    draft = {"email": "a@b.example", "name": "A", "attributes": {"do": what}}
    answer = await guest.filter("user_creating", draft, **options)
    return answer.payload["attributes"].get("said")


async def test_settings_come_with_their_types(probe: Guest) -> None:
    given = {"text": 'a"é😀', "number": 2.5, "flag": True, "list": ["x", "y"]}
    assert await do(probe, "settings", settings=given) == ['a"é😀', 2.5, True, "x", "y"]
    absent = await do(probe, "settings", settings={})
    assert absent[:2] == ["none", -1]


async def test_lines_are_logged_with_their_levels(probe: Guest) -> None:
    await do(probe, "log")
    lines = [(line.level, line.message) for line in probe.logs]
    assert lines[:4] == [("debug", "d"), ("info", "i é😀"), ("warn", "w"), ("error", "e")]


async def test_what_is_stored_is_read_back_listed_and_kept(probe: Guest) -> None:
    assert await do(probe, "kv") == [True, True, "1 é😀", "2"]
    assert probe.stored == {"a": "1 é😀", "b": "2"}


async def test_what_the_tenant_has_not_granted_is_refused_with_a_code_and_no_crash(probe: Guest) -> None:
    assert await do(probe, "refused", grants=[]) == ["not-granted"] * 5


async def test_other_refusals_have_their_own_codes(probe: Guest) -> None:
    said = await do(probe, "refused")
    assert [code for code in said if code not in ("got", "listed", "asked")] == ["invalid", "denied"]


async def test_a_refusal_that_nobody_looks_at_fails_the_whole_call(probe: Guest) -> None:
    with pytest.raises(KeelstoneError, match="not-granted") as caught:
        await do(probe, "insist", grants=["config", "log"])
    assert caught.value.code == "guest-error"
    assert probe.stored == {}


async def test_an_event_is_emitted_once_the_call_succeeds(probe: Guest) -> None:
    await do(probe, "emit")
    assert [(event.type, dict(event.data)) for event in probe.events] == [("probe.tried", {"n": 7})]


async def test_a_request_goes_out_and_its_answer_comes_back_whole(probe: Guest) -> None:
    probe.web.answer(201, "créé 😀", {"X-Answer": "42"})
    assert await do(probe, "fetch", settings={"target": probe.web.url}) == [201, True, "créé 😀", "42"]
    (request,) = probe.web.requests
    assert (request.method, request.path, request.json()) == ("POST", "/echo", {"x": 1})
    assert request.headers["x-probe"] == "yes"
    assert request.headers["content-type"] == "application/json"


async def test_a_crash_is_an_error_whose_cause_is_in_the_log(probe: Guest) -> None:
    with pytest.raises(KeelstoneError):
        await do(probe, "crash")
    assert "on purpose" in probe.log_text
    assert await do(probe, "emit") == []


async def test_a_reported_failure_carries_its_words(probe: Guest) -> None:
    with pytest.raises(KeelstoneError, match=r"cannot|on purpose"):
        await do(probe, "fail")


async def test_a_decision_is_an_answer_or_none(probe: Guest) -> None:
    request = {"principal": "ann", "roles": ["a", "b"], "action": "allow"}
    assert await probe.decide("access_deciding", request) == {"allow": True, "reason": "ann/a,b"}
    assert await probe.decide("access_deciding", {**request, "action": "deny"}) == {"allow": False, "reason": "no"}
    assert await probe.decide("access_deciding", {**request, "action": "other"}) is None


async def test_an_event_is_observed_or_asked_for_again(probe: Guest) -> None:
    await probe.observe("user.created", {}, version=3)
    assert "user.created 3 acme" in probe.log_text
    with pytest.raises(KeelstoneError, match="later"):
        await probe.observe("user.created", {"fail": True})


async def test_python_has_a_clock_chance_and_standard_output(probe: Guest, folder: Path) -> None:
    if not (folder / "guest").is_dir():
        pytest.skip("AssemblyScript has neither clock nor chance: its world imports no WASI")
    first, second = await do(probe, "machine"), await do(probe, "machine")
    assert first[0] is True
    assert first[1] != second[1]
    await do(probe, "log")
    assert "printed" in probe.log_text


JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**63 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(exclude_categories=["Cs"]), max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner, max_size=4),
    max_leaves=12,
)
QUIET = [HealthCheck.function_scoped_fixture, HealthCheck.too_slow]


@settings(max_examples=60, deadline=None, suppress_health_check=QUIET)
@given(value=JSON)
def test_any_json_goes_through_unchanged(steady: tuple[asyncio.Runner, Guest], value: Any) -> None:
    runner, guest = steady
    draft = {"email": "a@b.example", "name": "A", "attributes": {"value": value}}
    reply = json.loads(runner.run(guest.call("user_creating", draft)).output)
    assert reply == {"payload": {**draft, "attributes": {"value": value, "said": []}}}


WHOLE = '{"email":"a@b.c","name":"A\\u00e9\\n","attributes":{"x":[1,-2.5e3,true,null,{"y":""}]}}'


@settings(max_examples=60, deadline=None, suppress_health_check=QUIET)
@given(at=st.integers(0, len(WHOLE)), cut=st.integers(0, 3), put=st.text('{}[]",:\\u0a1-.e \x00', max_size=3))
def test_broken_json_is_an_error_or_an_answer_and_never_a_crash(
    steady: tuple[asyncio.Runner, Guest], at: int, cut: int, put: str
) -> None:
    runner, guest = steady
    text = WHOLE[:at] + put + WHOLE[at + cut :]
    output = code = ""
    try:
        output = runner.run(guest.call_raw("user_creating", text)).output
    except KeelstoneError as error:
        code = error.code
    assert code in ("", "guest-error")
    if not code:
        json.loads(output)
        json.loads(text)  # what was answered must have been JSON
