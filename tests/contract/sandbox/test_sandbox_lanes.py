"""Which way into wasmtime serves, and what it stands aside for."""

from __future__ import annotations

import hashlib
from importlib.metadata import version

from wasmtime.component import Component

from kernel.settings import Settings
from sandbox.engine import EngineShape, SandboxEngine
from sandbox.guest import Guest
from sandbox.lanes import lane_report, layout


async def test_the_fast_lane_serves_the_pinned_library_and_both_can_be_asked_for(lane, opened, bytes_of):
    async with opened() as box:
        assert (await box.run("echo", '{"a":1}')).output == '{"a":1}'
        guest = box.runtime._shelf.get(hashlib.sha256(bytes_of("echo")).hexdigest())
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
