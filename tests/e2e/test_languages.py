"""Every language's scaffold: it builds, its tests pass in the sandbox, and a misspelt field never gets that far."""

import os
import re
import sys
from pathlib import Path

import pytest

from kernel.manifest import load_manifest
from plugin_sdk.scaffold import LANGUAGES, TEMPLATES, new_plugin
from plugin_sdk.testing.runner import run_tests
from plugin_sdk.toolchain import BuildFailed, Toolchains, build_plugin, component_imports
from tests.support.absent import toolchains_at_hand
from tests.support.documents import ROOT, Shell

pytestmark = pytest.mark.toolchain
PAGE = ROOT / "docs" / "how-to" / "write-a-guest.md"
MISSPELT = {
    "assemblyscript": ("draft.name = name", "draft.nmae = name"),
    "c": ("draft->name = name", "draft->nmae = name"),
    "go": ("draft.Name = name", "draft.Nmae = name"),
    "javascript": ("{ ...draft, name }", "{ ...draft, nmae: name }"),
    "python": ("draft.replace(name=name)", "draft.replace(nmae=name)"),
    "rust": ("draft.name = name", "draft.nmae = name"),
    "typescript": ("{ ...draft, name }", "{ ...draft, nmae: name }"),
    "zig": ("draft.name = name", "draft.nmae = name"),
}
"""In each scaffold, the place where the changed name is handed back, right and wrong."""


ALL_BUT_PYTHON = [language for language in LANGUAGES if language != "python"]


@pytest.fixture(scope="module", params=LANGUAGES)
def folder(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A new plugin in one language, built."""
    folder = new_plugin(tmp_path_factory.mktemp("new"), "hello", request.param, "me")
    with toolchains_at_hand():
        build_plugin(folder, Toolchains())
    return folder


def source_of(folder: Path) -> tuple[Path, str]:
    build = load_manifest(folder).build
    assert build is not None
    return folder / build.source, build.language


def test_a_new_plugin_builds_and_passes_its_tests(folder: Path) -> None:
    built = build_plugin(folder, Toolchains())
    assert not built.fresh
    assert (built.imports, built.unused) == (("config", "log"), ())
    report = run_tests(folder)
    assert report.passed
    assert report.own is not None
    assert (report.own.passed, report.own.failed) == (3, 0)


def test_a_field_that_does_not_exist_fails_the_build_at_its_line(folder: Path) -> None:
    source, language = source_of(folder)
    right, wrong = MISSPELT[language]
    text = source.read_text()
    assert text.count(right) == 1
    line = text[: text.index(right)].count("\n") + 1
    source.write_text(text.replace(right, wrong))
    try:
        with pytest.raises(BuildFailed) as caught:
            build_plugin(folder, Toolchains())
    finally:
        source.write_text(text)
    assert caught.value.file == f"{source.relative_to(folder).as_posix()}:{line}"
    assert re.search("nmae", str(caught.value.found), re.IGNORECASE)
    assert not build_plugin(folder, Toolchains()).fresh


# Python's is shown without compiling, which takes long: tests/unit/plugin_sdk/test_sdk_python_compiler.py.
@pytest.mark.parametrize("folder", ALL_BUT_PYTHON, indirect=True)
def test_a_hook_that_nothing_implements_fails_the_build_by_name(folder: Path) -> None:
    source, _ = source_of(folder)
    text = source.read_text()
    source.write_text(text.replace("user_creating", "user_making").replace("UserCreating", "UserMaking"))
    try:
        with pytest.raises(BuildFailed) as caught:
            build_plugin(folder, Toolchains())
    finally:
        source.write_text(text)
    told = f"{caught.value} {caught.value.found} {caught.value.fix}"
    assert re.search("user_?creating|user_making", told, re.IGNORECASE)


# Python finds its host's functions when it calls them: they answer not-granted.
@pytest.mark.parametrize("folder", ALL_BUT_PYTHON, indirect=True)
def test_a_capability_that_the_manifest_does_not_ask_for_fails_the_build_by_name(folder: Path) -> None:
    manifest = folder / "plugin.toml"
    text = manifest.read_text()
    without = re.sub(r"\[capabilities\.config\]\nwhy = .*\n", "", text)
    assert without != text
    manifest.write_text(without)
    try:
        with pytest.raises(BuildFailed) as caught:
            build_plugin(folder, Toolchains())
    finally:
        manifest.write_text(text)
    assert "[capabilities.config]" in str(caught.value.fix)


def test_the_page_shows_what_the_scaffolds_make() -> None:
    shown = re.findall(r"<!-- shown: (\S+) -->\n```\w+\n(.*?)```", PAGE.read_text(), re.DOTALL)
    assert {Path(name).parts[0] for name, _ in shown} == set(LANGUAGES) - {"assemblyscript", "javascript", "python"}
    for name, text in shown:
        assert text in (TEMPLATES / f"{name}.tmpl").read_text(), name


def test_the_pages_commands_do_what_it_says(tmp_path: Path) -> None:
    program = tmp_path / "bin" / "keelstone"
    program.parent.mkdir()
    program.write_text(f'#!/bin/sh\nexec {sys.executable} -m api.cli "$@"\n')
    program.chmod(0o755)
    tools = Toolchains()
    with toolchains_at_hand():
        tools.zig()
    environment = {**os.environ, "PATH": f"{program.parent}:{os.environ['PATH']}", "PYTHONPATH": str(ROOT)}
    with Shell(tmp_path, {**environment, "KEELSTONE_TOOLCHAINS": str(tools.folder)}) as shell:
        assert len(shell.follow(PAGE)) == 1
    assert (tmp_path / "hallo" / "build" / "hallo.component.wasm").is_file()


def test_a_guest_for_the_first_generation_imports_that_one(tmp_path: Path) -> None:
    folder = new_plugin(tmp_path, "older", "c", "me")
    manifest = folder / "plugin.toml"
    manifest.write_text(manifest.read_text().replace('kernel = "^1.0"', 'kernel = "~1.0.0"'))
    with toolchains_at_hand():
        built = build_plugin(folder, Toolchains())
    names = component_imports(built.path.read_bytes())
    assert {name for name in names if name.startswith("keelstone:")} == {
        f"keelstone:plugin/{name}@1.0.0" for name in ("config", "log", "types")
    }
    assert run_tests(folder).passed
