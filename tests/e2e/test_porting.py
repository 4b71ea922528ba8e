"""The page on porting from Extism, done as it is written, and the port that it shows."""

import os
import shutil
import sys
from pathlib import Path

import pytest

import plugin_sdk
from plugin_sdk.toolchain import Toolchains
from tests.services.base import cache_folder
from tests.support.absent import toolchains_at_hand
from tests.support.documents import ROOT, Shell, blocks

PAGE = ROOT / "docs" / "how-to" / "port-an-extism-plugin.md"
EXAMPLES = Path(plugin_sdk.__file__).parent / "examples"


def test_the_page_shows_the_port_as_it_is() -> None:
    shown = [block.text for block in blocks(PAGE) if block.language == "rust"]
    assert len(shown) == 2
    assert shown[1] == (EXAMPLES / "vowel-counter" / "guest" / "lib.rs").read_text()


@pytest.mark.toolchain
def test_the_port_is_made_as_the_page_says(tmp_path: Path) -> None:
    tools = Toolchains(cache_folder() / "toolchains")
    with toolchains_at_hand():
        tools.rust()
    program = tmp_path / "bin" / "keelstone"
    program.parent.mkdir()
    program.write_text(f'#!/bin/sh\nexec {sys.executable} -m api.cli "$@"\n')
    program.chmod(0o755)
    examples = tmp_path / "examples"
    ignored = shutil.ignore_patterns("build", "__pycache__")
    shutil.copytree(EXAMPLES / "vowel-counter", examples / "vowel-counter", ignore=ignored)
    environment = {name: value for name, value in os.environ.items() if not name.startswith("KEELSTONE_")}
    environment |= {
        "PATH": f"{program.parent}:{os.environ['PATH']}",
        "PYTHONPATH": str(ROOT),
        "KEELSTONE_TOOLCHAINS": str(tools.folder),
        "KEELSTONE_HOME": str(tmp_path / "home"),
        "EXAMPLES": str(examples),
    }
    work = tmp_path / "work"
    work.mkdir()
    with Shell(work, environment) as shell:
        assert len(shell.follow(PAGE)) == 6
