"""The tutorial and the page on Python guests, done word for word: real compilers, sandbox and platform."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import plugin_sdk
from plugin_sdk.toolchain import Toolchains
from tests.support.absent import needs_curl, toolchains_at_hand
from tests.support.documents import ROOT, Shell, blocks
from tests.support.served import serve

pytestmark = [
    pytest.mark.toolchain,
    needs_curl,
]
TUTORIAL = ROOT / "docs" / "tutorials" / "your-first-plugin.md"
SECRET = ROOT / "docs" / "how-to" / "send-a-secret.md"
RELEASE = ROOT / "docs" / "how-to" / "look-after-a-release.md"
INSIDE = ROOT / "docs" / "how-to" / "know-what-is-inside.md"
KEYS = ROOT / "docs" / "how-to" / "keep-your-keys.md"
PYTHON_GUEST = ROOT / "docs" / "how-to" / "write-a-python-guest.md"


@pytest.fixture
def shell(tmp_path: Path) -> Iterator[Shell]:
    """A reader's shell beside a platform that serves."""
    program = tmp_path / "bin" / "keelstone"
    program.parent.mkdir()
    program.write_text(f'#!/bin/sh\nexec {sys.executable} -m api.cli "$@"\n')
    program.chmod(0o755)
    tools = Toolchains()
    with serve(tmp_path / "platform", KEELSTONE_TOOLCHAINS=str(tools.folder)) as served:
        environment = {**served.environment, "PATH": f"{program.parent}:{os.environ['PATH']}"}
        folder = tmp_path / "work"
        folder.mkdir()
        with Shell(folder, environment, {"127.0.0.1:8700": served.url.partition("://")[2]}) as reader:
            yield reader


def test_the_tutorial_works_word_for_word(shell: Shell) -> None:
    with toolchains_at_hand():
        Toolchains().assemblyscript()
    done = shell.follow(TUTORIAL)
    assert any('"name":"Ann Lee"' in output for output in done), "the plugin did not tidy the name"


def test_the_tutorial_shows_what_the_scaffold_makes() -> None:
    scaffold = Path(plugin_sdk.__file__).parent / "scaffolds" / "assemblyscript" / "assembly" / "index.ts.tmpl"
    (shown,) = [block.text for block in blocks(TUTORIAL) if block.language == "typescript"]
    assert shown.strip() in scaffold.read_text()


def test_a_python_guest_is_made_as_the_page_says(shell: Shell) -> None:
    with toolchains_at_hand():
        Toolchains().componentize_py()
    assert len(shell.follow(PYTHON_GUEST)) == 1


def test_a_secret_is_asked_for_and_entered_as_the_page_says(shell: Shell) -> None:
    with toolchains_at_hand():
        Toolchains().assemblyscript()
    assert len(shell.follow(SECRET)) > 5


def test_a_release_is_looked_after_as_the_page_says(shell: Shell) -> None:
    with toolchains_at_hand():
        Toolchains().assemblyscript()
    assert len(shell.follow(RELEASE)) > 8


def test_parts_are_listed_and_what_is_known_of_them_is_told_as_the_page_says(shell: Shell) -> None:
    with toolchains_at_hand():
        Toolchains().assemblyscript()
    assert len(shell.follow(INSIDE)) > 10


def test_keys_are_shared_replaced_recovered_and_handed_over_as_the_page_says(shell: Shell) -> None:
    with toolchains_at_hand():
        Toolchains().assemblyscript()
    assert len(shell.follow(KEYS)) > 10
