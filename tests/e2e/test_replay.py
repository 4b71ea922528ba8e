"""A failed call, recorded and run again: real components in the real sandbox."""

import asyncio
import json
import shutil
from pathlib import Path

import pytest
from typer.testing import CliRunner

import plugin_sdk
from api.cli import build
from kernel.errors import KeelstoneError, ValidationFailed
from kernel.ports import GuestCall, GuestResult
from plugin_sdk.recordings import Recording, record, write_recording
from plugin_sdk.replay import replay, source_in
from plugin_sdk.terminal import EXIT_FAILED
from plugin_sdk.testing import Guest, sample_event

EXAMPLE = Path(plugin_sdk.__file__).parent / "examples" / "chat-notifier"
ANN = {"user": "u1", "email": "ann@example.com", "name": "Ann"}


@pytest.fixture
def notifier(tmp_path: Path) -> Path:
    """A copy of the example with its kept component."""
    folder = tmp_path / "chat-notifier"
    ignored = shutil.ignore_patterns("sandbox", "__pycache__")
    shutil.copytree(EXAMPLE, folder, ignore=ignored)
    return folder


class Recorded:
    """Calls of a guest, each with what it came to, as the platform's observers see them."""

    def __init__(self, guest: Guest) -> None:
        self.guest = guest

    async def call(self, event: dict[str, object]) -> Recording:
        seen: list[tuple[GuestCall, GuestResult | KeelstoneError]] = []
        self.guest.watch(lambda call, came_to: seen.append((call, came_to)))
        try:
            await self.guest.call("event_received", event)
        except KeelstoneError:
            assert isinstance(seen[-1][1], KeelstoneError)
        return record(*seen[-1])


async def recording_of(folder: Path, status: int) -> Recording:
    """One call of the notifier whose webhook answered ``status``."""
    async with Guest(folder) as guest:
        guest.web.answer(status, "no")
        guest.settings = {"webhook_url": guest.web.url + "hook"}
        return await Recorded(guest).call(sample_event("user.created", ANN))


async def test_a_failed_call_is_replayed_byte_for_byte_without_the_world_it_failed_in(notifier: Path) -> None:
    recording = await recording_of(notifier, 503)
    assert recording.outcome.code == "guest-error"
    assert [e.function for e in recording.exchanges if not e.function.startswith("wasi:")].count("http.send") >= 1
    source = source_in(notifier, recording)
    assert source is not None
    done = await replay(recording, source)
    assert done.differences == ()
    assert done.same
    assert done.outcome.detail == recording.outcome.detail
    assert done.exchanges == len(recording.exchanges)


async def test_a_successful_call_is_replayed_too_and_its_answer_compared(notifier: Path) -> None:
    recording = await recording_of(notifier, 200)
    assert recording.outcome.code == "ok"
    source = source_in(notifier, recording)
    assert source is not None
    assert (await replay(recording, source)).same
    other = recording.model_copy(
        update={"outcome": recording.outcome.model_copy(update={"output": '{"done": "never"}'})}
    )
    (difference,) = (await replay(other, source)).differences
    assert difference.what == "output"
    assert difference.recorded == '{"done": "never"}'


async def test_the_first_host_call_that_differs_is_named(notifier: Path) -> None:
    recording = await recording_of(notifier, 503)
    changed = {**json.loads(recording.payload), "data": {**ANN, "name": "Bob"}}
    done = await replay(
        recording.model_copy(update={"payload": json.dumps(changed)}),
        source_in(notifier, recording),  # type: ignore[arg-type]
    )
    (difference,) = done.differences
    assert difference.what.startswith("host call ")
    assert "Ann" in str(difference.recorded)
    assert "Bob" in str(difference.replayed)


async def test_another_build_is_replayed_only_when_asked_for(notifier: Path) -> None:
    recording = await recording_of(notifier, 200)
    foreign = recording.model_copy(update={"digest": "0" * 64})
    assert source_in(notifier, foreign) is None
    source = source_in(notifier, foreign, anyway=True)
    assert source is not None
    assert "another build" in source.origin


async def test_the_command_says_the_same_or_shows_what_differs(
    notifier: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KEELSTONE_HOME", str(tmp_path / "home"))
    recording = await recording_of(notifier, 503)
    file = tmp_path / "call.json"
    write_recording(file, recording)
    runner, root = CliRunner(), build()
    command = ["plugin", "replay", str(file), "--folder", str(notifier)]
    told = await asyncio.to_thread(runner.invoke, root, command)
    assert told.exit_code == 0, told.output
    assert "The same, byte for byte." in told.output
    write_recording(file, recording.model_copy(update={"payload": recording.payload.replace("Ann", "Eve")}))
    told = await asyncio.to_thread(runner.invoke, root, [*command, "--json"])
    assert told.exit_code == EXIT_FAILED
    assert json.loads(told.stdout)["differences"][0]["what"].startswith("host call")


def test_what_is_no_recording_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "call.json"
    file.write_text('{"format": 2}')
    told = CliRunner().invoke(build(), ["plugin", "replay", str(file), "--json"])
    assert json.loads(told.stdout)["error"]["code"] == ValidationFailed.code


async def test_what_is_not_in_the_folder_comes_from_the_marketplace_verified(tmp_path: Path) -> None:
    from tests.support.served import serve

    guard = EXAMPLE.with_name("email-guard")
    async with Guest(guard) as guest:
        seen: list[tuple[GuestCall, GuestResult | KeelstoneError]] = []
        guest.watch(lambda call, came_to: seen.append((call, came_to)))
        await guest.filter("user_creating", {"email": "ann@example.com", "name": "Ann"})
    file, empty = tmp_path / "call.json", tmp_path / "empty"
    empty.mkdir()
    write_recording(file, record(*seen[0]))
    with serve(tmp_path / "platform") as served:
        told = await asyncio.to_thread(served.cli, "plugin", "replay", str(file), "--folder", str(empty))
        assert told["same"]
        assert "email-guard 1.0.0, verified" in told["component"]
        write_recording(file, record(*seen[0]).model_copy(update={"digest": "0" * 64}))
        refused = await asyncio.to_thread(
            lambda: served.cli("plugin", "replay", str(file), "--folder", str(empty), code=EXIT_FAILED)
        )
        assert refused["error"]["code"] == "not-found"
