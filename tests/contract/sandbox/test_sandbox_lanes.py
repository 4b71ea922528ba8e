"""Which way into wasmtime serves, and what it stands aside for."""

from __future__ import annotations

import hashlib
from importlib.metadata import version

import pytest
import wasmtime
from wasmtime.component import Component

from kernel.settings import Settings
from sandbox import errors
from sandbox.engine import EngineShape, SandboxEngine
from sandbox.guest import Guest
from sandbox.lanes import lane_report, layout


@pytest.mark.lanes("fast", "package")
async def test_the_fast_lane_serves_the_pinned_library_and_both_can_be_asked_for(lane, opened, bytes_of):
    async with opened() as box:
        assert (await box.run("echo", '{"a":1}')).output == '{"a":1}'
        guest = box.runtime._shelves._usual.get(hashlib.sha256(bytes_of("echo")).hexdigest())
        assert guest.lane.name == lane
    assert lane_report() == ("fast", None)


def test_the_layout_that_the_fast_lane_expects_is_the_librarys():
    assert version("wasmtime") == layout.VERSION
    assert layout._layout_mismatch() is None


def test_a_library_of_another_layout_is_served_by_the_package_and_the_reason_said(monkeypatch, bytes_of):
    monkeypatch.setattr(layout, "VALUE_SIZE", 40)
    layout.mismatch.cache_clear()
    engine = SandboxEngine(EngineShape.of(Settings(sandbox_slots=8, sandbox_threads=1)))
    try:
        assert Guest(Component(engine.engine, bytes_of("echo")), engine).lane.name == "package"
        assert lane_report() == (
            "package",
            "the size of wasmtime_component_val_t is 32, the fast lane expects 40",
        )
    finally:
        engine.close()
        monkeypatch.undo()
        layout.mismatch.cache_clear()


def test_another_version_is_served_by_the_package(monkeypatch):
    monkeypatch.setattr(layout, "VERSION", "49.0.0")
    layout.mismatch.cache_clear()
    try:
        assert lane_report()[0] == "package"
        assert "the fast lane knows 49.0.0" in str(lane_report()[1])
    finally:
        monkeypatch.undo()
        layout.mismatch.cache_clear()


PARTS = """(component
  {extra}
  (core module $m (memory (export "memory") 1)
    (func (export "realloc") (param i32 i32 i32 i32) (result i32) (i32.const 1024))
    (func (export "handle") (param i32 i32 i32 i32) (result i32) (i32.const 0)))
  (core instance $i (instantiate $m))
  (func (export "handle") (param "hook" string) (param "payload" string) (result (result string (error string)))
    (canon lift (core func $i "handle") (memory (core memory $i "memory")) (realloc (core func $i "realloc")))))"""


@pytest.mark.parametrize(
    ("extra", "limits", "error", "used"),
    [
        (
            "(core module $t (table 5000 funcref)) (core instance $ti (instantiate $t))",
            {"table_elements": 1_000},
            errors.GuestTableLimit,
            {"limit": "table_elements", "allowed": 1_000, "used": 5_000},
        ),
        (
            "".join(
                f"(core module $t{i} (table 1 funcref)) (core instance $x{i} (instantiate $t{i}))" for i in range(3)
            ),
            {"tables": 2},
            errors.GuestTableLimit,
            {"limit": "tables", "allowed": 2, "used": 3},
        ),
        (
            "".join(f"(core module $t{i}) (core instance $x{i} (instantiate $t{i}))" for i in range(4)),
            {"instances": 3},
            errors.GuestInstanceLimit,
            {"limit": "instances", "allowed": 3, "used": 4},
        ),
    ],
)
async def test_a_component_of_more_parts_than_it_may_have_is_told_which(box, make_manifest, extra, limits, error, used):
    data = bytes(wasmtime.wat2wasm(PARTS.format(extra=extra)))
    with pytest.raises(error) as caught:
        await box.run(data, manifest=make_manifest(limits=limits))
    assert caught.value.extra == used
