"""What a call was answered is recorded, and given again: strictly, or only where it would leave the platform."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
from sandbox_server import http, serving

from kernel.ports import HostExchange, KvValue, Replay
from sandbox import errors
from sandbox.recording import CUT, MAX_WEIGHT, Recorder, Replayer
from tests.support.caller import caller

REQUEST = {"method": "GET", "headers": [], "body": None}


async def again(box, exchanges, *, strict=True):
    """The last call once more, with the answers of a recording."""
    return await box.runtime.call(replace(box.last_call, replay=Replay(tuple(exchanges), strict)))


def remember(box):
    """Keep the last call, to be made again."""
    real = box.runtime.call

    async def call(call):
        box.last_call = call
        return await real(call)

    box.runtime.call = call
    return box


@pytest.fixture
def kept(box):
    """A sandbox whose last call can be made again."""
    return remember(box)


def stored(recording: tuple[HostExchange, ...]) -> list[HostExchange]:
    """A recording as it comes back from a JSON file."""
    raw = json.loads(json.dumps([[e.function, e.arguments, e.answer, e.failed] for e in recording]))
    return [HostExchange(f, tuple(a), answer, failed) for f, a, answer, failed in raw]


@pytest.mark.parametrize(
    ("function", "arguments"),
    [
        (("kv", "get"), ["k"]),
        (("kv", "get-many"), [["k", "other"]]),
        (("kv", "set-if"), ["k", "two", "one"]),
        (("kv", "set"), ["k", "two"]),
        (("kv", "set-for"), ["k", "two", 60]),
        (("kv", "delete"), ["k"]),
        (("kv", "set-many"), [[{"key": "k", "value": "two"}]]),
        (("kv", "get"), [""]),
        (("clock", "now"), []),
        (("clock", "monotonic"), []),
        (("random", "number"), []),
        (("random", "hex"), [8]),
        (("config", "get"), ["greeting"]),
        (("events", "emit"), ["lead.scored", '{"score": 3}']),
        (("events", "emit"), ["lead.scored", "{}"]),
        (("services", "call"), ["keelstone/users", "find", "{}"]),
    ],
    ids=lambda v: ".".join(v) if isinstance(v, tuple) else None,
)
async def test_a_replayed_call_gets_the_recorded_answers_and_leaves_the_same_effects(kept, function, arguments):
    space = kept.kv.space("acme", "acme/guest")
    space["k"] = KvValue("one", 1)
    guest = caller("1.1", *function, *arguments)
    first = await kept.run(guest, settings={"greeting": "hi"})
    assert [e.function for e in first.recording] == [".".join(function)]
    space.clear()
    second = await again(kept, stored(first.recording))
    assert second.output == first.output
    assert second.effects.kv_writes == first.effects.kv_writes
    assert second.effects.kv_ttl == first.effects.kv_ttl
    assert [(e.type, e.data) for e in second.effects.events] == [(e.type, e.data) for e in first.effects.events]
    assert stored(second.recording) == stored(first.recording)


async def test_a_call_that_differs_from_its_recording_ends_with_what_differed(kept):
    first = await kept.run(caller("1.1", "kv", "get", "k"))
    recorded = first.recording
    for changed in ([replace(recorded[0], arguments=("other",))], [replace(recorded[0], function="kv.delete")]):
        with pytest.raises(errors.ReplayDiverged) as caught:
            await again(kept, changed)
        assert caught.value.found == "kv.get('k')"
        assert caught.value.extra == {"position": 0}


async def test_a_mirrored_call_does_not_leave_the_platform(opened):
    async with serving(lambda r: http(body=b"real")) as server:
        here = f"127.0.0.1:{server.port}"
        async with opened(http_private_allow=(here,)) as box:
            remember(box)
            guest = caller("1.1", "http", "send", REQUEST | {"url": f"http://{here}/"})
            first = await box.run(guest, settings={"hook_url": f"http://{here}/"})
            assert first.output == "real"
            assert (await again(box, first.recording, strict=False)).output == "real"
            assert (await again(box, (), strict=False)).output == "!unavailable"
            assert server.connections == 1


async def test_a_mirrored_call_finds_stored_state_as_its_original_did(kept):
    space = kept.kv.space("acme", "acme/guest")
    space["k"] = KvValue("one", 1)
    first = await kept.run(caller("1.1", "kv", "get", "k"))
    space["k"] = KvValue("two", 2)
    assert (await again(kept, first.recording, strict=False)).output == "one", "saved since, by the original itself"
    assert (await again(kept, (), strict=False)).output == "two", "what the original did not read is read for real"


def test_what_a_call_wrote_itself_is_not_what_it_found():
    exchanges = (
        HostExchange("kv.get", ("a",), None),
        HostExchange("kv.set", ("b", "mine"), None),
        HostExchange("kv.get", ("b",), "mine"),
        HostExchange("kv.set-many", ([{"key": "c", "value": "mine"}],), None),
        HostExchange("kv.get-many", (["a", "c", "d"],), ["x", "mine", "stored"]),
        HostExchange("kv.get", ("e",), {"code": "denied", "message": ""}, failed=True),
    )
    assert Replayer(Replay(exchanges, strict=False)).stored == {"a": None, "d": "stored"}
    assert Replayer(Replay(exchanges)).stored == {}


async def test_a_failed_call_carries_what_it_was_answered_and_used(kept):
    kept.kv.space("acme", "acme/guest")["name"] = KvValue("ada", 1)
    with pytest.raises(errors.GuestTrapped) as caught:
        await kept.run("host", "tname\nbob")
    assert [(e.function, e.arguments) for e in caught.value.recording] == [("kv.set", ("name", "bob"))]
    assert caught.value.usage is not None
    assert caught.value.usage.uses == {"kv.set": 1}
    assert caught.value.usage.kv_bytes == 7


def test_a_recording_that_grows_too_large_says_so_and_stops():
    recorder = Recorder()
    for _ in range(5):
        recorder.add("http.send", ({"url": "https://a.test/"},), {"body": "x" * (MAX_WEIGHT // 3)})
    assert [e.function for e in recorder.exchanges] == ["http.send", "http.send", CUT]
