"""Guests that hold the host's calls, fill its store and play with its keys."""

from __future__ import annotations

import asyncio
import unicodedata
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from kernel.context import Context
from kernel.errors import GuestFailure
from kernel.ports import KvStore, KvValue
from tests.hostile.conftest import Opener
from tests.hostile.corpus import CORPUS, manifest_of
from tests.hostile.door import Door
from tests.hostile.probes import dripping, holding
from tests.hostile.text import compiled

HOST = compiled((Path(__file__).parents[1] / "guests" / "host.wat").read_text())
PATIENT = {"time_ms": 20_000}


class Slow:
    """A store that takes its time to read, and knows how many readers have given up."""

    def __init__(self, store: KvStore, seconds: float) -> None:
        self._store, self._seconds = store, seconds
        self.reads = self.given_up = 0

    def __getattr__(self, name: str) -> object:
        return getattr(self._store, name)

    async def _wait(self) -> None:
        self.reads += 1
        try:
            await asyncio.sleep(self._seconds)
        except asyncio.CancelledError:
            self.given_up += 1
            raise

    async def get(self, tenant: str, plugin: str, key: str) -> KvValue | None:
        await self._wait()
        return None

    async def get_many(self, tenant: str, plugin: str, keys: Sequence[str]) -> dict[str, KvValue]:
        await self._wait()
        return {}


def slowly(seconds: float, made: list[Slow]) -> Callable[[KvStore], KvStore]:
    def wrap(store: KvStore) -> KvStore:
        made.append(Slow(store, seconds))
        return made[-1]  # type: ignore[return-value]

    return wrap


async def test_a_call_that_holds_a_host_call_ends_with_its_time(doors: Opener) -> None:
    made: list[Slow] = []
    async with doors(kv=slowly(3_600, made)) as door:
        for _ in range(10):
            try:
                result = await door.run(compiled(holding()), "!", manifest=manifest_of(limits={"time_ms": 80}))
            except GuestFailure as error:
                assert error.code == "guest-time-limit"  # noqa: PT017
            else:
                assert result.usage.host_calls == 1
            await door.serves()
        async with asyncio.timeout(60):
            while made[0].given_up < made[0].reads:  # noqa: ASYNC110 - a store that lets go tells nobody
                await asyncio.sleep(0.01)
        assert made[0].reads == 10


async def test_host_calls_that_are_each_just_fast_enough_do_not_stretch_the_deadline(doors: Opener) -> None:
    made: list[Slow] = []
    drip = compiled(dripping())
    # Another key for each call would be read anew; the same key is read once and then answered at once.
    async with doors(kv=slowly(0.02, made)) as door:
        with pytest.raises(GuestFailure) as caught:
            await door.run(drip, manifest=manifest_of(limits={"time_ms": 150, "host_calls": 10_000}))
        assert caught.value.code in ("guest-time-limit", "guest-host-call-limit")
        lists = compiled(_listing())
        with pytest.raises(GuestFailure) as caught:
            await door.run(lists, manifest=manifest_of(limits={"time_ms": 150, "host_calls": 10_000}))
        assert caught.value.code == "guest-time-limit"
        await door.serves()


def _listing() -> str:
    from tests.hostile.text import text

    # Each call reads a key of its own: the key's first letter counts up through what is printable.
    return text(
        """(loop
        (i32.store8 (i32.const 1024) (i32.add (i32.const 33) (i32.rem_u (local.get $i) (i32.const 90))))
        (i32.store8 (i32.const 1025) (i32.add (i32.const 33)
          (i32.rem_u (i32.div_u (local.get $i) (i32.const 90)) (i32.const 90))))
        (call $kv.get (i32.const 1024) (i32.const 3) (i32.const 128))
        (local.set $i (i32.add (local.get $i) (i32.const 1))) (br 0)) unreachable""",
        uses=["kv.get"],
        data=b"key",
    )


async def test_a_cancelled_call_lets_go_of_the_host_call_it_holds(doors: Opener) -> None:
    made: list[Slow] = []
    async with doors(kv=slowly(3_600, made)) as door:
        task = asyncio.create_task(
            door.run(compiled(holding()), manifest=manifest_of(limits={"time_ms": 60_000, "concurrency": 1}))
        )
        async with asyncio.timeout(60):
            while not made or not made[0].reads:  # noqa: ASYNC110
                await asyncio.sleep(0.01)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await door.serves()


async def test_the_requests_own_deadline_ends_a_held_host_call(doors: Opener) -> None:
    made: list[Slow] = []
    async with doors(kv=slowly(3_600, made)) as door:
        await door.prepare(compiled(holding()), manifest_of(limits=PATIENT))
        context = Context(tenant="acme").within(0.2)
        try:
            await door.run(compiled(holding()), manifest=manifest_of(limits=PATIENT), context=context)
        except GuestFailure as error:
            assert error.code == "guest-time-limit"  # noqa: PT017
        await door.serves()


# ---------------------------------------------------------------------------------- the store


async def test_a_tenants_store_is_filled_to_its_limit_and_no_further(door: Door) -> None:
    small = manifest_of(limits=PATIENT | {"kv_keys": 5})
    result = await door.run(HOST, "Sa\nvalue", manifest=small)
    assert result.output.startswith("!limit")
    assert len(result.effects.kv_writes) == 5
    await door.save("acme", small.id, result)
    assert (await door.kv.usage("acme", small.id))[0] == 5
    # What one tenant has filled is not full for another.
    assert (await door.run(HOST, "sk\nv", manifest=small, tenant="globex")).output == "done"
    assert (await door.run(HOST, "sz\nv", manifest=small)).output.startswith("!limit")
    assert (await door.run(HOST, "sa\nother", manifest=small)).output == "done"


async def test_bytes_are_counted_as_they_are_stored_and_not_as_characters(door: Door) -> None:
    narrow = manifest_of(limits=PATIENT | {"kv_kb": 1})
    assert (await door.run(HOST, "sk\n" + "\U0001f600" * 250, manifest=narrow)).output == "done"
    assert (await door.run(HOST, "sk\n" + "\U0001f600" * 260, manifest=narrow)).output.startswith("!limit")


async def test_what_a_call_wrote_before_it_failed_is_nowhere(door: Door) -> None:
    with pytest.raises(GuestFailure):
        await door.run(HOST, "tkey\nvalue", manifest=manifest_of(limits=PATIENT))
    assert (await door.run(HOST, "gkey", manifest=manifest_of(limits=PATIENT))).output == "none"
    for guest in CORPUS:
        if guest.name in ("flood_writes", "event_storm"):
            with pytest.raises(GuestFailure) as caught:
                await door.run(compiled(guest.text()), manifest=manifest_of(limits=dict(guest.limits)))
            assert not hasattr(caught.value, "effects")
    assert await door.kv.usage("acme", "acme/hostile") == (0, 0)


async def test_no_key_reaches_what_another_tenant_or_plugin_keeps(door: Door) -> None:
    mine, theirs = manifest_of("acme/hostile", limits=PATIENT), manifest_of("globex/vault", limits=PATIENT)
    for tenant, manifest in (("globex", theirs), ("globex", mine), ("acme", theirs)):
        await door.save(tenant, manifest.id, await door.run(HOST, "skey\ntreasure", manifest=manifest, tenant=tenant))
    for key in (
        "key", "globex/key", "../globex/key", "globex:key", "globex/acme/hostile/key", "../../globex/vault/key", "%",
        "_ey", "*", "key' OR '1'='1", "key\" OR 1=1 --", "globex\x1fkey", "key%00", "KEY", "k\u200bey", "\uff4bey",
    ):  # fmt: skip
        found = (await door.run(HOST, f"g{key}", manifest=mine)).output
        assert found in ("none", "!invalid"), key
        assert (await door.run(HOST, f"k{key}", manifest=mine)).output in ("", "!invalid"), key
        assert (await door.run(HOST, f"d{key}", manifest=mine)).output in ("done", "!invalid"), key
    assert (await door.run(HOST, "gkey", manifest=mine, tenant="globex")).output == "treasure"


ODD_KEYS = ["", "\0", "a\0b", "a\tb", "k" * 257, "\ud7ff\u0085", "a\u2028b", "\x7f", "\u202ekey"]


@pytest.mark.parametrize("key", ODD_KEYS, ids=[ascii(key)[:20] for key in ODD_KEYS])
async def test_keys_that_cannot_be_printed_are_refused(door: Door, key: str) -> None:
    for operation in ("g", "d", "s"):
        payload = f"{operation}{key}" + ("\nvalue" if operation == "s" else "")
        assert (await door.run(HOST, payload, manifest=manifest_of(limits=PATIENT))).output == "!invalid"


async def test_keys_that_look_alike_are_different_keys(door: Door) -> None:
    manifest = manifest_of(limits=PATIENT)
    composed, decomposed = unicodedata.normalize("NFC", "e\u0301t\u00e9"), unicodedata.normalize("NFD", "\u00e9t\u00e9")
    assert composed != decomposed
    for key in (composed, decomposed, "ete", "ETE", "ete "):
        result = await door.run(HOST, f"s{key}\n{key!a}", manifest=manifest)
        await door.save("acme", manifest.id, result)
    for key in (composed, decomposed, "ete", "ETE", "ete "):
        assert (await door.run(HOST, f"g{key}", manifest=manifest)).output == ascii(key)
    assert (await door.kv.usage("acme", manifest.id))[0] == 5


async def test_values_that_not_every_database_keeps_are_refused_before_anything_is_saved(door: Door) -> None:
    """PostgreSQL knows no NUL: found at the commit, it would end the work that the guest was asked about."""
    for value in ("\0", "a\0b", "\0" * 1_000):
        result = await door.run(HOST, f"sk\n{value}", manifest=manifest_of(limits=PATIENT))
        assert result.output == "!invalid"
        assert not result.effects


async def test_values_are_kept_as_they_are(door: Door) -> None:
    manifest = manifest_of(limits=PATIENT)
    for value in ("", "\r\n", "\u2028\u202e", "'; DROP TABLE kv; --", "\U0001f600" * 100, "e\u0301"):
        await door.save("acme", manifest.id, await door.run(HOST, f"sk\n{value}", manifest=manifest))
        assert (await door.run(HOST, "gk", manifest=manifest)).output == value


async def test_a_guest_emits_only_what_it_declared_with_data_that_fits(door: Door) -> None:
    manifest = manifest_of(limits=PATIENT)
    for kind, data in (
        ("user.deleted", "{}"), ("lead.scored.more", "{}"), ("", "{}"), ("lead.scored", "[]"), ("lead.scored", "nil"),
        ("lead.scored", '{"a":' * 5_000 + "1" + "}" * 5_000), ("lead.scored", '{"a": NaN}'), ("lead.scored", ""),
        ("lead.scored", '{"a": "\\ud800"}'), ("lead.scored", '{"a": "\\u0000"}'), ("lead.scored", '{"\\u0000": 1}'),
        ("lead.scored", '{"a":' * 33 + "1" + "}" * 33),
    ):  # fmt: skip
        result = await door.run(HOST, f"e{kind}\n{data}", manifest=manifest)
        assert result.output in ("!denied", "!invalid"), (kind, data[:40])
        assert not result.effects.events
    assert (await door.run(HOST, 'elead.scored\n{"score": 1}', manifest=manifest)).output == "done"


async def test_log_lines_carry_no_line_of_their_own_making(door: Door) -> None:
    await door.run(HOST, "lfine\r\n2026-01-01 ERROR forged\x1b[2J", manifest=manifest_of(limits=PATIENT))
    (_, line) = door.logs[0]
    assert "\x1b" not in line.message
    assert "\n" not in line.message
