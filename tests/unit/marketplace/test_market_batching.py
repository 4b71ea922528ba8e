"""Many publishes at once: they share commits, wait for nobody who is slow, and leave what python-tuf reads."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Awaitable, Callable, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from tuf.api.metadata import Metadata, Targets
from tuf.api.serialization.json import CanonicalJSONSerializer

from kernel.manifest import PluginManifest
from marketplace.bins import amend_bin
from marketplace.client import MarketplaceClient
from marketplace.errors import RegistryDamaged, VersionTaken
from marketplace.index import index_path
from marketplace.keys import generate_key
from marketplace.registry import Registry
from marketplace.registry.submissions import Wait
from marketplace.transport import RegistryTransport
from plugin_sdk.profile import Trial

Bind = Callable[..., Awaitable[None]]
Make = Callable[..., Any]
Open = Callable[..., Registry]


async def test_many_published_at_once_share_few_commits_and_all_verify(
    open_registry: Open, register: Bind, make_release: Make, tmp_path: Any
) -> None:
    steps: list[str] = []
    registry = open_registry(on_step=steps.append)
    await register(registry)
    steps.clear()
    made = [make_release(f"acme/plugin-{n}") for n in range(60)]
    receipts = await asyncio.gather(*(registry.publish(r.package.data, r.envelope) for r in made))
    assert {receipt.state for receipt in receipts} == {"live"}
    assert len({receipt.log_index for receipt in receipts}) == 60
    assert steps.count("committed") <= 10
    client = MarketplaceClient(RegistryTransport(registry.reader), tmp_path / "cache", registry.trusted_root)
    for each in made[::20]:
        assert (await client.verify(each.package.data, each.envelope)).notes == ()


async def test_a_slow_scan_keeps_nobody_else_waiting(open_registry: Open, register: Bind, make_release: Make) -> None:
    gate = threading.Event()

    def check(component: bytes, manifest: PluginManifest, schema: Mapping[str, Any] | None) -> Trial:
        if manifest.id.startswith("acme/slow"):
            gate.wait(60)
        return Trial()

    registry = open_registry(check_contract=check, patience=60.0)
    await register(registry)
    slow = [make_release(f"acme/slow-{n}") for n in range(7)]
    waiting = [asyncio.create_task(registry.publish(r.package.data, r.envelope)) for r in slow]
    quick = make_release("acme/quick")
    try:
        assert (await registry.publish(quick.package.data, quick.envelope)).state == "live"
        assert not any(task.done() for task in waiting)
    finally:
        gate.set()
    assert {receipt.state for receipt in await asyncio.gather(*waiting)} == {"live"}


async def test_a_receipt_that_comes_late_does_not_hide_a_live_release(
    registry: Registry, register: Bind, make_release: Make
) -> None:
    await register(registry)
    signed, rival = make_release(), make_release(readme="# Other bytes\n")
    live = await registry.publish(signed.package.data, signed.envelope)
    assert await registry.commit(Wait(signed.package, signed.envelope, "scanning")) == live
    assert registry.reader.reviews.unfinished() == []
    with pytest.raises(VersionTaken):
        await registry.commit(Wait(rival.package, rival.envelope, "quarantined"))


def test_an_amended_bin_is_signed_over_the_form_that_python_tuf_checks() -> None:
    key, expires = generate_key(), datetime.now(UTC).replace(microsecond=0) + timedelta(days=1)
    first = Metadata(Targets(version=3, expires=expires))
    first.sign(key.signer)
    changed = {index_path(f"acme/p{n}"): f"document {n}".encode() for n in range(3)}
    body = amend_bin("3.bins-000.json", first.to_bytes(), changed, 9, expires, key)
    read = Metadata[Targets].from_bytes(body)
    assert (read.signed.version, read.signed.expires, set(read.signed.targets)) == (9, expires, set(changed))
    for path, document in changed.items():
        read.signed.targets[path].verify_length_and_hashes(document)
    (signature,) = read.signatures.values()
    key.public.verify_signature(signature, CanonicalJSONSerializer().serialize(read.signed))


def test_what_is_no_bin_is_not_amended() -> None:
    key = generate_key()
    for body in (None, b"{", b'{"signed": {"_type": "root", "targets": {}}}'):
        with pytest.raises(RegistryDamaged):
            amend_bin("1.bins-000.json", body, {}, 2, datetime.now(UTC), key)
