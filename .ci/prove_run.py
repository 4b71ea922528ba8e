"""Starts `make run` as a person would, on a terminal and without one, and checks what the README promises.

Only the standard library: this runs before anything is installed.
"""

from __future__ import annotations

import json
import os
import pty
import re
import shlex
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path

INSTALL_SECONDS = 900
START_SECONDS = 120
STOP_SECONDS = 60
COLOURS = re.compile(r"\x1b\[[0-9;]*m")


class Make:
    """`make run` under way. Its output is passed on and kept."""

    def __init__(self, environment: dict[str, str], terminal: bool) -> None:
        self.output = ""
        if terminal:
            self._screen, inside = pty.openpty()
            self.process = subprocess.Popen(
                ["make", "run"],
                **{"stdin": inside, "stdout": inside, "stderr": inside, "env": environment},
                start_new_session=True,
                preexec_fn=lambda: _take_terminal(inside),
            )
            os.close(inside)
        else:
            self._screen, inside = os.pipe()
            self.process = subprocess.Popen(
                ["make", "run"],
                **{"stdin": subprocess.DEVNULL, "stdout": inside, "stderr": inside, "env": environment},
                start_new_session=True,
            )
            os.close(inside)
        self._terminal = terminal
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        while True:
            try:
                piece = os.read(self._screen, 4096)
            except OSError:  # a terminal whose other end is closed
                return
            if not piece:
                return
            text = piece.decode(errors="replace")
            self.output += COLOURS.sub("", text).replace("\r\n", "\n")
            sys.stdout.write(text)
            sys.stdout.flush()

    def interrupt(self) -> int:
        """Press Ctrl-C; how make ended."""
        if self._terminal:
            os.write(self._screen, b"\x03")
        else:
            os.killpg(self.process.pid, signal.SIGINT)
        code = self.process.wait(STOP_SECONDS)
        self._reader.join(5)
        return code

    def end(self) -> None:
        """Whatever happened, nothing stays behind."""
        if self.process.poll() is None:
            self.process.terminate()
            self.process.wait(STOP_SECONDS)


def _take_terminal(inside: int) -> None:
    import fcntl
    import termios

    fcntl.ioctl(inside, termios.TIOCSCTTY, 0)


def get(url: str, body: object = None) -> tuple[int, str]:
    """Status and text of an answer; status 0 if nobody answers."""
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(url, data, {"Content-Type": "application/json"})
    try:
        with urllib.request.urlopen(request, timeout=10) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode()
    except OSError:
        return 0, ""


def wait(what: str, seconds: float, make: Make, condition: Callable[[], bool]) -> None:
    """Until the condition holds; it is an error if make ends before."""
    end = time.monotonic() + seconds
    while not condition():
        if make.process.poll() is not None:
            raise SystemExit(f"make run ended with {make.process.returncode} before {what}.")
        if time.monotonic() > end:
            raise SystemExit(f"{what} was not there after {seconds:.0f} s.")
        time.sleep(0.1)


def expect(truth: bool, what: str) -> None:
    """Say that it holds, or stop."""
    print(f"  {'ok' if truth else 'NOT SO'}: {what}", flush=True)
    if not truth:
        raise SystemExit(1)


def answers(url: str) -> None:
    """The four documents that need no sign-in."""
    for path, needle in (
        ("/healthz", '"alive"'),
        ("/readyz", '"ready":true'),
        ("/metrics", "# TYPE"),
        ("/openapi.json", '"openapi":"3.1'),
    ):
        status, text = get(url + path)
        expect(status == 200 and needle in text, f"GET {path} answers 200 with {needle}")


def signs_in(url: str, home: Path) -> None:
    """Every kept sign-in is taken."""
    kept = json.loads((home / "credentials.json").read_text())
    expect(sorted(kept) == ["acme", "globex", "platform"], "sign-ins for the platform, acme and globex are kept")
    for tenant, person in kept.items():
        status, _ = get(f"{url}/api/v1/auth/token", {"tenant": tenant, **person})
        expect(status == 200, f"{person['email']} signs in to {tenant}")


def main(home: Path) -> None:
    """First start on a terminal, with the commands it proposes; second start without one."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    url = f"http://127.0.0.1:{port}"
    environment = {**os.environ, "KEELSTONE_HOME": str(home), "KEELSTONE_PORT": str(port), "TERM": "xterm"}

    first = Make(environment, terminal=True)
    try:
        wait("the environment", INSTALL_SECONDS, first, lambda: Path(".venv/.run-installed").exists())
        wait("readiness", START_SECONDS, first, lambda: get(url + "/readyz")[0] == 200)
        wait("the welcome", START_SECONDS, first, lambda: "Ctrl-C stops it" in first.output)
        answers(url)
        signs_in(url, home)
        proposed = re.findall(r"^ +(\.venv/bin/keelstone .*)$", first.output, re.MULTILINE)
        expect(len(proposed) == 3, "three commands to try are printed")
        for line in proposed:
            done = subprocess.run(shlex.split(line), env=environment, capture_output=True, text=True, timeout=120)
            print(done.stdout + done.stderr, flush=True)
            expect(done.returncode == 0, line)
        code = first.interrupt()
        expect(code == 0, f"Ctrl-C on the terminal ends make with 0 (found {code})")
        expect("stopped cleanly" in first.output, "it says that it stopped cleanly")
    finally:
        first.end()

    before = (home / "credentials.json").read_text()
    second = Make(environment, terminal=False)
    try:
        wait("readiness", START_SECONDS, second, lambda: get(url + "/readyz")[0] == 200)
        answers(url)
        expect((home / "credentials.json").read_text() == before, "the second start finds the same sign-ins")
        signs_in(url, home)
        command = [".venv/bin/keelstone", "tenant", "plugins", "acme", "--json"]
        found = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120)
        expect('"active"' in found.stdout, "the plugin that was switched on for acme still is")
        second.interrupt()
        expect("stopped cleanly" in second.output, "SIGINT to the process group stops it cleanly")
        expect(get(url + "/healthz")[0] == 0, "nothing listens any more")
    finally:
        second.end()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
