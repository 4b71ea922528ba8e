"""The parts of the author's loop that need no platform: places, frames, watching, versions, the view."""

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from kernel.errors import ValidationFailed
from kernel.manifest import load_manifest
from kernel.versions import parse_version
from plugin_sdk.dev.frames import SourceMap, frames, readable
from plugin_sdk.dev.happenings import Happening, failure, places_of
from plugin_sdk.dev.places import places_in
from plugin_sdk.dev.source import source_component, source_folder
from plugin_sdk.dev.summary import summary_of
from plugin_sdk.dev.versions import development_number, development_version
from plugin_sdk.dev.view import LoopView
from plugin_sdk.dev.watch import FolderWatch
from plugin_sdk.toolchain import BuildFailed

SOURCE = "first\nsecond\nthird line\n"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in (
        "assembly/index.ts",
        "src/lib.rs",
        "guest/plugin.py",
        "guest/plugin.c",
        "main.go",
        "build/stage/entry.ts",
    ):
        file = tmp_path / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(SOURCE)
    return tmp_path


@pytest.mark.parametrize(
    ("said", "file", "line", "message"),
    [
        ("ERROR TS2339: no nme.\n   |\n   └─ in assembly/index.ts(3,9)", "assembly/index.ts", 3, "no nme."),
        ("assembly/index.ts(2,1): error TS2304: Cannot find x.", "assembly/index.ts", 2, "Cannot find x."),
        ("error[E0425]: cannot find value\n  --> src/lib.rs:3:5\n", "src/lib.rs", 3, "cannot find value"),
        (
            "guest/plugin.c:2:7: error: use of undeclared identifier",
            "guest/plugin.c",
            2,
            "use of undeclared identifier",
        ),
        ("./main.go:1:3: undefined: x", "main.go", 1, "undefined: x"),
        ('  File "/0/plugin.py", line 3, in tell\n    x\nNameError: x', "guest/plugin.py", 3, ""),
    ],
)
def test_a_compilers_words_lead_to_the_authors_line(
    folder: Path, said: str, file: str, line: int, message: str
) -> None:
    (place,) = places_in(said, folder)
    assert (place.file, place.line) == (file, line)
    assert place.text == SOURCE.splitlines()[line - 1]
    assert message in place.message


def test_lines_of_others_are_no_places(folder: Path) -> None:
    assert places_in("~lib/string.ts(3,1) build/stage/entry.ts(2,1) /usr/lib/python3/os.py:1:1", folder) == []
    assert places_in("assembly/index.ts(99,1)", folder) == []


def test_a_failure_tells_its_places(folder: Path) -> None:
    error = ValidationFailed("It does not compile.", file="assembly/index.ts:2")
    happening = failure("build", error, folder)
    assert happening.kind == "failed"
    assert happening.data["places"][0]["line"] == 2
    assert happening.line()["problem"]["code"] == "validation"


def test_frames_are_read_and_names_made_readable() -> None:
    trap = (
        "error while executing at wasm backtrace:\n"
        "    0:    0x3ba - <unknown>!assembly/index/tidy\n"
        "    1:   0x1c76 - <unknown>!<wasm function 60>\n\nCaused by:\n    0: wasm trap: unreachable\n"
    )
    found = frames(trap)
    assert [(f.offset, readable(f.name)) for f in found] == [(0x3BA, "tidy"), (0x1C76, "")]
    assert readable("hello::tidy::h0123456789abcdef") == "hello::tidy"


def vlq(value: int) -> str:
    digits = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"
    rest = (-value << 1) | 1 if value < 0 else value << 1
    text = ""
    while True:
        digit, rest = rest & 31, rest >> 5
        text += digits[digit | (32 if rest else 0)]
        if not rest:
            return text


@given(
    st.lists(
        st.tuples(st.integers(1, 5_000), st.integers(0, 1), st.integers(0, 900), st.integers(0, 200)),
        min_size=1,
        max_size=40,
    )
)
def test_every_offset_is_found_in_the_source_map(steps: list[tuple[int, int, int, int]]) -> None:
    mappings, spots, column, before = [], [], 0, (0, 0, 0)
    for step, *spot in steps:
        column += step
        source, line, place = spot
        deltas = (step, source - before[0], line - before[1], place - before[2])
        mappings.append("".join(map(vlq, deltas)))
        before = (source, line, place)
        spots.append((column, before))
    text = json.dumps({"version": 3, "sources": ["a.ts", "b.ts"], "mappings": ",".join(mappings)})
    found = SourceMap(text, base=100)
    for at, (source, line, place) in spots:
        assert found.find(100 + at) == (["a.ts", "b.ts"][source], line + 1, place + 1)
    assert found.find(100) is None


def test_a_trap_leads_to_the_line_by_the_map_beside_the_build(folder: Path) -> None:
    build = folder / "build"
    core = b"\0asm\x01\0\0\0" + b"\0" * 64
    component = b"\0asm\x0d\0\x01\0" + core
    (build / "x.component.wasm").write_bytes(component)
    mapped = {"sources": ["assembly/index.ts"], "mappings": "UACE"}
    (build / "x.component.wasm.map").write_text(json.dumps(mapped))
    problem = {"trap": "wasm backtrace:\n    0:    0x14 - <unknown>!assembly/index/tidy\n"}
    (place,) = places_of(problem, folder, component)
    assert (place.file, place.line, place.function, place.text) == ("assembly/index.ts", 2, "tidy", "second")
    assert places_of(problem, folder, b"another component") == []


def test_the_watch_sees_what_is_new_changed_and_gone_and_no_build_output(folder: Path) -> None:
    watch = FolderWatch(folder)
    assert watch.changes() == []
    (folder / "main.go").unlink()
    (folder / "new.txt").write_text("x")
    (folder / "src" / "lib.rs").write_text("longer than before, by far")
    (folder / "build" / "out.wasm").write_text("x")
    (folder / ".hidden").write_text("x")
    assert watch.changes() == ["main.go", "new.txt", "src/lib.rs"]
    assert watch.changes() == []


@pytest.mark.parametrize("version", ["0.1.0", "1.2.0-rc.1", "1.0.0+build.5", "2.0.0-dev"])
def test_development_versions_are_ordered_and_below_their_release(version: str) -> None:
    made = [development_version(version, number) for number in (1, 2, 10)]
    parsed = [parse_version(text) for text in made]
    assert parsed == sorted(parsed)
    assert [development_number(text) for text in made] == [1, 2, 10]
    if "-" not in version:
        assert parsed[0] < parse_version(version.partition("+")[0])
    assert development_number(version) == 0


@pytest.mark.parametrize(
    ("hook", "output", "told"),
    [
        ("user_creating", "{}", "kept"),
        ("user_creating", '{"payload": {"name": "B", "email": "e"}}', "changed name"),
        ("user_creating", '{"reject": {"reason": "no"}}', "rejected: no"),
        ("access_deciding", "{}", "no opinion"),
        ("access_deciding", '{"answer": {"allow": false, "reason": "late"}}', "denied: late"),
        ("event_received", "{}", "done"),
    ],
)
def test_replies_are_told_in_a_few_words(hook: str, output: str, told: str) -> None:
    assert summary_of(hook, '{"name": "A", "email": "e"}', output) == told


def test_the_view_shows_state_calls_places_and_keys() -> None:
    console = Console(width=120, record=True, force_terminal=False)
    view = LoopView(console, "me/hello", ["user_creating"])
    call = {
        "number": 1, "time": 0.0, "hook": "user_creating", "tenant": "acme", "microseconds": 950, "memory_bytes": 65536,
        "uses": {"kv.get": 2}, "host_calls": 2, "result": "changed name", "logs": [{"level": "info", "message": "hi"}],
        "problem": None,
    }  # fmt: skip
    problem = {"title": "A plugin crashed", "code": "guest-trap", "detail": "It crashed.", "fix": "Look there."}
    place = {"file": "assembly/index.ts", "line": 3, "text": "boom()"}
    active = {
        "version": "0.1.0-dev.1",
        "seconds": 0.9,
        "grants": ["kv"],
        "findings": [{"problem": "no icon", "fix": "Add"}],
    }
    for happening in (
        Happening("ready", {"url": "http://127.0.0.1:1", "tenant": "acme"}),
        Happening("built", {"size": 10, "seconds": 0.5, "unused": ["log"]}),
        Happening("active", active),
        Happening("call", call),
        Happening("sent", {"hook": "user_creating", "result": "kept", "payload": {"name": "A"}}),
        Happening("call", {**call, "problem": problem, "places": [place], "recording": "build/recordings/x.json"}),
        Happening("failed", {"stage": "build", "problem": problem, "places": [place]}),
    ):
        view(happening)
    console.print(view.render())
    text = console.export_text()
    for wanted in (
        *("me/hello", "http://127.0.0.1:1", "950 µs", "64 KiB", "kv.get x2", "changed name", "guest-trap"),
        *("assembly/index.ts:3", "boom()", "build/recordings/x.json", "[1] user_creating", "plugin.toml asks for log"),
    ):
        assert wanted in text, wanted


GUEST = """
manifest = 1
id = "acme/teller"
version = "1.0.0"
name = "Teller"
summary = "Tells something, for tests."
license = "MIT"

[hooks.user_creating]

[build]
language = "python"
source = "guest/plugin.py"
"""
GOOD = "from keelstone_guest import hook\n\n\n@hook('user_creating')\ndef tell(draft):\n    return None\n"


@pytest.fixture
def teller(tmp_path: Path) -> Path:
    (tmp_path / "guest").mkdir()
    (tmp_path / "plugin.toml").write_text(GUEST)
    (tmp_path / "guest" / "plugin.py").write_text(GOOD)
    return tmp_path


def test_a_stand_in_names_its_folder_and_changes_with_the_source(teller: Path) -> None:
    manifest = load_manifest(teller)
    first = source_component(teller, manifest)
    assert source_folder(first) == teller
    assert source_component(teller, manifest) == first
    (teller / "guest" / "plugin.py").write_text(GOOD + "# more\n")
    assert source_component(teller, manifest) != first
    assert source_folder(b"\0asm\x0d\0\x01\0") is None


@pytest.mark.parametrize(
    ("source", "told"),
    [
        (GOOD.replace("return None", "return ("), "never closed"),
        (GOOD + "import nothing_of_that_name\n", "nothing_of_that_name"),
        (GOOD.replace("user_creating", "user_updating"), "No function is marked @hook for user_creating"),
    ],
)
def test_a_source_that_does_not_import_is_told_with_its_line(teller: Path, source: str, told: str) -> None:
    (teller / "guest" / "plugin.py").write_text(source)
    with pytest.raises(BuildFailed) as failed:
        source_component(teller, load_manifest(teller))
    assert told in str(failed.value)
    assert "plugin.py" in str(failed.value.file)
