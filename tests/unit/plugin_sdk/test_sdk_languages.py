"""Every guest library names what the contract has, and every generator what the hooks' schemas have."""

import re
from collections.abc import Callable
from pathlib import Path

import pytest

import plugin_sdk
from kernel.hookspecs import HOOKS
from plugin_sdk.toolchain.errors import ToolchainUnavailable
from plugin_sdk.toolchain.fetch import Toolchains
from plugin_sdk.toolchain.payloads import PayloadType, guest_hooks, payload_types
from plugin_sdk.toolchain.typed import assemblyscript, c, go, javascript, python, rust, zig
from plugin_sdk.toolchain.typed.__main__ import kept_payloads
from plugin_sdk.toolchain.world import VERSION

SDK = Path(plugin_sdk.__file__).parent
LANGUAGES = SDK / "languages"
GENERATORS: dict[str, Callable[[tuple[PayloadType, ...]], str]] = {
    "assemblyscript": assemblyscript.payloads,
    "c": c.header,
    "go": go.payloads,
    "javascript": lambda types: javascript.payloads(types, guest_hooks()),
    "python": python.payloads,
    "rust": rust.payloads,
    "zig": zig.payloads,
}
SPELLINGS: dict[str, Callable[[str], str]] = {"assemblyscript": assemblyscript.camel, "go": go.exported}


def contract() -> set[tuple[str, str]]:
    """Interface and name of every host call."""
    wit = (SDK / "wit" / "keelstone.wit").read_text()
    found = set()
    for name, body in re.findall(r"^interface (\w+) \{(.*?)\n\}", wit, re.DOTALL | re.MULTILINE):
        found |= {(name, function) for function in re.findall(r"^    ([a-z-]+): func\(", body, re.MULTILINE)}
    return found


def imported(language: str) -> set[tuple[str, str]]:
    """Interface and name of everything that a library declares as the host's."""
    text = "\n".join(path.read_text() for path in LANGUAGES.joinpath(language).rglob("*") if path.is_file())
    version = re.escape(f"@{VERSION}")
    if language == "c":
        assert f'interface "@{VERSION}"' in text
        return set(re.findall(r'IMPORT\("(\w+)", "([a-z-]+)"\)', text))
    if language == "go":
        return set(re.findall(rf"//go:wasmimport keelstone:plugin/(\w+){version} ([a-z-]+)", text))
    if language == "zig":
        return set(re.findall(rf'extern "keelstone:plugin/(\w+){version}" fn @?"?([a-z-]+)', text))
    found = set()
    if language == "rust":
        blocks = re.findall(rf'keelstone:plugin/(\w+){version}"\)\]\s*extern "C" \{{(.*?)\n\s*\}}\n', text, re.DOTALL)
        for interface, block in blocks:
            names = re.findall(r'(?:link_name = "([a-z-]+)"\]\s*)?(?:pub(?:\(super\))? )?fn (\w+)', block)
            found |= {(interface, linked or name) for linked, name in names}
        return found
    for interface, block in re.findall(
        rf'declare module "keelstone:plugin/(\w+){version}" \{{(.*?)\n\}}', text, re.DOTALL
    ):
        names = re.findall(r"(?:export function|remove as) (\w+)", block)
        found |= {(interface, re.sub(r"[A-Z]", lambda m: f"-{m.group().lower()}", name)) for name in names}
    return found


@pytest.mark.parametrize("language", ["c", "go", "rust", "zig"])
def test_a_library_imports_exactly_the_contracts_host_calls(language: str) -> None:
    assert imported(language) == contract()


def test_the_scripts_library_imports_all_but_a_number_that_scripts_cannot_hold() -> None:
    assert imported("javascript") == contract() - {("random", "number")}


def test_every_hook_that_guests_can_implement_is_described() -> None:
    assert {hook.name for hook in guest_hooks()} == {name for name, spec in HOOKS.items() if spec.for_guests}


@pytest.mark.parametrize("one", payload_types(), ids=lambda one: one.name)
def test_a_description_has_the_fields_of_the_platforms_own_model(one: PayloadType) -> None:
    (model,) = {spec.payload for spec in HOOKS.values() if spec.payload and spec.payload.__name__ == one.name}
    assert [field.name for field in one.fields] == list(model.model_fields)
    assert all(field.summary for field in one.fields)
    for field in one.fields:
        assert (field.default is None) == model.model_fields[field.name].is_required()


@pytest.mark.parametrize("language", sorted(GENERATORS))
def test_a_generator_writes_every_field_of_every_payload(language: str) -> None:
    text = GENERATORS[language](payload_types())
    spelling = SPELLINGS.get(language, str)
    for one in payload_types():
        assert re.search(rf"\b(ks_{one.snake}|{one.name})\b", text)
        for field in one.fields:
            assert re.search(rf"\b{spelling(field.name)}\b", text), f"{one.name}.{field.name}"
            assert field.summary in text or language == "rust"


def test_payloads_that_are_kept_with_their_library_are_up_to_date() -> None:
    for path, text in kept_payloads().items():
        assert path.read_text() == text, f"{path.name} is old: python -m plugin_sdk.toolchain.typed"


def test_without_a_compiler_for_rust_one_sentence_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    if Path("/usr/bin/rustc").exists():
        pytest.skip("this machine has Debian's")
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(ToolchainUnavailable) as caught:
        Toolchains(tmp_path).rust()
    assert "rustup target add wasm32-unknown-unknown" in str(caught.value.fix)
