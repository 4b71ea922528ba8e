"""Composing a guest's world, and reading what a binary imports."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from wasmtime import wat2wasm

from kernel.errors import ManifestError
from kernel.manifest import Capabilities, PluginManifest, manifest_from_dict
from plugin_sdk.toolchain import BuildFailed, component_imports, compose_world
from plugin_sdk.toolchain.world import capabilities_of, core_imports

WHY = "Because this test needs it."
ALL = {
    "log": {"why": WHY},
    "config": {"why": WHY},
    "kv": {"why": WHY},
    "http": {"why": WHY, "hosts": ["example.com"]},
    "events": {"why": WHY, "emits": ["a.b"]},
    "secrets": {"why": WHY, "names": {"token": {"why": WHY, "hosts": ["example.com"]}}},
    "ai": {"why": WHY, "models": ["fast"]},
    "notify": {"why": WHY, "channels": ["email"]},
    "clock": {"why": WHY},
    "random": {"why": WHY},
    "services": {"why": WHY, "calls": {"keelstone/users": ["find"]}},
}


def manifest(*capabilities: str, kernel: str = "^1.0") -> PluginManifest:
    return manifest_from_dict(
        {
            "manifest": 1,
            "id": "acme/hello",
            "version": "1.0.0",
            "name": "Hello",
            "summary": "A plugin of a test.",
            "license": "MIT",
            "requires": {"kernel": kernel},
            "capabilities": {name: ALL[name] for name in capabilities},
            "events": {"declares": [{"type": "a.b", "summary": "Something happened."}]},
        }
    )


@given(st.sets(st.sampled_from(sorted(ALL))).map(lambda names: names | ({"http"} if "secrets" in names else set())))
def test_the_world_imports_exactly_what_the_manifest_asks_for(names: set[str]) -> None:
    world = compose_world(manifest(*names)).partition("world guest {")[2]
    assert {line.strip() for line in world.splitlines() if "import" in line} == {f"import {n};" for n in names}
    assert "export handle: func(hook: string, payload: string) -> result<string, string>;" in world


@pytest.mark.parametrize(
    ("kernel", "version"), [("^1.0", "1.1.0"), ("^1.1", "1.1.0"), ("~1.0", "1.0.0"), ("1.0.0", "1.0.0")]
)
def test_the_world_is_of_the_newest_generation_that_the_manifest_admits(kernel: str, version: str) -> None:
    assert f"package keelstone:plugin@{version};" in compose_world(manifest("kv", kernel=kernel))


def test_a_capability_that_the_generation_does_not_have_is_named() -> None:
    with pytest.raises(ManifestError, match=r"clock is not part of the contract.s generation 1\.0\.0"):
        compose_world(manifest("clock", kernel="~1.0"))


def test_a_kernel_that_is_not_served_is_named() -> None:
    with pytest.raises(ManifestError) as caught:
        compose_world(manifest("kv", kernel="^2.0"))
    assert caught.value.expected == "a range that admits 1.0.0 or 1.1.0"


def test_every_capability_of_the_manifest_has_an_interface() -> None:
    source = compose_world(manifest())
    for name in Capabilities.model_fields:
        assert f"interface {name} {{" in source


def test_imports_of_a_core_module_are_found_whatever_they_are() -> None:
    module = wat2wasm(
        """(module
             (import "keelstone:plugin/kv@1.0.0" "get" (func (param i32 i32 i32)))
             (import "tables" "t" (table 1 2 funcref))
             (import "memories" "m" (memory 1 300))
             (import "globals" "g" (global (mut i64)))
             (import "keelstone:plugin/kv@1.0.0" "set" (func (param i32))))"""
    )
    assert core_imports(bytes(module)) == ["globals", "keelstone:plugin/kv@1.0.0", "memories", "tables"]


def test_imports_of_a_component_are_found_and_told_apart() -> None:
    component = wat2wasm(
        """(component
             (import "keelstone:plugin/types@1.0.0" (instance))
             (import "keelstone:plugin/log@1.0.0" (instance))
             (import "wasi:cli/environment@0.2.9" (instance))
             (import "f" (func))
             (import "t" (type (sub resource)))
             (import "m" (core module)))"""
    )
    found = component_imports(bytes(component))
    assert found == [
        "keelstone:plugin/types@1.0.0",
        "keelstone:plugin/log@1.0.0",
        "wasi:cli/environment@0.2.9",
        "f",
        "t",
        "m",
    ]
    assert capabilities_of(found) == ["log"]


def test_a_core_module_is_not_taken_for_a_component() -> None:
    with pytest.raises(BuildFailed) as caught:
        component_imports(bytes(wat2wasm("(module)")))
    assert caught.value.code == "build-failed"


@given(st.data())
def test_a_damaged_component_is_an_error_and_never_a_crash(data: st.DataObject) -> None:
    whole = bytes(wat2wasm('(component (import "keelstone:plugin/log@1.0.0" (instance)) (import "f" (func)))'))
    at = data.draw(st.integers(8, len(whole) - 1))
    damaged = whole[:at] + data.draw(st.binary(max_size=12))
    try:
        names = component_imports(damaged)
    except BuildFailed:
        return
    assert all(isinstance(name, str) for name in names)
