"""Host calls through a real guest: granted, ungranted, limited; saved only if the call succeeds."""

from __future__ import annotations

import asyncio
import hashlib

import pytest

from kernel.ports import KvValue, LogLine
from sandbox import errors
from sandbox.policy import FLOODERS_PACE, MAX_LOG_CHARS, STRANGERS_PACE

NONE: frozenset[str] = frozenset()


@pytest.mark.parametrize("call", ["gkey", "skey\nvalue", "dkey", "k", "cgreeting", "elead.scored\n{}", "hhttps://x/"])
async def test_without_a_grant_every_host_call_answers_not_granted(box, call):
    result = await box.run("host", call, grants=NONE, settings={"greeting": "hi"})
    assert result.output == "!not-granted"
    assert not result.effects
    assert result.effects.kv_reads == {}


async def test_without_a_grant_nothing_is_logged(box):
    result = await box.run("host", "lsecret", grants=NONE)
    assert result.output == "done"
    assert result.logs == ()
    assert box.logs == []


async def test_a_grant_opens_its_own_capability_only(box):
    only_kv = frozenset({"kv"})
    assert (await box.run("host", "gkey", grants=only_kv)).output == "none"
    assert (await box.run("host", "cgreeting", grants=only_kv)).output == "!not-granted"


async def test_a_grant_for_what_the_manifest_does_not_ask_is_worthless(box, make_manifest):
    with pytest.raises(errors.ImportNotCovered):
        await box.run("host", "gkey", manifest=make_manifest(capabilities={"log": {"why": "only logs"}}, events={}))


async def test_settings_are_read_as_json(box):
    settings = {"greeting": "hi", "list": [1, "é"], "empty": "", "off": False, "gone": None}
    found = {key: (await box.run("host", f"c{key}", settings=settings)).output for key in [*settings, "other"]}
    assert found == {
        "greeting": '"hi"', "list": '[1,"é"]', "empty": '""', "off": "false", "gone": "none", "other": "none",
    }  # fmt: skip


async def test_lines_are_kept_up_to_the_limit(box, make_manifest):
    few = make_manifest(limits={"log_lines": 2, "host_calls": 5})
    with pytest.raises(errors.GuestHostCallLimit):
        await box.run("host", "Lagain", manifest=few)
    assert [line.message for line in box.logs] == ["again", "again", "further lines dropped (limits.log_lines is 2)"]


async def test_a_guest_that_floods_the_host_is_slowed_down_and_one_that_does_not_is_not(box, bytes_of, make_manifest):
    few = make_manifest(limits={"host_calls": 5})
    with pytest.raises(errors.GuestHostCallLimit):
        await box.run("host", "Lagain", manifest=few)
    await box.run("echo", manifest=few)
    paces = [
        box.runtime._shelves._usual.get(hashlib.sha256(bytes_of(guest)).hexdigest()).placement.pace()
        for guest in ("host", "echo")
    ]
    assert paces == [FLOODERS_PACE, STRANGERS_PACE]


async def test_no_more_of_a_line_is_carried_than_is_kept(box, make_manifest):
    wide = make_manifest(limits={"input_kb": 1_024, "output_kb": 1_024})
    await box.run("host", "l" + "é" * 100_000, manifest=wide)
    assert box.logs[0].message == "é" * MAX_LOG_CHARS


async def test_standard_output_goes_to_the_plugins_log(box):
    result = await box.run("print", "one\ntwo")
    assert result.logs == (LogLine("info", "one"), LogLine("info", "two"))
    assert (await box.run("print", "one", grants=NONE)).logs == ()


async def test_a_guest_cannot_hand_over_endless_lists(box, make_manifest):
    wide = make_manifest(limits={"input_kb": 1_024})
    with pytest.raises(errors.GuestOutputTooLarge):
        await box.run("print", "x" * 5_000, manifest=wide)
    with pytest.raises(errors.GuestHostCallLimit):
        await box.run("print", "x" * 100_000, manifest=wide)


# ---------------------------------------------------------------------- kv


async def test_reads_are_recorded_with_their_versions(box):
    box.kv.space("acme", "acme/guest")["name"] = KvValue("ada", 7)
    result = await box.run("host", "gname")
    assert result.output == "ada"
    assert result.effects.kv_reads == {"name": 7}
    assert (await box.run("host", "gother")).effects.kv_reads == {"other": 0}


async def test_writes_are_collected_and_not_yet_saved(box):
    result = await box.run("host", "sname\nada")
    assert result.output == "done"
    assert result.effects.kv_writes == {"name": "ada"}
    assert box.kv.space("acme", "acme/guest") == {}


async def test_a_call_reads_its_own_writes(box):
    box.kv.space("acme", "acme/guest")["name"] = KvValue("old", 1)
    result = await box.run("host", "uname\nnew")
    assert result.output == "new"
    assert result.effects.kv_reads == {}


async def test_nothing_of_a_failed_call_is_handed_on(box):
    with pytest.raises(errors.GuestTrapped):
        await box.run("host", "tname\nada")
    assert (await box.run("host", "gname")).output == "none"


async def test_deleting_is_a_write_of_nothing(box):
    box.kv.space("acme", "acme/guest")["name"] = KvValue("ada", 1)
    assert (await box.run("host", "dname")).effects.kv_writes == {"name": None}


async def test_keys_are_listed_in_order_by_prefix(box):
    space = box.kv.space("acme", "acme/guest")
    for key in ("b:2", "a:1", "b:1"):
        space[key] = KvValue("x", 1)
    assert (await box.run("host", "kb:")).output == "b:1,b:2"
    assert (await box.run("host", "k")).output == "a:1,b:1,b:2"


async def test_tenants_do_not_see_each_others_keys(box):
    box.kv.space("acme", "acme/guest")["name"] = KvValue("ada", 1)
    assert (await box.run("host", "gname", tenant="acme")).output == "ada"
    assert (await box.run("host", "gname", tenant="globex")).output == "none"
    assert (await box.run("host", "k", tenant="globex")).output == ""


@pytest.mark.parametrize("key", ["", "x" * 257, "a\tb", "a\x00b"])
async def test_keys_have_a_form(box, key):
    assert (await box.run("host", f"g{key}")).output == "!invalid"


async def test_state_has_a_quota_of_keys(box, make_manifest):
    few = make_manifest(limits={"kv_keys": 3})
    box.kv.space("acme", "acme/guest")["z"] = KvValue("x", 1)
    with_two_more = await box.run("host", "Sa\nvalue", manifest=few)
    assert with_two_more.output == "!limit"
    assert with_two_more.effects.kv_writes == {"a": "value", "b": "value"}
    assert (await box.run("host", "sz\nreplaced", manifest=few)).output == "done"


async def test_state_has_a_quota_of_bytes(box, make_manifest):
    small = make_manifest(limits={"kv_kb": 1})
    assert (await box.run("host", "sk\n" + "x" * 1_023, manifest=small)).output == "done"
    assert (await box.run("host", "sk\n" + "x" * 1_024, manifest=small)).output == "!limit"


async def test_a_store_that_hangs_costs_no_more_than_the_calls_time(box, make_manifest):
    async def hang(*_: object) -> None:
        await asyncio.sleep(60)

    box.kv.get = hang
    try:
        outcome = (await box.run("host", "gname", manifest=make_manifest(limits={"time_ms": 200}))).output
    except errors.GuestTimeLimit:
        outcome = "interrupted"
    # Its time is over when it gets its answer: it may just manage to pass that on, or not.
    assert outcome in {"!deadline", "interrupted"}


async def test_a_store_that_fails_is_unavailable_to_the_guest(box):
    async def fail(*_: object) -> None:
        raise OSError("disk gone")

    box.kv.get = fail
    assert (await box.run("host", "gname")).output == "!unavailable"


# ---------------------------------------------------------------------- events


async def test_an_event_that_fits_is_collected(box):
    result = await box.run("host", 'elead.scored\n{"score": 3}')
    assert result.output == "done"
    assert [(e.type, e.data) for e in result.effects.events] == [("lead.scored", {"score": 3})]


@pytest.mark.parametrize(
    ("event", "answer"),
    [
        ('lead.lost\n{"score": 3}', "!denied"),
        ('user.created\n{"score": 3}', "!denied"),
        ("lead.scored\n{", "!invalid"),
        ("lead.scored\n[]", "!invalid"),
        ("lead.scored\n{}", "!invalid"),
        ('lead.scored\n{"score": -1}', "!invalid"),
        ('lead.scored\n{"score": 1, "more": 2}', "!invalid"),
    ],
)
async def test_an_event_that_does_not_fit_is_refused(box, event, answer):
    result = await box.run("host", f"e{event}")
    assert result.output == answer
    assert result.effects.events == []


async def test_events_have_a_limit(box, make_manifest):
    result = await box.run("host", 'elead.scored\n{"score": 3}', manifest=make_manifest(limits={"events": 0}))
    assert result.output == "!limit"


# ---------------------------------------------------------------------- limits


async def test_host_calls_past_the_limit_answer_limit(box, make_manifest):
    result = await box.run("host", "Rgreeting", settings={"greeting": "hi"})
    assert result.output == "!limit"
    assert result.usage.host_calls == 150
    enough = make_manifest(limits={"host_calls": 150})
    assert (await box.run("host", "Rgreeting", settings={"greeting": "hi"}, manifest=enough)).output == '"hi"'
