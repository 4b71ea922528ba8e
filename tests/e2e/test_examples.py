"""The example plugins and the scaffolds, from source to answers, through the real toolchain and sandbox."""

import hashlib
import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import typer
from typer.testing import CliRunner

import plugin_sdk
from kernel.manifest import load_manifest
from plugin_sdk.cli import register
from plugin_sdk.terminal import EXIT_FAILED, EXIT_UNREACHABLE, CommandTree
from plugin_sdk.testing.runner import run_tests
from plugin_sdk.toolchain import Toolchains, build_plugin, built_component
from tests.support.absent import toolchains_at_hand

EXAMPLES = Path(plugin_sdk.__file__).parent / "examples"
KEPT = ("chat-notifier", "email-guard")
"""Examples whose components are kept in the repository."""


@pytest.fixture(scope="session")
def assemblyscript() -> Toolchains:
    tools = Toolchains()
    with toolchains_at_hand():
        tools.assemblyscript()
        tools.wasm_tools()
    return tools


@pytest.fixture(scope="session")
def python() -> Toolchains:
    tools = Toolchains()
    with toolchains_at_hand():
        tools.componentize_py()
    return tools


@pytest.fixture
def example(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """A copy of one example, with nothing built but what is kept."""
    copy = tmp_path / request.param
    shutil.copytree(EXAMPLES / request.param, copy, ignore=shutil.ignore_patterns("build", "__pycache__"))
    kept = built_component(EXAMPLES / request.param, load_manifest(copy))
    if request.param in KEPT:
        (copy / "build").mkdir()
        shutil.copy(kept, copy / "build" / kept.name)
    return copy


class Cli:
    """`keelstone plugin ...` in this process, in a folder of its own."""

    def __init__(self) -> None:
        self.root = typer.Typer()
        self.root.callback()(lambda: None)
        register(CommandTree(self.root, lambda: pytest.fail("these commands need no platform")))

    def run(self, *arguments: str, code: int = 0) -> str:
        result = CliRunner().invoke(self.root, ["plugin", *arguments])
        assert result.exit_code == code, result.output
        return str(result.output)

    def json(self, *arguments: str, code: int = 0) -> Any:
        return json.loads(self.run(*arguments, "--json", code=code))


@pytest.fixture
def cli(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Cli:
    monkeypatch.chdir(tmp_path)
    return Cli()


@pytest.mark.parametrize("example", KEPT, indirect=True)
def test_a_kept_component_keeps_the_contract_and_passes_its_tests(example: Path) -> None:
    report = run_tests(example)
    assert report.own is not None
    assert report.passed, report.own.output
    assert report.own.passed > 10
    assert all(check.passed for check in report.checks)


@pytest.mark.toolchain
@pytest.mark.parametrize("example", KEPT, indirect=True)
def test_a_kept_component_is_what_its_source_builds(example: Path, assemblyscript: Toolchains) -> None:
    kept = built_component(example, load_manifest(example)).read_bytes()
    assert build_plugin(example, assemblyscript).digest == hashlib.sha256(kept).hexdigest(), (
        f"{example.name}'s source, guest library or compiler changed: "
        f"run `keelstone plugin build plugin_sdk/examples/{example.name}` and commit the component"
    )


@pytest.mark.toolchain
@pytest.mark.parametrize("example", ["lead-scorer"], indirect=True)
def test_the_python_example_builds_keeps_the_contract_and_passes_its_tests(example: Path, python: Toolchains) -> None:
    built = build_plugin(example, python)
    assert built.imports == ("config", "events", "kv", "log")
    report = run_tests(example)
    assert report.own is not None
    assert report.passed, report.own.output
    assert report.own.passed >= 10


@pytest.mark.toolchain
@pytest.mark.parametrize("language", ["assemblyscript", "python"])
def test_a_new_plugin_builds_and_passes_its_tests_right_away(
    cli: Cli, language: str, request: pytest.FixtureRequest
) -> None:
    request.getfixturevalue(language)
    assert "Made hello" in cli.run("new", "hello", "--language", language)
    built = cli.json("build", "hello")
    assert built["fresh"]
    assert built["imports"] == ["config", "log"]
    component = Path(built["component"])
    assert hashlib.sha256(component.read_bytes()).hexdigest() == built["digest"]
    assert cli.json("build", "hello")["fresh"] is False
    tested = cli.json("test", "hello")
    assert tested["passed"]
    assert tested["tests"]["passed"] == 3
    assert all(check["passed"] for check in tested["contract"])
    assert "3 passed, 0 failed" in cli.run("test", "hello")


@pytest.mark.toolchain
def test_a_broken_contract_and_a_failing_test_are_both_reported(cli: Cli, assemblyscript: Toolchains) -> None:
    cli.run("new", "hello")
    source = Path("hello/assembly/index.ts")
    source.write_text(
        'import { FilterReply, UserDraft } from "keelstone";\n'
        "export function user_creating(draft: UserDraft): FilterReply {\n"
        '  draft.email = "";\n'
        "  return FilterReply.change(draft);\n"
        "}\n"
    )
    assert cli.json("build", "hello")["unused"] == ["config"]
    report = cli.json("test", "hello", code=EXIT_FAILED)
    failed = [check for check in report["contract"] if not check["passed"]]
    assert [check["check"] for check in failed] == ["user_creating: answers a valid payload"]
    assert "email" in failed[0]["problem"]
    assert report["tests"]["failed"] == 3
    assert "test_a_name_is_tidied" in " ".join(report["tests"]["failures"])


def test_a_plugin_that_is_not_built_cannot_be_tested(cli: Cli) -> None:
    cli.run("new", "hello")
    problem = cli.json("test", "hello", code=EXIT_FAILED)["error"]
    assert problem["code"] == "not-found"
    assert "keelstone plugin build" in problem["fix"]


@pytest.mark.toolchain
@pytest.mark.parametrize(
    ("old", "new", "detail"),
    [
        ("tidy(draft.name)", "tidy(draft.nom)", "does not compile"),
        ("function user_creating", "function user_made", "does not compile"),
        ('log.info("tidied a name")', 'kv.set("a", "b")', "`kv`, which the manifest does not ask for"),
        ('log.info("tidied a name")', 'console.log("tidied")', "imports from 'env'"),
    ],
)
def test_source_that_does_not_build_says_why(
    cli: Cli, assemblyscript: Toolchains, old: str, new: str, detail: str
) -> None:
    cli.run("new", "hello")
    source = Path("hello/assembly/index.ts")
    text = source.read_text().replace("import { config", "import { kv, config")
    assert old in text
    source.write_text(text.replace(old, new))
    problem = cli.json("build", "hello", code=EXIT_FAILED)["error"]
    assert problem["code"] == "build-failed"
    assert problem["plugin"] == "me/hello"
    assert detail in problem["detail"]
    assert not Path("hello/build/hello.component.wasm").exists()


@pytest.mark.toolchain
def test_python_that_cannot_be_imported_says_why(cli: Cli, python: Toolchains) -> None:
    cli.run("new", "hello", "--language", "python")
    source = Path("hello/guest/plugin.py")
    source.write_text(source.read_text().replace("from keelstone_guest", "import numpy\nfrom keelstone_guest", 1))
    problem = cli.json("build", "hello", code=EXIT_FAILED)["error"]
    assert problem["code"] == "build-failed"
    assert (
        'guest/plugin.py:3: error: Cannot find implementation or library stub for module named "numpy"'
        in (problem["found"])
    )
    assert "Stack backtrace" not in problem["found"]
    assert "standard library" in problem["fix"]


@pytest.mark.parametrize(("language", "index"), [("assemblyscript", "npm"), ("python", "Python package index")])
def test_a_toolchain_that_cannot_be_fetched_is_one_plain_sentence(
    cli: Cli, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, language: str, index: str
) -> None:
    nothing_listens = "http://127.0.0.1:9/"
    monkeypatch.setenv("KEELSTONE_TOOLCHAINS", str(tmp_path / "toolchains"))
    monkeypatch.setenv("npm_config_registry", nothing_listens)
    monkeypatch.setenv("PIP_INDEX_URL", nothing_listens)
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setattr("plugin_sdk.toolchain.fetch.Toolchains._installed", lambda *_: None)
    cli.run("new", "hello", "--language", language)
    problem = cli.json("build", "hello", code=EXIT_UNREACHABLE)["error"]
    assert problem["code"] == "toolchain-unavailable"
    assert index in problem["detail"] + problem["fix"]
    assert list((tmp_path / "toolchains").iterdir()) == []
    assert not Path("hello/build/hello.component.wasm").exists()
