"""A recording, masked as the platform masks it, still takes the path that the failed call took."""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
from pathlib import Path

import pytest

import plugin_sdk
from kernel.errors import KeelstoneError
from kernel.ports import GuestCall, GuestResult
from kernel.settings import PERSONAL_FIELDS
from plugin_sdk.recordings import Recording, personal_fields, record
from plugin_sdk.replay import replay, source_in
from plugin_sdk.testing import Guest, sample_event
from plugins.builtin.metering.redaction import Redactor

EXAMPLES = Path(plugin_sdk.__file__).parent / "examples"
ANN = {"user": "u1", "email": "ann.o'neil@example.com", "name": "Ann O'Neil"}


def copied(name: str, tmp_path: Path) -> Path:
    folder = tmp_path / name
    shutil.copytree(EXAMPLES / name, folder, ignore=shutil.ignore_patterns("sandbox", "__pycache__"))
    return folder


async def recorded(guest: Guest, hook: str, payload: dict[str, object]) -> Recording:
    seen: list[tuple[GuestCall, GuestResult | KeelstoneError]] = []
    guest.watch(lambda call, came_to: seen.append((call, came_to)))
    with contextlib.suppress(KeelstoneError):
        await guest.call(hook, payload)
    return record(*seen[-1])


@pytest.mark.parametrize("status", [503, 200])
async def test_a_masked_call_asks_the_host_for_the_same_things_in_the_same_order(tmp_path: Path, status: int) -> None:
    folder = copied("chat-notifier", tmp_path)
    async with Guest(folder) as guest:
        guest.web.answer(status, "no channel for ann.o'neil@example.com")
        guest.settings = {"webhook_url": guest.web.url + "hook"}
        whole = await recorded(guest, "event_received", sample_event("user.created", ANN))
    redactor = Redactor(PERSONAL_FIELDS)
    masked = await asyncio.to_thread(
        redactor.redact, whole, os.urandom(32), marked=personal_fields(whole.hook), tenant="acme"
    )
    assert "neil" not in masked.text().lower()
    assert masked.exchanges
    source = source_in(folder, masked)
    assert source is not None
    done = await replay(masked, source)
    assert done.differences == ()
    assert done.exchanges == len(whole.exchanges)
