"""What `keelstone plugin build` checks before it compiles, and when it need not compile."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from wasmtime import wat2wasm

from kernel.errors import KeelstoneError
from kernel.manifest import PluginManifest
from plugin_sdk.sbom import Part, read_sbom
from plugin_sdk.scaffold import new_plugin
from plugin_sdk.toolchain import BuildFailed, Toolchains, build_plugin, built_component
from plugin_sdk.toolchain.builder import compile_with
from plugin_sdk.toolchain.fetch import toolchain_folder

COMPONENT = bytes(wat2wasm('(component (import "keelstone:plugin/log@1.0.0" (instance)))'))


@dataclass
class FakeCompiler:
    """Compiles everything to the same component, and counts."""

    LIBRARY: Path
    calls: int = 0
    worlds: list[str] = field(default_factory=list)

    def compile_component(self, folder: Path, stage: Path, manifest: PluginManifest, tools: Toolchains) -> bytes:
        self.calls += 1
        self.worlds.append((stage / "wit" / "keelstone.wit").read_text())
        return COMPONENT

    def linked_in(self, folder: Path, stage: Path, manifest: PluginManifest, tools: Toolchains) -> list[Part]:
        assert (stage / "wit").is_dir()
        return [Part("npm", "left-pad", "1.3.0")]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return new_plugin(tmp_path, "hello", "python", "me")


@pytest.fixture
def compiler(tmp_path: Path) -> FakeCompiler:
    library = tmp_path / "library"
    library.mkdir()
    (library / "guest.py").write_text("# the guest library")
    return FakeCompiler(library)


def change(path: Path, old: str, new: str) -> None:
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))


def test_a_build_tells_digest_imports_and_what_is_asked_for_in_vain(folder: Path, compiler: FakeCompiler) -> None:
    built = compile_with({"python": compiler}, folder, Toolchains(folder))
    assert built.fresh
    assert built.path.read_bytes() == COMPONENT
    assert (built.size, built.imports, built.unused) == (len(COMPONENT), ("log",), ("config",))
    assert built.parts == ("pkg:npm/left-pad@1.3.0",)
    assert read_sbom(built.sbom.read_bytes()).component == built.digest
    assert "import config;" in compiler.worlds[0]
    assert "import kv;" not in compiler.worlds[0].partition("world guest")[2]
    assert not (folder / "build" / "stage").exists()


def test_nothing_is_compiled_twice_until_something_changes(folder: Path, compiler: FakeCompiler) -> None:
    def build(force: bool = False) -> bool:
        return compile_with({"python": compiler}, folder, Toolchains(folder), force=force).fresh

    assert [build(), build(), build(force=True)] == [True, False, True]
    (folder / "guest" / "more.py").write_text("x = 1")
    assert [build(), build()] == [True, False]
    change(folder / "plugin.toml", "memory_mb = 64", "memory_mb = 65")
    assert [build(), build()] == [True, False]
    (compiler.LIBRARY / "guest.py").write_text("# another version")
    assert [build(), build()] == [True, False]
    (folder / "README.md").write_text("other words")
    assert build() is False
    built_component(folder, _manifest(folder)).write_bytes(b"somebody else's")
    assert build() is True


def _manifest(folder: Path) -> PluginManifest:
    from kernel.manifest import load_manifest

    return load_manifest(folder)


@pytest.mark.parametrize(
    ("old", "new", "code"),
    [
        ("[hooks.user_creating]", "[hooks.user_made]", "unknown-hook"),
        ("[hooks.user_creating]", "[hooks.contribute_routes]", "manifest"),
        ("[hooks.user_creating]", "", "manifest"),
        ('source = "guest/plugin.py"', 'source = "guest/absent.py"', "build-failed"),
        ('source = "guest/plugin.py"', 'source = "../plugin.py"', "build-failed"),
        ('source = "guest/plugin.py"', 'source = "/etc/plugin.py"', "build-failed"),
        ('source = "guest/plugin.py"', 'source = "README.md"', "build-failed"),
        ('[build]\nlanguage = "python"\nsource = "guest/plugin.py"', "", "build-failed"),
    ],
)
def test_a_manifest_that_cannot_be_built_is_said_before_compiling(
    folder: Path, compiler: FakeCompiler, old: str, new: str, code: str
) -> None:
    change(folder / "plugin.toml", old, new)
    with pytest.raises(KeelstoneError) as caught:
        compile_with({"python": compiler}, folder, Toolchains(folder))
    assert caught.value.code == code
    assert caught.value.plugin == "me/hello"
    assert compiler.calls == 0
    assert not (folder / "build").exists()


def test_a_failed_build_leaves_the_last_good_component(folder: Path, compiler: FakeCompiler) -> None:
    compile_with({"python": compiler}, folder, Toolchains(folder))

    class Broken(FakeCompiler):
        def compile_component(self, folder: Path, stage: Path, manifest: PluginManifest, tools: Toolchains) -> bytes:
            raise BuildFailed("It does not compile.")

    (folder / "guest" / "more.py").write_text("x = 1")
    with pytest.raises(BuildFailed):
        compile_with({"python": Broken(compiler.LIBRARY)}, folder, Toolchains(folder))
    assert built_component(folder, _manifest(folder)).read_bytes() == COMPONENT


def test_a_folder_without_manifest_is_refused(tmp_path: Path) -> None:
    with pytest.raises(KeelstoneError) as caught:
        build_plugin(tmp_path)
    assert caught.value.code == "manifest"


@pytest.mark.parametrize(
    ("variables", "expected"),
    [
        ({"KEELSTONE_TOOLCHAINS": "/t", "KEELSTONE_HOME": "/h"}, "/t"),
        ({"KEELSTONE_HOME": "/h"}, "/h/toolchains"),
    ],
)
def test_compilers_are_kept_where_the_operator_says(
    monkeypatch: pytest.MonkeyPatch, variables: Mapping[str, str], expected: str
) -> None:
    monkeypatch.delenv("KEELSTONE_TOOLCHAINS", raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert toolchain_folder() == Path(expected)


def test_compilers_are_kept_in_the_users_cache_otherwise(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in ("KEELSTONE_TOOLCHAINS", "KEELSTONE_HOME"):
        monkeypatch.delenv(name, raising=False)
    for name in ("HOME", "XDG_CACHE_HOME", "LOCALAPPDATA"):
        monkeypatch.setenv(name, str(tmp_path))
    folder = toolchain_folder()
    assert folder.is_relative_to(tmp_path)
    assert folder.parts[-2:] == ("keelstone", "toolchains")
