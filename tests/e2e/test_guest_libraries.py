"""The guest libraries against the real sandbox: every host call, granted and refused; JSON of any kind.

One probe per language, compiled from source, does what its payload's attributes tell it.
"""

import asyncio
import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from kernel.errors import KeelstoneError
from kernel.manifest import load_manifest
from plugin_sdk.scaffold import new_plugin
from plugin_sdk.testing import Guest
from plugin_sdk.toolchain import Toolchains, build_plugin
from tests.support.absent import toolchains_at_hand

pytestmark = pytest.mark.toolchain

MANIFEST = """
[capabilities.clock]
why = "Tries the clock."
[capabilities.random]
why = "Tries its luck."
[capabilities.secrets]
why = "Tries a secret."
names.token = { why = "A token for tests.", hosts = ["setting:target"] }
[capabilities.ai]
why = "Tries a model."
models = ["small"]
[capabilities.notify]
why = "Tries a message."
channels = ["email"]
[capabilities.services]
why = "Tries another plugin."
calls = { "acme/other" = ["lookup"] }
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
PROBES = {path.stem: path for path in (Path(__file__).parents[1] / "guests" / "probes").iterdir() if path.is_file()}
"""The probe of each language."""


@pytest.fixture(scope="module", params=sorted(PROBES))
def folder(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The built probe of one language."""
    folder = new_plugin(tmp_path_factory.mktemp("probe"), "probe", request.param, "me")
    manifest = (folder / "plugin.toml").read_text()
    (folder / "plugin.toml").write_text(manifest.replace("[limits]", MANIFEST + "[limits]\nhost_calls = 50"))
    schema = {"type": "object", "properties": {name: {"type": kind} for name, kind in SETTINGS.items()}}
    (folder / "settings.schema.json").write_text(json.dumps(schema))
    build = load_manifest(folder).build
    assert build is not None
    shutil.copy(PROBES[request.param], folder / build.source)
    with toolchains_at_hand():
        build_plugin(folder, Toolchains())
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


def language_of(folder: Path) -> str:
    build = load_manifest(folder).build
    assert build is not None
    return build.language


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


async def test_every_call_of_the_second_generation_is_made_and_answered(probe: Guest) -> None:
    probe.outside.services.answers["acme/other", "lookup"] = {"found": "yes é"}
    said = await do(probe, "more", settings={"target": probe.web.url})
    assert said[:6] == ["1", None, "", True, False, "gone"]
    assert said[6:11] == [True] * 5
    assert said[11:] == ["An answer.", "small", 5, "notice-1", "yes é", "denied"]
    assert probe.stored == {"t": "gone", "x": "2", "y": ""}
    (request,) = probe.outside.models.requests
    assert (request.system, request.text, request.max_tokens) == ("Be brief.", "What?", 50)
    (notice,) = probe.outside.notifier.sent
    assert (notice.recipient, notice.subject, notice.body) == ("ann@example.com", "Hi", "Body é")
    assert probe.outside.services.calls == [("acme/other", "lookup", {"q": "é"})]


@pytest.mark.parametrize("folder", ["c", "go", "javascript", "python", "typescript"], indirect=True)
async def test_what_a_language_prints_is_in_the_log(probe: Guest, folder: Path) -> None:
    await do(probe, "log")
    assert "printed" in probe.log_text


@pytest.mark.parametrize("folder", ["javascript", "python", "typescript"], indirect=True)
async def test_scripts_have_a_clock_and_chance_of_their_own(probe: Guest, folder: Path) -> None:
    first, second = await do(probe, "machine"), await do(probe, "machine")
    assert first[0] is True
    assert first[1] != second[1]


JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**63 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(exclude_categories=["Cs"]), max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner, max_size=4),
    max_leaves=12,
)


def doubles(value: Any) -> Any:
    """``value`` as a language keeps it whose numbers are 64-bit floats, or are written as such."""
    if isinstance(value, list):
        return [doubles(item) for item in value]
    if isinstance(value, dict):
        return {name: doubles(item) for name, item in value.items()}
    return float(value) if isinstance(value, int) and not isinstance(value, bool) else value


QUIET = [HealthCheck.function_scoped_fixture, HealthCheck.too_slow]


@settings(max_examples=60, deadline=None, suppress_health_check=QUIET)
@given(value=JSON)
def test_any_json_goes_through_unchanged(steady: tuple[asyncio.Runner, Guest], folder: Path, value: Any) -> None:
    runner, guest = steady
    draft = {"email": "a@b.example", "name": "A", "attributes": {"value": value}}
    reply = json.loads(runner.run(guest.call("user_creating", draft)).output)
    expected = {"payload": {**draft, "attributes": {"value": value, "said": []}}}
    if language_of(folder) in ("javascript", "typescript", "zig"):
        reply, expected = doubles(reply), doubles(expected)
    assert reply == expected


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
