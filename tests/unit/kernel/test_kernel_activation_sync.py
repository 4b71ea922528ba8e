"""Activations follow what is stored: at boot, after a change, on a message; and never half."""

from __future__ import annotations

import asyncio
import hashlib
import logging

import orjson
import pytest

from kernel.activation import Activations
from kernel.activation_sync import CHANGES, ActivationSync
from kernel.context import Context
from kernel.errors import ManifestError, PluginUnavailable, SchemaIncompatible
from kernel.events import EventTypes
from kernel.guests import Guests
from kernel.hooks import Dispatcher
from kernel.payloads import UserDraft
from kernel.ports import ActivationRecord, BusMessage, Effects, GuestRelease, GuestResult, GuestUsage
from tests.support.manifests import make_manifest

DRAFT = UserDraft(email="ada@example.com", name="Ada")


class FakeRuntime:
    """Compiles anything but the component ``broken``; answers ``{}``."""

    def __init__(self) -> None:
        self.compiled: list[str] = []
        self.forgotten: list[str] = []

    async def prepare(self, digest, component, manifest) -> None:
        if component == b"broken":
            raise PluginUnavailable("It does not compile.", plugin=manifest.id)
        self.compiled.append(digest)

    def prepared(self, digest) -> bool:
        return digest in self.compiled

    async def call(self, call) -> GuestResult:
        return GuestResult("{}", Effects(), GuestUsage(1, 1, 0, 0))

    async def forget(self, digest) -> None:
        self.forgotten.append(digest)

    async def close(self) -> None: ...


class FakeBlobs:
    def __init__(self) -> None:
        self.kept: dict[str, bytes] = {}

    async def put(self, data: bytes) -> str:
        digest = hashlib.sha256(data).hexdigest()
        self.kept[digest] = data
        return digest

    async def get(self, digest: str) -> bytes | None:
        return self.kept.get(digest)

    async def delete(self, digest: str) -> None:
        self.kept.pop(digest, None)


class FakeSource:
    def __init__(self) -> None:
        self.records: list[ActivationRecord] = []
        self.releases: dict[tuple[str, str], GuestRelease | Exception] = {}
        self.asked: list[str] = []

    async def load_all(self):
        return list(self.records)

    async def load_tenant(self, tenant):
        self.asked.append(tenant)
        return [r for r in self.records if r.tenant == tenant]

    async def load_guest(self, plugin, version):
        found = self.releases.get((plugin, version))
        if isinstance(found, Exception):
            raise found
        return found


class Bench:
    def __init__(self) -> None:
        self.activations, self.types = Activations(), EventTypes()
        self.runtime, self.blobs, self.source = FakeRuntime(), FakeBlobs(), FakeSource()
        self.guests = Guests(self.runtime)
        self.sync = ActivationSync(self.activations, self.guests, self.runtime, self.blobs, self.types)
        self.hooks = Dispatcher(self.activations, self.guests)

    async def release(self, component=b"good", version="1.0.0", id="acme/guard", **changes):
        digest = await self.blobs.put(component)
        manifest = make_manifest(id, version, hooks={"user_creating": {}}, **changes)
        self.source.releases[id, version] = GuestRelease(manifest, digest)
        return digest

    def on(self, tenant="acme", version="1.0.0", id="acme/guard"):
        self.source.records.append(ActivationRecord(tenant, id, version))

    async def filter(self, tenant="acme"):
        return await self.hooks.filter("user_creating", DRAFT, Context(tenant))


@pytest.fixture
def bench() -> Bench:
    found = Bench()
    found.sync.use(found.source)
    return found


def message(type: str, tenant: str = "acme") -> BusMessage:
    return BusMessage(f"{tenant}/x", "e1", orjson.dumps({"type": type, "tenant": tenant}))


async def test_without_a_source_nothing_is_active():
    bench = Bench()
    await bench.sync.load()
    await bench.sync.refresh("acme")
    assert bench.activations.current.tenants == {}


async def test_at_boot_what_is_stored_is_compiled_once_and_switched_on(bench: Bench):
    await bench.release()
    bench.on("acme")
    bench.on("globex")
    await bench.sync.load()
    assert [i.plugin for i in bench.hooks.ready("globex", "user_creating")] == ["acme/guard"]
    assert len(bench.runtime.compiled) == 1


async def test_a_change_here_is_read_again_for_that_tenant_only(bench: Bench):
    await bench.release()
    await bench.sync.load()
    bench.on("acme")
    bench.on("globex")
    await bench.sync.refresh("acme")
    assert bench.hooks.ready("acme", "user_creating")
    assert not bench.hooks.ready("globex", "user_creating")


@pytest.mark.parametrize("type", sorted(CHANGES))
async def test_a_change_elsewhere_arrives_by_the_bus(bench: Bench, type):
    await bench.release()
    bench.on("acme")
    await bench.sync.on_message(message(type))
    assert bench.hooks.ready("acme", "user_creating")


async def test_other_events_are_passed_over(bench: Bench):
    await bench.sync.on_message(message("user.created"))
    assert bench.source.asked == []


@pytest.mark.parametrize("problem", ["component", "blob", "manifest"])
async def test_a_release_that_cannot_be_loaded_rejects_for_its_tenants_and_the_rest_is_served(
    bench: Bench, problem, caplog
):
    digest = await bench.release(b"broken" if problem == "component" else b"good")
    await bench.release(b"other", id="acme/fine")
    if problem == "blob":
        await bench.blobs.delete(digest)
    if problem == "manifest":
        bench.source.releases["acme/guard", "1.0.0"] = ManifestError("plugin.toml has 1 problem: unknown key colour.")
    bench.on("acme")
    bench.on("globex", id="acme/fine")
    with caplog.at_level(logging.CRITICAL):
        await bench.sync.load()
    with pytest.raises(PluginUnavailable, match="acme/guard") as caught:
        await bench.filter()
    assert caught.value.plugin == "acme/guard"
    assert (await bench.filter("globex")).payload == DRAFT
    assert not bench.sync.callable_here("acme/guard", "1.0.0")


async def test_a_repaired_release_serves_again_after_the_next_refresh(bench: Bench, caplog):
    digest = await bench.release()
    await bench.blobs.delete(digest)
    bench.on("acme")
    with caplog.at_level(logging.CRITICAL):
        await bench.sync.load()
    await bench.blobs.put(b"good")
    await bench.sync.refresh("acme")
    assert (await bench.filter()).payload == DRAFT


async def test_an_extension_that_is_left_out_is_not_missed(bench: Bench):
    bench.on("acme", id="acme/extension")
    await bench.sync.load()
    assert (await bench.filter()).payload == DRAFT


async def test_event_types_are_registered_before_the_guest_can_emit_them(bench: Bench):
    declared = {"declares": [{"type": "lead.scored", "summary": "A lead was scored."}]}
    await bench.release(events=declared)
    bench.on("acme")
    await bench.sync.load()
    found = bench.types.get("lead.scored")
    assert found is not None
    assert found.owner == "acme/guard"


def scored(*fields: str):
    data = {"type": "object", "properties": {f: {"type": "integer"} for f in fields}}
    return {"declares": [{"type": "lead.scored", "summary": "A lead was scored.", "data": data}]}


async def test_versions_whose_schemas_grew_load_in_any_order_and_roll_back(bench: Bench):
    for version, fields in (("1.10.0", ("score", "weight")), ("1.9.0", ("score",))):
        await bench.release(version=version, component=version.encode(), events=scored(*fields))
    bench.on("acme", "1.10.0")
    bench.on("globex", "1.9.0")
    await bench.sync.load()
    for tenant in ("acme", "globex"):
        assert (await bench.filter(tenant)).payload == DRAFT
    older = bench.source.releases["acme/guard", "1.9.0"]
    await bench.sync.prepare(older.manifest, older.digest)
    assert set(bench.types.get("lead.scored").schema["properties"]) == {"score", "weight"}


async def test_a_release_that_would_break_readers_of_its_events_is_refused(bench: Bench):
    await bench.release(events=scored("score"))
    first = bench.source.releases["acme/guard", "1.0.0"]
    await bench.sync.prepare(first.manifest, first.digest)
    await bench.release(version="2.0.0", component=b"two", events=scored("points"))
    second = bench.source.releases["acme/guard", "2.0.0"]
    with pytest.raises(SchemaIncompatible):
        await bench.sync.prepare(second.manifest, second.digest)
    assert not bench.sync.callable_here("acme/guard", "2.0.0")


async def test_a_failing_read_on_a_message_leaves_everything_as_it_was(bench: Bench, caplog):
    await bench.release()
    bench.on("acme")
    await bench.sync.load()
    before = bench.activations.current

    async def fail(tenant):
        raise PluginUnavailable("The database does not answer.")

    bench.source.load_tenant = fail
    with caplog.at_level(logging.CRITICAL):
        await bench.sync.on_message(message("plugin.activated"))
    assert bench.activations.current is before


async def test_refreshes_at_once_end_in_what_is_stored(bench: Bench):
    await bench.release()
    bench.on("acme")
    await asyncio.gather(*(bench.sync.refresh("acme") for _ in range(10)))
    bench.source.records.clear()
    await asyncio.gather(*(bench.sync.refresh("acme") for _ in range(10)))
    assert bench.activations.current.of("acme").activations == ()
    assert len(bench.runtime.compiled) == 1


async def test_forgetting_takes_the_release_and_its_artifact_away(bench: Bench):
    digest = await bench.release()
    release = bench.source.releases["acme/guard", "1.0.0"]
    await bench.sync.prepare(release.manifest, digest)
    await bench.sync.forget(release.manifest, digest, keep_artifact=True)
    assert bench.runtime.forgotten == []
    await bench.sync.prepare(release.manifest, digest)
    await bench.sync.forget(release.manifest, digest)
    assert bench.runtime.forgotten == [digest]
    assert not bench.sync.callable_here("acme/guard", "1.0.0")


def news(type: str, tenant: str = "platform", **data: str) -> BusMessage:
    return BusMessage("k", "e1", orjson.dumps({"type": type, "tenant": tenant, "data": data}))


async def test_a_withdrawn_release_is_called_no_more_in_any_process_and_again_once_it_is_installed_anew(bench: Bench):
    digest = await bench.release()
    bench.on()
    await bench.sync.load()
    await bench.filter()
    good = bench.source.releases["acme/guard", "1.0.0"]
    bench.source.releases["acme/guard", "1.0.0"] = GuestRelease(good.manifest, digest, "it is quarantined")
    await bench.sync.on_message(news("plugin.quarantined", plugin="acme/guard", version="1.0.0"))
    with pytest.raises(PluginUnavailable) as caught:
        await bench.filter()
    assert caught.value.extra["cause"] == "quarantined"
    assert [m.id for m, _ in bench.sync.active("acme")] == ["acme/guard"]
    # Reading the tenant again does not let it back in.
    await bench.sync.refresh("acme")
    with pytest.raises(PluginUnavailable):
        await bench.filter()
    bench.source.releases["acme/guard", "1.0.0"] = good
    await bench.sync.on_message(news("plugin.installed", plugin="acme/guard", version="1.0.0"))
    await bench.filter()


async def test_news_of_a_release_that_is_not_in_use_here_changes_nothing(bench: Bench):
    await bench.release()
    before = bench.activations.current
    for type in ("plugin.quarantined", "plugin.installed"):
        await bench.sync.on_message(news(type, plugin="acme/guard", version="1.0.0"))
    assert bench.activations.current is before
    assert bench.runtime.compiled == []


async def test_whoever_listens_hears_of_the_events_of_a_type_from_any_process(bench: Bench):
    heard = []
    bench.sync.listen("plugin.reset", lambda tenant, data: heard.append((tenant, data)))
    await bench.sync.on_message(news("plugin.reset", "acme", plugin="acme/guard"))
    await bench.sync.on_message(news("user.created", "acme"))
    assert heard == [("acme", {"plugin": "acme/guard"})]


async def test_a_withdrawn_release_that_is_installed_anew_here_is_called_again_at_once(bench: Bench):
    await bench.release()
    bench.on("acme")
    good = bench.source.releases["acme/guard", "1.0.0"]
    bench.source.releases["acme/guard", "1.0.0"] = GuestRelease(good.manifest, good.digest, "it is quarantined")
    await bench.sync.load()
    with pytest.raises(PluginUnavailable):
        await bench.filter()
    # What an install does, before anybody is told of it by the bus.
    await bench.sync.prepare(good.manifest, good.digest)
    await bench.filter()
