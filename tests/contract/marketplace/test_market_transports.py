"""One suite over both ways to a marketplace: the registry's folder, and the service over HTTP."""

from __future__ import annotations

import asyncio
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import httpx
import pytest

from kernel.errors import BackendUnavailable, NotFound, ValidationFailed
from kernel.settings import Settings
from marketplace import MarketplaceClient, Registry, open_client
from marketplace.binding import prove_key
from marketplace.connect import registry_folder
from marketplace.errors import VerificationFailed
from marketplace.jobs import Job, sign_jobs
from marketplace.keys import SigningKey, generate_key
from marketplace.log.checkpoint import read_checkpoint
from marketplace.log.entry import read_entry
from marketplace.log.proof import read_proof
from marketplace.log.tiles import read_bundle
from marketplace.log.tree import leaf_hash
from marketplace.namespaces import make_key_set
from marketplace.oidc.issuers import Issuer
from marketplace.pinning import fetch_root, pin_root
from marketplace.publishing import publish_folder
from marketplace.registry import RegistryReader
from marketplace.testing import EMPTY_COMPONENT, make_signed, write_plugin
from marketplace.transport import HttpTransport, RegistryTransport, Transport
from plugin_sdk.reporting import FIGURES, RATING, platform_name, pseudonym
from plugin_sdk.services import SearchFilters
from tests.support.issuer import LocalIssuer, local_issuer
from tests.support.market import Platform

ROOT = Path(__file__).parents[3]
SERVE = "from kernel.settings import Settings; from marketplace.serving import serve_registry; "
DEADLINE_SECONDS = 30.0


@dataclass(frozen=True)
class Shop:
    """A marketplace with acme/guard 1.0.0 and initech/robot 1.0.0, which a CI job released; served by a process of its
    own."""

    settings: Settings
    url: str
    package: bytes
    digest: str
    process: subprocess.Popen[bytes]
    owner: str
    """The key that let the job release."""


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shop]:
    folder = tmp_path_factory.mktemp("shop")
    settings = Settings(home=folder / "home")
    plugin = write_plugin(folder / "guard")
    component = folder / "guard.component.wasm"
    component.write_bytes(EMPTY_COMPONENT)
    key, owner = generate_key(), generate_key()

    async def fill() -> str:
        with local_issuer(folder) as issuer:
            trusted = [Issuer("github", issuer.url, private=True)]
            registry = Registry.open(registry_folder(settings), issuers=trusted, issuers_authority=issuer.authority)
            try:
                first = await publish_folder(registry, plugin, component, key)
                assert await publish_folder(registry, plugin, component, key) == first
                await release_by_job(registry, issuer, owner, folder / "robot")
                return first.digest
            finally:
                await registry.close()

    digest, port = asyncio.run(fill()), free_port()
    command = f"{SERVE}serve_registry(Settings(), '127.0.0.1', {port}, open_namespaces=True)"
    environment = {
        **os.environ,
        "KEELSTONE_HOME": str(settings.home),
        "KEELSTONE_LOG_LEVEL": "warning",
        # The packages of these tests hold an empty component: what is tested is their way, not their answers.
        "KEELSTONE_CHECK_CONTRACTS": "false",
    }
    process = subprocess.Popen([sys.executable, "-c", command], cwd=ROOT, env=environment)
    try:
        url = f"http://127.0.0.1:{port}"
        wait_until_healthy(url, process)
        yield Shop(settings, url, make_signed(plugin, key, parts=None).package.data, digest, process, owner.id)
    finally:
        process.terminate()
        process.wait(DEADLINE_SECONDS)


async def release_by_job(registry: Registry, issuer: LocalIssuer, owner: SigningKey, folder: Path) -> None:
    """Have a CI job release initech/robot 1.0.0, as its owner lets it."""
    await registry.register_namespace(make_key_set("initech", [owner]).document)
    job = Job(issuer.url, "acme/guard", "1001", "2002", ".github/workflows/release.yml", ("robot",))
    await registry.let_jobs(sign_jobs("initech", None, [job], owner))
    temporary, token = generate_key(), issuer.token(registry.audience)
    proof = prove_key(temporary, token, "initech/robot", registry.audience)
    await registry.bind_job(token, "initech/robot", temporary.public.to_dict(), proof)
    source = write_plugin(
        folder, "initech/robot", name="Robot", summary="Staples paper.", readme="# Robot\n\nIt works.\n"
    )
    signed = make_signed(source, temporary, EMPTY_COMPONENT)
    await registry.publish(signed.package.data, signed.envelope)


def wait_until_healthy(url: str, process: subprocess.Popen[bytes]) -> None:
    end = time.monotonic() + DEADLINE_SECONDS
    while time.monotonic() < end and process.poll() is None:
        try:
            if httpx.get(f"{url}/healthz").json() == {"status": "ok"}:
                return
        except httpx.TransportError:
            time.sleep(0.1)
    pytest.fail("the marketplace did not come up")


@pytest.fixture(params=["folder", "http"])
def transport(shop: Shop, request: pytest.FixtureRequest) -> Iterator[Transport]:
    if request.param == "folder":
        reader = RegistryReader.open(registry_folder(shop.settings))
        assert reader is not None
        made: Transport = RegistryTransport(reader, owned=True)
    else:
        made = HttpTransport(shop.url)
    yield made
    made.close()


@pytest.fixture
async def client(transport: Transport, shop: Shop, tmp_path: Path) -> MarketplaceClient:
    root = (registry_folder(shop.settings) / "root.json").read_bytes()
    return MarketplaceClient(transport, tmp_path / "cache", root)


def test_files_come_whole(transport: Transport, shop: Shop) -> None:
    assert b"".join(transport.stream(f"packages/{shop.digest}")) == shop.package
    assert b"".join(transport.stream("metadata/timestamp.json")).startswith(b"{")


@pytest.mark.parametrize(
    "path",
    [
        "metadata/99.root.json",
        "targets/plugins/acme/x.json",
        f"packages/{'0' * 64}",
        "packages/../../registry.db",
        "log/tile/0/001",
        "log/tile/0/000.p/9",
        "log/proof/acme/guard/9.9.9",
        "log/witnessed/1",
        "log/registry.db",
    ],
)
def test_what_is_not_there_is_not_found(transport: Transport, path: str) -> None:
    with pytest.raises(NotFound):
        b"".join(transport.stream(path))


def test_the_log_comes_in_checkpoints_tiles_and_proofs(transport: Transport) -> None:
    def read(path: str) -> bytes:
        return b"".join(transport.stream(f"log/{path}"))

    checkpoint = read_checkpoint(read("checkpoint"))
    hashes, entries = read("tile/0/000.p/2"), read_bundle(read("tile/entries/000.p/2"), 2)
    assert hashes == b"".join(leaf_hash(entry) for entry in entries)
    assert [read_entry(entry).kind for entry in entries] == ["keys", "publish"]
    proof = read_proof(read("proof/acme/guard/1.0.0"))
    assert proof.index == 1
    assert read_checkpoint(proof.checkpoint) == checkpoint
    assert read_checkpoint(read_proof(read("proof/acme/guard/1.0.0/at/2")).checkpoint).size == 2


def test_search_gives_ids(transport: Transport) -> None:
    assert transport.search("guard", 5, SearchFilters()) == ["acme/guard"]
    assert transport.search("guard", 5, SearchFilters(publisher="acme", contracts=("1.1.0",))) == ["acme/guard"]
    assert transport.search("guard", 5, SearchFilters(publisher="globex")) == []
    assert transport.search("guard", 5, SearchFilters(contracts=("9.0.0", "9.1.0"))) == []
    assert transport.search("nothing like it", 5, SearchFilters()) == []


async def test_a_client_searches_fetches_and_verifies(client: MarketplaceClient, shop: Shop) -> None:
    (entry,) = await client.search("guard")
    assert entry.latest == "1.0.0"
    package = await client.fetch("acme/guard", "1.0.0")
    assert package.digest == shop.digest
    verification = await client.verify(shop.package)
    assert verification.package == package


async def test_a_jobs_release_is_proved_offline_once_it_was_fetched(client: MarketplaceClient, shop: Shop) -> None:
    package = await client.fetch("initech/robot", "1.0.0")
    assert package.origin is not None
    assert package.origin.build is not None
    assert (package.origin.build.repository, package.origin.signers) == ("acme/guard", (shop.owner,))
    assert any(line.startswith("binding: ") and "acme/guard" in line for line in package.chain)
    offered = (await client.index("initech/robot")).published()["1.0.0"]
    assert (offered.repository or "").endswith("acme/guard")
    reader = RegistryReader.open(registry_folder(shop.settings))
    assert reader is not None
    file = reader.package_path(package.digest)
    assert file is not None
    again = await client.verify(file.read_bytes(), offline=True)
    assert again.package.chain == package.chain


def test_an_address_where_nobody_answers_is_unavailable(tmp_path: Path) -> None:
    transport = HttpTransport(f"http://127.0.0.1:{free_port()}")
    with pytest.raises(BackendUnavailable):
        b"".join(transport.stream("metadata/timestamp.json"))
    with pytest.raises(BackendUnavailable):
        transport.search("x", 1, SearchFilters())
    transport.close()


async def test_a_platform_elsewhere_pins_the_root_and_then_works_unplugged(shop: Shop, tmp_path: Path) -> None:
    settings = Settings(home=tmp_path / "elsewhere", marketplace_url=shop.url)
    with pytest.raises(VerificationFailed, match="marketplace trust"):
        open_client(settings)
    pin_root(settings, fetch_root(settings, None, first_use=True))
    client = open_client(settings)
    online = await client.verify(shop.package)
    await client.close()

    unplugged = open_client(settings.model_copy(update={"marketplace_url": f"http://127.0.0.1:{free_port()}"}))
    offline = await unplugged.verify(shop.package)
    await unplugged.close()
    assert offline.package.chain == online.package.chain
    assert "not reached" in offline.notes[0]


async def test_releases_published_over_http_are_installable_at_once(shop: Shop, tmp_path: Path) -> None:
    key = generate_key()
    signed = make_signed(write_plugin(tmp_path / "plugin", "globex/gate", name="Gate"), key)
    async with httpx.AsyncClient(base_url=shop.url) as http:
        bound = await http.post("/namespaces", content=make_key_set("globex", [key]).document)
        published = await http.post("/publish", files={"package": signed.package.data, "signature": signed.envelope})
        assert (bound.status_code, published.status_code) == (201, 201)
    root = (registry_folder(shop.settings) / "root.json").read_bytes()
    client = MarketplaceClient(HttpTransport(shop.url), tmp_path / "cache", root)
    assert (await client.fetch("globex/gate", "1.0.0")).digest == signed.package.digest
    await client.close()


KILLED = """
import asyncio, os, sys
from pathlib import Path
from marketplace.registry import Registry

home, files, kill_at = Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3]

def die(step):
    if step == kill_at:
        os._exit(9)

async def main():
    registry = Registry.open(home, on_step=die)
    await registry.publish((files / "p").read_bytes(), (files / "s").read_bytes())

asyncio.run(main())
"""


@pytest.mark.parametrize(
    "step", ["blob-stored", "changes-written", "logged", "metadata-signed", "committing", "committed"]
)
async def test_a_process_killed_in_a_publish_leaves_all_or_nothing(step: str, tmp_path: Path) -> None:
    key = generate_key()
    registry = Registry.open(tmp_path / "registry")
    await registry.register_namespace(make_key_set("acme", [key]).document)
    await registry.close()
    signed = make_signed(write_plugin(tmp_path / "guard"), key, parts=None)
    (tmp_path / "p").write_bytes(signed.package.data)
    (tmp_path / "s").write_bytes(signed.envelope)
    arguments = [sys.executable, "-c", KILLED, str(tmp_path / "registry"), str(tmp_path), step]
    killed = await asyncio.to_thread(subprocess.run, arguments, cwd=ROOT, check=False)
    assert killed.returncode == 9

    registry = Registry.open(tmp_path / "registry")
    client = MarketplaceClient(RegistryTransport(registry.reader), tmp_path / "cache", registry.trusted_root)
    if step == "committed":
        assert (await client.fetch("acme/guard", "1.0.0")).digest == signed.package.digest
    else:
        with pytest.raises(NotFound):
            await client.info("acme/guard")
    await registry.publish(signed.package.data, signed.envelope)
    assert (await client.fetch("acme/guard", "1.0.0")).digest == signed.package.digest
    await registry.close()


def test_a_platforms_word_is_handed_in_and_what_is_not_taken_says_why(transport: Transport, shop: Shop) -> None:
    platform = Platform()
    said = {
        "plugin": "acme/guard",
        "version": "1.0.0",
        "digest": shop.digest,
        "tenant": pseudonym(platform, "acme/guard", "acme"),
        "stars": 4,
        "text": "Watches.",
        "at": datetime.now(UTC).isoformat(timespec="seconds"),
    }
    transport.hand_in("ratings", platform.sign(RATING, said), platform.public_keys())
    listed = httpx.get(f"{shop.url}/plugins/acme/guard/ratings").json()["ratings"]
    assert platform_name(platform.public_keys()) in [each["platform"] for each in listed]
    with pytest.raises(ValidationFailed, match="did not publish this acme/guard"):
        transport.hand_in("ratings", platform.sign(RATING, {**said, "digest": "0" * 64}), platform.public_keys())
    with pytest.raises(ValidationFailed, match="not signed by these keys"):
        transport.hand_in("ratings", platform.sign(RATING, said), Platform().public_keys())
    with pytest.raises(ValidationFailed, match="no figures"):
        transport.hand_in("figures", platform.sign(FIGURES, {"day": "never"}), platform.public_keys())
