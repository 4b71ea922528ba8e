"""`keelstone plugin new`: what it writes, and what it refuses to write."""

import ast
import json
import tomllib
from pathlib import Path

import pytest
from jsonschema import Draft202012Validator

from kernel.errors import Conflict, ValidationFailed
from kernel.hookspecs import HOOKS
from kernel.manifest import load_manifest
from plugin_sdk.scaffold import LANGUAGES, new_plugin


@pytest.mark.parametrize("language", LANGUAGES)
def test_a_new_plugin_is_whole(tmp_path: Path, language: str) -> None:
    folder = new_plugin(tmp_path, "tidy-names", language, "acme")
    manifest = load_manifest(folder)
    assert manifest.id == "acme/tidy-names"
    assert manifest.name == "Tidy names"
    assert manifest.build is not None
    assert manifest.build.language == language
    assert (folder / manifest.build.source).is_file()
    assert set(manifest.hooks) <= set(HOOKS)
    for name in ("README.md", "CHANGELOG.md", "icon.svg", ".gitignore", "tests/conftest.py", "tests/test_plugin.py"):
        assert (folder / name).is_file()
    assert manifest.settings is not None
    Draft202012Validator.check_schema(json.loads((folder / manifest.settings).read_text()))


@pytest.mark.parametrize("language", LANGUAGES)
def test_nothing_is_left_unfilled_and_all_of_it_parses(tmp_path: Path, language: str) -> None:
    folder = new_plugin(tmp_path, "hello", language, "me")
    for path in folder.rglob("*"):
        if path.is_file():
            text = path.read_text()
            assert "{{" not in text, path
            if path.suffix == ".py":
                ast.parse(text)
            if path.suffix == ".toml":
                tomllib.loads(text)


@pytest.mark.parametrize("name", ["Hello", "h", "../hello", "hello_world", "a--b", "-x", "x" * 80, ""])
def test_a_name_that_is_no_plugin_id_makes_nothing(tmp_path: Path, name: str) -> None:
    with pytest.raises(ValidationFailed):
        new_plugin(tmp_path, name, "python", "me")
    assert list(tmp_path.iterdir()) == []


def test_a_language_without_scaffold_is_refused_with_those_there_are(tmp_path: Path) -> None:
    with pytest.raises(ValidationFailed) as caught:
        new_plugin(tmp_path, "hello", "cobol", "me")
    assert "assemblyscript" in str(caught.value)


def test_a_folder_that_is_there_is_left_as_it_is(tmp_path: Path) -> None:
    (tmp_path / "hello").mkdir()
    (tmp_path / "hello" / "mine.txt").write_text("mine")
    with pytest.raises(Conflict):
        new_plugin(tmp_path, "hello", "python", "me")
    assert [p.name for p in (tmp_path / "hello").iterdir()] == ["mine.txt"]
