"""`keelstone plugin dev`, done for real: a plugin is made, changed, broken, crashed and mended while it runs."""

import json
import os
import queue
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from plugin_sdk.toolchain import Toolchains
from tests.services.base import cache_folder
from tests.support.absent import toolchains_at_hand
from tests.support.documents import ROOT

pytestmark = pytest.mark.toolchain
SECONDS = 120.0


class Loop:
    """A running loop: its happenings in order, and commands beside it."""

    def __init__(self, folder: Path, environment: dict[str, str]) -> None:
        self.folder = folder
        self.environment = environment
        self.seen: list[dict[str, Any]] = []
        self._lines: queue.Queue[str | None] = queue.Queue()
        self.process = subprocess.Popen(
            [sys.executable, "-m", "api.cli", "plugin", "dev", str(folder), "--json"],
            env=environment,
            stdout=subprocess.PIPE,
            text=True,
        )
        threading.Thread(target=self._read, daemon=True).start()

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self._lines.put(line)
        self._lines.put(None)

    def until(self, *kinds: str) -> dict[str, Any]:
        """The next happening of one of these kinds."""
        while True:
            line = self._lines.get(timeout=SECONDS)
            assert line is not None, f"the loop ended; it said {self.seen}"
            happening: dict[str, Any] = json.loads(line)
            self.seen.append(happening)
            if happening["event"] in kinds:
                return happening

    def cli(self, *arguments: str, code: int = 0) -> Any:
        done = subprocess.run(
            [sys.executable, "-m", "api.cli", "plugin", *arguments, "--json"],
            env=self.environment,
            cwd=self.folder,
            capture_output=True,
            text=True,
            timeout=SECONDS,
            check=False,
        )
        assert done.returncode == code, done.stdout + done.stderr
        return json.loads(done.stdout)


@contextmanager
def _running(parent: Path, name: str, language: str, environment: dict[str, str]) -> Iterator[Loop]:
    """A loop over a new plugin, ended as people end it."""
    made = [sys.executable, "-m", "api.cli", "plugin", "new", name, "--language", language]
    subprocess.run(made, env=environment, cwd=parent, check=True, capture_output=True, timeout=SECONDS)
    running = Loop(parent / name, environment)
    try:
        yield running
    finally:
        running.process.send_signal(signal.SIGTERM)
        try:
            assert running.process.wait(SECONDS) == 0
        finally:
            running.process.kill()
            assert running.process.stdout is not None
            running.process.stdout.close()


@pytest.fixture
def loop(tmp_path: Path) -> Iterator[Loop]:
    tools = Toolchains(cache_folder() / "toolchains")
    with toolchains_at_hand():
        tools.assemblyscript()
        tools.wasm_tools()
    environment = {name: value for name, value in os.environ.items() if not name.startswith("KEELSTONE_")}
    environment |= {"PYTHONPATH": str(ROOT), "KEELSTONE_TOOLCHAINS": str(tools.folder)}
    with _running(tmp_path, "hello", "assemblyscript", environment) as running:
        yield running


def test_a_change_is_active_at_once_and_what_fails_is_shown_at_its_line(loop: Loop) -> None:
    first = loop.until("active", "failed")
    assert first["event"] == "active", first
    assert first["version"] == "0.1.0-dev.1"
    source = loop.folder / "assembly" / "index.ts"
    good = source.read_text()

    source.write_text(good.replace("tidied a name", "made a name tidy"))
    second = loop.until("active", "failed")
    assert second["version"] == "0.1.0-dev.2", second
    file = loop.folder / "ann.json"
    file.write_text(json.dumps({"email": "ann@example.com", "name": "  Ann   Lee "}))
    assert loop.cli("call", "user_creating", "--payload", str(file))["payload"]["name"] == "Ann Lee"
    call = loop.until("call")
    assert (call["hook"], call["tenant"], call["version"]) == ("user_creating", "acme", "0.1.0-dev.2")
    assert call["result"] == "changed name"
    assert call["logs"] == [{"level": "info", "message": "made a name tidy"}]
    assert call["uses"]["config.get"] == 1
    assert call["memory_bytes"] >= 65536

    source.write_text(good.replace("draft.name = name;", "draft.nme = name;"))
    broken = loop.until("active", "failed")
    (place,) = broken["places"]
    assert broken["stage"] == "build"
    assert place["file"] == "assembly/index.ts"
    assert "draft.nme" in place["text"]
    assert "nme" in place["message"]
    assert loop.cli("call", "user_creating")["result"] == "kept"
    assert loop.until("call")["version"] == "0.1.0-dev.2"

    source.write_text(good.replace("draft.name = name;", "draft.name = name.repeat(-1);"))
    loop.until("active")
    assert loop.cli("call", "user_creating", "--payload", str(file), code=1)["error"]["code"] == "plugin-unavailable"
    crashed = loop.until("call")
    assert crashed["result"] == "failed"
    assert crashed["problem"]["code"] == "guest-trap"
    assert any("name.repeat(-1)" in place["text"] for place in crashed["places"]), crashed["places"]
    replayed = loop.cli("replay", crashed["recording"])
    assert replayed["same"]
    assert any("name.repeat(-1)" in place["text"] for place in replayed["places"])

    source.write_text(good)
    assert loop.until("active", "failed")["event"] == "active"


def test_a_zig_guest_is_active_as_quickly_made_and_then_as_it_is_published(loop: Loop) -> None:
    with toolchains_at_hand():
        Toolchains(cache_folder() / "toolchains").zig()
    loop.until("active")
    file = loop.folder / "ann.json"
    file.write_text(json.dumps({"email": "ann@example.com", "name": "  Ann   Lee "}))
    with _running(loop.folder.parent, "lizard", "zig", loop.environment) as lizard:
        lizard.until("active", "failed")
        sizes = [happening["size"] for happening in lizard.seen if happening["event"] == "built"]
        assert lizard.cli("call", "user_creating", "--payload", str(file))["payload"]["name"] == "Ann Lee"
        assert lizard.until("active", "failed")["event"] == "active"
        sizes.append([happening["size"] for happening in lizard.seen if happening["event"] == "built"][-1])
        assert sizes[1] * 2 < sizes[0]
        assert lizard.cli("call", "user_creating", "--payload", str(file))["payload"]["name"] == "Ann Lee"
        built = lizard.folder / "build" / "lizard.component.wasm"
        assert built.stat().st_size == sizes[1]


def test_a_python_guest_is_active_as_source_at_once_and_then_as_its_component(loop: Loop) -> None:
    loop.until("active")
    with _running(loop.folder.parent, "snake", "python", loop.environment) as snake:
        first = snake.until("active", "failed")
        assert (first["event"], first["host"]) == ("active", "source"), first
        assert snake.cli("call", "user_creating")["result"] == "kept"
        assert snake.until("call")["version"] == first["version"]
        source = snake.folder / "guest" / "plugin.py"
        good = source.read_text()
        source.write_text(good.replace("log.info(", "(1 / 0) and log.info("))
        while (now := snake.until("active"))["host"] != "source":
            assert now["version"] != first["version"]
        file = snake.folder / "ann.json"
        file.write_text(json.dumps({"email": "ann@example.com", "name": "  Ann   Lee "}))
        snake.cli("call", "user_creating", "--payload", str(file), code=1)
        while (failed := snake.until("call"))["result"] != "failed":
            pass
        assert any("1 / 0" in place["text"] for place in failed["places"]), failed


def test_without_a_loop_a_hook_is_called_in_the_sandbox_alone(loop: Loop) -> None:
    loop.until("active")
    home = loop.folder / ".keelstone-dev" / "server.json"
    served = home.read_text()
    home.unlink()
    answer = loop.cli("call", "user_creating")
    assert answer["result"] == "kept"
    assert answer["memory_bytes"] >= 65536
    home.write_text(served)


def test_a_platform_that_is_not_for_development_takes_nothing(loop: Loop, tmp_path: Path) -> None:
    from tests.support.served import serve

    loop.until("active")
    with serve(tmp_path / "platform", seed=False) as served:
        environment = {**loop.environment, "KEELSTONE_URL": served.url}
        command = [sys.executable, "-m", "api.cli", "plugin", "dev", str(loop.folder), "--once", "--json"]
        command += ["--home", str(served.home)]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=SECONDS, check=False)
        assert done.returncode == 1
        assert "takes no plugins from a folder" in done.stdout
