"""The same attacks as real toolchains compile them: each guest gets its error, and what follows is served."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from kernel.errors import GuestFailure
from kernel.manifest import PluginManifest, load_manifest, manifest_from_dict
from marketplace.index import manifest_document
from plugin_sdk.scaffold import new_plugin
from plugin_sdk.toolchain import Toolchains, build_plugin
from tests.hostile.conftest import Opener
from tests.hostile.door import Door
from tests.support.absent import toolchains_at_hand

pytestmark = pytest.mark.toolchain

SOURCES = {path.stem: path for path in (Path(__file__).parent / "sources").iterdir() if path.is_file()}
TIME, MEMORY, FLOOD, STACK, TRAP = (
    "guest-time-limit", "guest-memory-limit", "guest-host-call-limit", "guest-stack-limit", "guest-trap",
)  # fmt: skip
EXPECTED: dict[str, dict[str, tuple[str, ...]]] = {
    # C keeps its own stack at the beginning of its memory: past it is outside. Its sleep() returns at once.
    "c": {
        "loop": (TIME,), "recursion": (STACK, TRAP), "memory": (MEMORY, TRAP), "abort": (TRAP,), "wild": (TRAP,),
        "flood": (FLOOD,), "exit": ("guest-exit",),
    },
    "assemblyscript": {
        "loop": (TIME,), "recursion": (STACK,), "memory": (MEMORY, TRAP), "abort": (TRAP,), "wild": (TRAP,),
        "flood": (FLOOD,),
    },
    # What a language turns into an exception of its own, the guest reports as a failure.
    "python": {
        "loop": (TIME,), "recursion": (STACK, "guest-error"), "memory": (MEMORY, "guest-error"), "flood": (FLOOD,),
        "swallow": (TIME, STACK, TRAP, FLOOD), "exit": ("guest-exit", TRAP), "sleep": ("guest-unavailable", TRAP),
        "file": ("guest-error", "guest-unavailable", TRAP), "write": ("guest-error", "guest-unavailable", TRAP),
        "socket": ("guest-error", "guest-unavailable", TRAP), "process": ("guest-error", "guest-unavailable", TRAP),
        "thread": ("guest-error", TRAP), "environment": ("guest-error", TRAP),
    },
}  # fmt: skip


def built(language: str, parent: Path) -> tuple[bytes, PluginManifest]:
    """The component of a language's source; skips where its toolchain is not to be had."""
    folder = new_plugin(parent, "attacker", language, "acme")
    manifest = load_manifest(folder)
    assert manifest.build is not None
    shutil.copy(SOURCES[language], folder / manifest.build.source)
    with toolchains_at_hand():
        component = build_plugin(folder, Toolchains())
    limits = {"time_ms": 20_000, "host_calls": 20, "memory_mb": 64 if language == "python" else 16}
    return component.path.read_bytes(), manifest_from_dict(manifest_document(manifest) | {"limits": limits})


@pytest.fixture(scope="module", params=sorted(EXPECTED))
def attacker(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> tuple[str, bytes, PluginManifest]:
    return request.param, *built(request.param, tmp_path_factory.mktemp(request.param))


def limited(manifest: PluginManifest, **limits: Any) -> PluginManifest:
    document = manifest_document(manifest)
    return manifest_from_dict(document | {"limits": document.get("limits", {}) | limits})


@pytest.mark.parametrize("isolation", ["call", "tenant"])
async def test_each_attack_gets_its_error_and_the_next_call_its_answer(
    doors: Opener, attacker: tuple[str, bytes, PluginManifest], isolation: str
) -> None:
    language, component, manifest = attacker
    manifest = manifest_from_dict(manifest_document(manifest) | {"isolation": isolation})
    grants = frozenset(manifest.capabilities.asked())

    async def call(door: Door, name: str, manifest: PluginManifest = manifest) -> str:
        draft = json.dumps({"email": "ada@example.com", "name": name, "attributes": {}})
        return (await door.run(component, draft, manifest=manifest, grants=grants)).output

    async with doors() as door:
        fine = await call(door, "Ada")
        assert language != "c" or await call(door, "sleep") == fine
        for name, codes in EXPECTED[language].items():
            with pytest.raises(GuestFailure) as caught:
                await call(door, name, limited(manifest, time_ms=400) if TIME in codes else manifest)
            assert caught.value.code in codes, f"{name}: {caught.value}"
            assert caught.value.usage is not None
            # An allocator that gives up a megabyte short of the limit just crashes; what it held is said then.
            assert name != "memory" or caught.value.code != TRAP or "KiB of memory" in str(caught.value)
            assert await call(door, "Ada") == fine
        await door.serves()
