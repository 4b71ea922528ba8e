"""The calls that generation 1.1 of the contract added, from AssemblyScript and Python, in the real sandbox; and
a plugin that asks for 1.0 only."""

from pathlib import Path
from typing import Any

import pytest

from kernel.errors import KeelstoneError, NotFound
from plugin_sdk.scaffold import new_plugin
from plugin_sdk.testing import Guest
from plugin_sdk.toolchain import Toolchains, build_plugin, component_imports
from plugin_sdk.toolchain.errors import BuildFailed
from tests.support.absent import toolchains_at_hand

pytestmark = pytest.mark.toolchain

MANIFEST = """
[capabilities.kv]
why = "Tries the key-value store."
[capabilities.http]
why = "Tries the network."
hosts = ["setting:target"]
methods = ["POST"]
[capabilities.secrets]
why = "Tries to have a secret sent."
[capabilities.secrets.names.token]
why = "The other side's token."
hosts = ["setting:target"]
[capabilities.ai]
why = "Tries a language model."
models = ["fast"]
[capabilities.notify]
why = "Tries to send a message."
channels = ["email"]
[capabilities.clock]
why = "Tries to know the time."
[capabilities.random]
why = "Tries to draw numbers."
[capabilities.services]
why = "Tries to ask another plugin."
[capabilities.services.calls]
"keelstone/users" = ["find"]
"""
ASSEMBLYSCRIPT = """
import { ai, clock, config, FilterReply, http, HttpRequest, Json, kv, notify, Prompt, random, secrets, services,
  UserDraft } from "keelstone";

function texts(values: Array<string | null>): Json {
  const list = Json.list();
  for (let i = 0; i < values.length; i++) {
    const value = values[i];
    list.push(value === null ? Json.null() : Json.text(value));
  }
  return list;
}

export function user_creating(draft: UserDraft): FilterReply {
  const said = Json.list();
  const todo = draft.attributes.text("do");
  if (todo == "kv") {
    said.push(Json.bool(kv.setIf("lock", "me", null)));
    said.push(Json.bool(kv.setIf("lock", "you", null)));
    said.push(Json.bool(kv.setIf("lock", "you", "me")));
    kv.setFor("soon", "gone", 60);
    const values = new Map<string, string>();
    values.set("a", "1");
    values.set("b", "\\u00e9\\ud83d\\ude00");
    kv.setMany(values);
    said.push(texts(kv.getMany(["a", "absent", "b", "lock", "soon"])));
  } else if (todo == "send") {
    const request = new HttpRequest("POST", config.text("target", ""));
    const outcome = http.send(request.header("authorization", "Bearer " + secrets.placeholder("token")));
    if (outcome.failed) return FilterReply.fail(outcome.failure.toString());
    said.push(Json.text(outcome.value.body));
  } else if (todo == "ask") {
    const prompt = new Prompt("fast", "Say hello.");
    prompt.system = "You are polite.";
    prompt.maxTokens = 9;
    const outcome = ai.complete(prompt);
    if (outcome.failed) said.push(Json.text(outcome.failure.code));
    else said.push(Json.text(outcome.value.text)).push(Json.text(outcome.value.model)).push(
      Json.integer(outcome.value.tokens));
  } else if (todo == "tell") {
    const outcome = notify.send("email", "ann@example.com", "Hello", "It is done.");
    said.push(Json.text(outcome.failed ? outcome.failure.code : outcome.value));
  } else if (todo == "time") {
    const now = clock.now();
    said.push(Json.integer(<i64>now)).push(Json.bool(clock.monotonic() <= clock.monotonic()));
    said.push(Json.text(random.hex(4))).push(Json.bool(random.number() != random.number()));
  } else if (todo == "find") {
    const outcome = services.call("keelstone/users", "find", Json.object().set("id", Json.text("u1")));
    said.push(outcome.failed ? Json.text(outcome.failure.code) : outcome.value);
  }
  draft.attributes.set("said", said);
  return FilterReply.change(draft);
}
"""
PYTHON = """
from keelstone_guest import HostError, UserDraft, ai, clock, config, hook, http, kv, notify, random, secrets, services


def state() -> list:
    won = [kv.set_if("lock", "me", None), kv.set_if("lock", "you", None), kv.set_if("lock", "you", "me")]
    kv.set_for("soon", "gone", 60)
    kv.set_many({"a": "1", "b": "\\u00e9\\U0001F600"})
    return [*won, kv.get_many(["a", "absent", "b", "lock", "soon"])]


def send() -> list:
    headers = {"authorization": "Bearer " + secrets.placeholder("token")}
    return [http.post(config.get("target"), headers=headers).body]


def ask() -> list:
    answer = ai.complete("fast", "Say hello.", system="You are polite.", max_tokens=9)
    return [answer.text, answer.model, answer.tokens]


def tell() -> list:
    return [notify.send("email", "ann@example.com", "Hello", "It is done.")]


def time() -> list:
    now = round(clock.now().timestamp() * 1000)
    return [now, clock.monotonic() <= clock.monotonic(), random.hex(4), random.number() != random.number()]


def find() -> list:
    return [services.call("keelstone/users", "find", id="u1")]


TODO = {"kv": state, "send": send, "ask": ask, "tell": tell, "time": time, "find": find}


@hook("user_creating")
def create(draft: UserDraft) -> UserDraft:
    try:
        said = TODO[str(draft.attributes.get("do"))]()
    except HostError as error:
        if draft.attributes.get("do") == "send":
            raise
        said = [error.code]
    return draft.replace(attributes={**draft.attributes, "said": said})
"""
SOURCES = {"assemblyscript": ("assembly/index.ts", ASSEMBLYSCRIPT), "python": ("guest/plugin.py", PYTHON)}


def make(folder: Path, language: str, *, kernel: str = "^1.1", more: str = MANIFEST, source: str = "") -> Path:
    plugin = new_plugin(folder, "probe", language, "me")
    manifest = (plugin / "plugin.toml").read_text().replace('kernel = "^1.0"', f'kernel = "{kernel}"')
    assert f'kernel = "{kernel}"' in manifest
    (plugin / "plugin.toml").write_text(manifest.replace("[limits]", more + "\n[limits]"))
    (plugin / "settings.schema.json").write_text('{"type": "object", "properties": {"target": {"type": "string"}}}')
    place, text = SOURCES[language]
    (plugin / place).write_text(source or text)
    return plugin


def build(plugin: Path) -> Path:
    with toolchains_at_hand():
        return build_plugin(plugin, Toolchains()).path


@pytest.fixture(scope="module", params=[*SOURCES, "python in this process"])
def made(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """The probe in one language, and where it runs."""
    language, _, here = request.param.partition(" ")
    plugin = make(tmp_path_factory.mktemp("probe"), language)
    if not here:
        build(plugin)
    return plugin, "memory" if here else "sandbox"


@pytest.fixture
async def probe(made: tuple[Path, str]) -> Any:
    async with Guest(made[0], host=made[1]) as guest:  # type: ignore[arg-type]
        yield guest


async def do(guest: Guest, what: str, **options: Any) -> Any:
    draft = {"email": "a@b.example", "name": "A", "attributes": {"do": what}}
    return (await guest.filter("user_creating", draft, **options)).payload["attributes"].get("said")


async def test_state_is_compared_ends_and_comes_in_batches(probe: Guest) -> None:
    assert await do(probe, "kv") == [True, False, True, ["1", None, "é😀", "you", "gone"]]
    assert probe.stored == {"a": "1", "b": "é😀", "lock": "you", "soon": "gone"}


async def test_a_secret_is_sent_and_not_seen(probe: Guest) -> None:
    probe.web.answer(200, "you sent value-of-token")
    settings = {"target": probe.web.url}
    assert await do(probe, "send", settings=settings) == ["you sent [secret token]"]
    assert probe.web.requests[0].headers["authorization"] == "Bearer value-of-token"
    probe.outside.secrets.values.clear()
    with pytest.raises(KeelstoneError, match="not-found"):
        await do(probe, "send", settings=settings)


async def test_a_model_answers(probe: Guest) -> None:
    probe.outside.models.answers.append("Hello, dear!")
    text, model, tokens = await do(probe, "ask")
    assert (text, model, tokens > 0) == ("Hello, dear!", "fast", True)
    (asked,) = probe.outside.models.requests
    assert (asked.text, asked.system, asked.max_tokens) == ("Say hello.", "You are polite.", 9)
    probe.chaos("fail ai unavailable")
    assert await do(probe, "ask") == ["unavailable"]


async def test_a_message_is_sent(probe: Guest) -> None:
    assert await do(probe, "tell") == ["notice-1"]
    (sent,) = probe.outside.notifier.sent
    assert (sent.channel, sent.recipient, sent.subject) == ("email", "ann@example.com", "Hello")
    assert await do(probe, "tell", grants=["config"]) == ["not-granted"]


async def test_time_and_chance_are_what_the_test_says(probe: Guest) -> None:
    probe.clock.set("2026-02-03T04:05:06")
    probe.random.seed(7)
    first = await do(probe, "time")
    assert first[:2] == [1_770_091_506_000, True]
    assert first[3] is True
    probe.random.seed(7)
    assert (await do(probe, "time"))[2] == first[2]


async def test_another_plugins_method_answers(probe: Guest) -> None:
    probe.outside.services.answers["keelstone/users", "find"] = {"id": "u1", "name": "Ann"}
    assert await do(probe, "find") == [{"id": "u1", "name": "Ann"}]
    assert probe.outside.services.calls == [("keelstone/users", "find", {"id": "u1"})]
    probe.outside.services.answers["keelstone/users", "find"] = NotFound("There is nobody of that id.")
    assert await do(probe, "find") == ["not-found"]


# ---------------------------------------------------------------------- generation 1.0

OLD = '[capabilities.kv]\nwhy = "Tries the key-value store."\n'
OLD_SOURCE = """
import { FilterReply, kv, UserDraft } from "keelstone";

export function user_creating(draft: UserDraft): FilterReply {
  kv.set("seen", draft.email);
  return FilterReply.keep();
}
"""


async def test_a_plugin_that_asks_for_1_0_is_built_for_1_0_and_runs(tmp_path: Path) -> None:
    plugin = make(tmp_path, "assemblyscript", kernel="~1.0", more=OLD, source=OLD_SOURCE)
    imports = component_imports(build(plugin).read_bytes())
    assert {name for name in imports if "/kv@" in name} == {"keelstone:plugin/kv@1.0.0"}
    async with Guest(plugin) as guest:
        await guest.filter("user_creating", {"email": "a@b.example", "name": "A"})
        assert guest.stored == {"seen": "a@b.example"}


def test_a_call_that_1_0_does_not_have_stops_its_build(tmp_path: Path) -> None:
    source = OLD_SOURCE.replace('kv.set("seen", draft.email)', 'kv.setFor("seen", draft.email, 60)')
    plugin = make(tmp_path, "assemblyscript", kernel="~1.0", more=OLD, source=source)
    with pytest.raises(BuildFailed) as caught:
        build(plugin)
    assert "set-for" in str(caught.value)
