"""The commands and files in the documents, and a shell that runs them as a reader would.

A block ``console`` holds commands after ``$ `` (a line that ends in a backslash goes on) and, below each,
lines of its output: they must come in that order, among others; ``...`` in a line stands for anything. A
block ``bash`` or ``sh`` is run whole. A comment ``<!-- file: path -->`` before any other block says that the
reader writes it to that file.
"""

from __future__ import annotations

import os
import re
import selectors
import signal
import subprocess
import time
from collections.abc import Container, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
SHELLS = ("console", "bash", "sh", "shell")
RUN_BY = {
    "README.md": "tests/e2e/test_docs.py",
    "docs/how-to/administer-a-tenant.md": "tests/e2e/test_docs.py",
    "docs/how-to/browse-the-marketplace.md": "tests/e2e/test_docs.py",
    "docs/how-to/check-a-marketplaces-log.md": "tests/e2e/test_docs.py",
    "docs/how-to/choose-what-comes-in.md": "tests/e2e/test_docs.py",
    "docs/how-to/cross-an-air-gap.md": "tests/e2e/test_docs.py",
    "docs/how-to/hold-the-key-ceremony.md": "tests/e2e/test_docs.py",
    "docs/how-to/integrate.md": "tests/e2e/test_docs.py",
    "docs/how-to/keep-consent-receipts.md": "tests/e2e/test_docs.py",
    "docs/how-to/keep-your-keys.md": "tests/e2e/test_tutorial.py",
    "docs/how-to/know-what-is-inside.md": "tests/e2e/test_tutorial.py",
    "docs/how-to/look-after-a-release.md": "tests/e2e/test_tutorial.py",
    "docs/how-to/meter-and-budget.md": "tests/e2e/test_docs.py",
    "docs/how-to/mirror-a-marketplace.md": "tests/e2e/test_docs.py",
    "docs/how-to/operate-plugins.md": "tests/e2e/test_docs.py",
    "docs/how-to/port-an-extism-plugin.md": "tests/e2e/test_porting.py",
    "docs/how-to/publish-from-ci.md": "tests/e2e/test_docs.py",
    "docs/how-to/review-releases.md": "tests/e2e/test_docs.py",
    "docs/how-to/revoke-a-release.md": "tests/e2e/test_docs.py",
    "docs/how-to/run-on-postgresql.md": "tests/connected/test_documents.py",
    "docs/how-to/send-a-secret.md": "tests/e2e/test_tutorial.py",
    "docs/how-to/troubleshoot.md": "tests/e2e/test_docs.py",
    "docs/how-to/upgrade-without-fear.md": "tests/e2e/test_docs.py",
    "docs/how-to/warn-of-weaknesses.md": "tests/e2e/test_docs.py",
    "docs/how-to/when-a-plugin-fails.md": "tests/e2e/test_docs.py",
    "docs/how-to/write-a-guest.md": "tests/e2e/test_languages.py",
    "docs/how-to/write-a-python-guest.md": "tests/e2e/test_tutorial.py",
    "docs/how-to/write-an-extension.md": "tests/e2e/test_docs.py",
    "docs/tutorials/your-first-plugin.md": "tests/e2e/test_tutorial.py",
}
"""Which test does what a page with commands says. The README's `make run` and `make test` are done by
``.ci/run``, which starts the one and is inside the other."""
_FENCE = re.compile(r"^(?P<mark>`{3,})(?P<info>[^`\n]*)\n(?P<text>.*?)^(?P=mark)\s*$", re.MULTILINE | re.DOTALL)
_FILE = re.compile(r"<!--\s*file:\s*(?P<path>[^\s]+)\s*-->\s*\Z")


@dataclass(frozen=True)
class Command:
    """Something to type, and lines that are shown below it."""

    text: str
    expected: tuple[str, ...] = ()


@dataclass(frozen=True)
class Block:
    """One fenced block. ``file`` is where the reader writes it, if so."""

    page: str
    line: int
    language: str
    text: str
    file: str | None

    @property
    def is_shell(self) -> bool:
        """Whether it is something to type."""
        return self.language in SHELLS and self.file is None

    def commands(self) -> Iterator[Command]:
        """Its commands, in order."""
        if self.language != "console":
            # A failure on any line ends the shell, and with it the test.
            yield Command(f"set -e\n{self.text.strip()}\nset +e")
            return
        typed: list[str] = []
        shown: list[str] = []
        goes_on = False
        for line in self.text.splitlines():
            if goes_on:
                typed.append(line)
            elif line.startswith("$ "):
                if typed:
                    yield Command("\n".join(typed), tuple(shown))
                typed, shown = [line[2:]], []
            else:
                assert typed, f"{self.page}:{self.line} begins with output, not with `$ `"
                shown.append(line)
                continue
            goes_on = line.endswith("\\")
        if typed:
            yield Command("\n".join(typed), tuple(shown))


def pages() -> list[Path]:
    """The README and every page of the documents."""
    return [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]


def blocks(page: Path) -> list[Block]:
    """The fenced blocks of a page, in order."""
    text = page.read_text(encoding="utf-8")
    found = []
    for match in _FENCE.finditer(text):
        before = _FILE.search(text[: match.start()])
        found.append(
            Block(
                page=str(page.relative_to(ROOT) if page.is_relative_to(ROOT) else page),
                line=text.count("\n", 0, match.start()) + 1,
                language=match["info"].strip().partition(" ")[0],
                text=match["text"],
                file=before["path"] if before else None,
            )
        )
    return found


def swapped(text: str, instead: Mapping[str, str]) -> str:
    """``text`` with each key replaced by its value, in one pass: what was put in is never replaced again, and a
    port is not found inside a longer number."""
    if not instead:
        return text
    whole = {key: (r"(?<!\d)" * key[0].isdigit()) + re.escape(key) + (r"(?!\d)" * key[-1].isdigit()) for key in instead}
    form = "|".join(whole[key] for key in sorted(instead, key=len, reverse=True))
    return re.sub(form, lambda match: instead[match[0]], text)


class Shell:
    """A bash that keeps its variables and folder from command to command.

    ``instead`` maps what the documents say to what is really there (addresses), in commands and back in output.
    """

    def __init__(self, folder: Path, environment: Mapping[str, str], instead: Mapping[str, str] | None = None) -> None:
        self.folder = folder
        self._instead = dict(instead or {})
        self._process = subprocess.Popen(
            ["bash", "--norc", "--noprofile"],
            cwd=folder,
            env={**environment, "PS1": "", "COLUMNS": "200", "NO_COLOR": "1"},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        self._count = 0

    def __enter__(self) -> Shell:
        return self

    def __exit__(self, *_: object) -> None:
        if self._process.poll() is None:
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()
        for stream in (self._process.stdin, self._process.stdout):
            if stream is not None:
                stream.close()

    def run(self, command: str, seconds: float = 120) -> tuple[int, str]:
        """Exit code and output of one command. Raises TimeoutError."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._count += 1
        mark = f"<<end of {self._count}>>"
        typed = swapped(command, self._instead)
        script = f"{{ {typed}\n}} </dev/null\nprintf '\\n{mark}%s\\n' $?\n"
        self._process.stdin.write(script.encode())
        self._process.stdin.flush()
        deadline = time.monotonic() + seconds
        seen = b""
        with selectors.DefaultSelector() as selector:
            selector.register(self._process.stdout, selectors.EVENT_READ)
            while not re.search(re.escape(mark.encode()) + rb"\d+\n", seen):
                if not selector.select(max(0.0, deadline - time.monotonic())):
                    raise TimeoutError(f"{command!r} was not done after {seconds:.0f} s: {seen.decode()[-2000:]}")
                piece = os.read(self._process.stdout.fileno(), 65536)
                assert piece, f"the shell ended in {command!r}: {seen.decode()[-2000:]}"
                seen += piece
        text = swapped(seen.decode(errors="replace"), {real: said for said, real in self._instead.items()})
        output, _, code = text.rpartition(f"\n{mark}")
        return int(code), output

    def follow(self, page: Path, *, without: Container[str] = ()) -> list[str]:
        """Do everything that the page says, in order, but the commands in ``without``; what each put out.

        Asserts that each ends well and shows what the page shows.
        """
        done = []
        for block in blocks(page):
            if block.file is not None:
                target = self.folder / block.file
                target.parent.mkdir(parents=True, exist_ok=True)
                target.write_text(block.text, encoding="utf-8")
            elif block.is_shell:
                for command in block.commands():
                    if block.text.strip() in without:
                        continue
                    code, output = self.run(command.text)
                    where = f"{block.page}:{block.line}: {command.text}"
                    assert code == 0, f"{where}\nended with {code}:\n{output}"
                    missing = first_missing(command.expected, output)
                    assert missing is None, f"{where}\ndoes not show {missing!r} (in this order) in:\n{output}"
                    done.append(output)
        return done


def first_missing(expected: tuple[str, ...], output: str) -> str | None:
    """The first of the expected lines that does not come in its turn; None if all do. Spaces don't count."""
    lines = iter(["".join(line.split()) for line in output.splitlines()])
    for wanted in expected:
        plain = "".join(wanted.split())
        if plain in ("", "..."):
            continue
        pattern = re.compile(".*".join(re.escape(part) for part in plain.split("...")))
        if not any(pattern.fullmatch(line) for line in lines):
            return wanted
    return None
