"""What a CI job released, behind a mirror and out of a bundle: the same proof of the job, without its marketplace."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from marketplace.binding import prove_key
from marketplace.jobs import Job, sign_jobs
from marketplace.keys import SigningKey, generate_key
from marketplace.mirror.exporting import Exporter, read_wanted
from marketplace.mirror.importing import import_bundle
from marketplace.oidc.issuers import Issuer
from marketplace.package import DEFAULT_MAX_BYTES
from marketplace.registry import Registry
from marketplace.transport import RegistryTransport
from tests.support.issuer import LocalIssuer, local_issuer
from tests.support.sites import Site

Make = Callable[..., Any]


@pytest.fixture
def issuer(tmp_path: Path) -> Iterator[LocalIssuer]:
    with local_issuer(tmp_path) as found:
        yield found


@pytest.fixture
async def central(
    open_registry: Callable[..., Registry],
    register: Callable[..., Awaitable[None]],
    issuer: LocalIssuer,
    key: SigningKey,
    make_release: Make,
) -> Registry:
    """A marketplace with acme/guard 1.0.0, released by a job."""
    registry = open_registry(issuers=[Issuer("github", issuer.url, private=True)], issuers_authority=issuer.authority)
    await register(registry)
    job = Job(issuer.url, "acme/guard", "1001", "2002", ".github/workflows/release.yml", ("guard",))
    await registry.let_jobs(sign_jobs("acme", None, [job], key))
    temporary, token = generate_key(), issuer.token(registry.audience)
    proof = prove_key(temporary, token, "acme/guard", registry.audience)
    await registry.bind_job(token, "acme/guard", temporary.public.to_dict(), proof)
    signed = make_release(by=temporary)
    await registry.publish(signed.package.data, signed.envelope)
    return registry


async def proved(site: Site, cache: Path, key: SigningKey) -> None:
    """That the site's clients see which job released it, and who let it."""
    package = await site.client(cache).fetch("acme/guard", "1.0.0")
    assert any("released by a job of" in line for line in package.chain)
    assert package.origin is not None
    assert package.origin.build is not None
    assert package.origin.signers == (key.id,)


async def test_a_mirror_shows_the_job_and_its_proof(site: Site, tmp_path: Path, key: SigningKey) -> None:
    await site.follow("acme/*")
    assert (await site.sync()).released == ["acme/guard 1.0.0"]
    await proved(site, tmp_path / "cache", key)


async def test_a_bundle_carries_the_job_and_its_proof(
    central: Registry, site: Site, tmp_path: Path, key: SigningKey
) -> None:
    file = tmp_path / "plugins.bundle"
    transport = RegistryTransport(central.reader)
    exporter = Exporter(transport, tmp_path / "export", central.trusted_root, site.clock.now, DEFAULT_MAX_BYTES)
    exporter.export(file, [read_wanted("acme/guard")])
    await import_bundle(site.registry, file, root=central.trusted_root, name="central")
    await proved(site, tmp_path / "cache", key)
