"""Publishing tries a release's hooks: the real registry, checker, sandbox and components."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

import plugin_sdk
from kernel.discovery import CONTRACT_CHECKER, load_entry_point
from kernel.manifest import load_manifest
from marketplace.errors import ReleaseRefused
from marketplace.keys import generate_key
from marketplace.namespaces import make_key_set
from marketplace.package import component_path
from marketplace.publishing import publish_folder
from marketplace.registry import Registry
from tests.support.guests import guest, signed, text_guest

EXAMPLE = Path(plugin_sdk.__file__).parent / "examples" / "email-guard"


@pytest_asyncio.fixture
async def registry(tmp_path: Path) -> AsyncIterator[Registry]:
    opened = Registry.open(tmp_path / "registry", check_contract=load_entry_point(CONTRACT_CHECKER, "sdk"))
    yield opened
    await opened.close()


async def publish(registry: Registry, folder: Path, component: bytes, **manifest: str) -> None:
    key = generate_key()
    package = signed(folder, key, component, "acme/guard", **manifest)
    await registry.register_namespace(make_key_set("acme", [key]).document, by_operator=True)
    await registry.publish(package.package.data, package.envelope)


async def test_a_plugin_that_keeps_its_contract_is_published(registry: Registry) -> None:
    component = component_path(EXAMPLE, load_manifest(EXAMPLE).short_name)
    receipt = await publish_folder(registry, EXAMPLE, component, generate_key())
    assert receipt.plugin == "keelstone-examples/email-guard"


@pytest.mark.parametrize(
    ("component", "told"),
    [
        (text_guest("trap"), "crashed"),
        (text_guest("loop"), "did not answer in time"),
        (guest({"payload": {"email": "x"}}), "the reply does not fit"),
        (guest({}), "it answered hook_of_another_plugin"),
    ],
    ids=["trap", "loop", "reply", "unclaimed"],
)
async def test_one_that_does_not_is_refused_with_what_went_wrong(
    registry: Registry, tmp_path: Path, component: bytes, told: str
) -> None:
    with pytest.raises(ReleaseRefused) as refused:
        # Each try of the one that never ends takes what it may: all of them within a publish's patience.
        await publish(registry, tmp_path / "guard", component, more="[limits]\ntime_ms = 100\n")
    (rule, *_) = {finding["rule"] for finding in refused.value.extra["findings"]}
    assert rule == "contract"
    assert told in refused.value.detail


async def test_what_its_hooks_needed_is_the_same_wherever_they_are_tried() -> None:
    manifest = load_manifest(EXAMPLE)
    component = component_path(EXAMPLE, manifest.short_name).read_bytes()
    check = load_entry_point(CONTRACT_CHECKER, "sdk")
    first, second = [await asyncio.to_thread(check, component, manifest, None) for _ in range(2)]
    assert set(first.profile) == set(manifest.hooks)
    assert all(used.fuel > 1_000 and used.memory_bytes >= 65_536 for used in first.profile.values())
    assert first == second
