"""Releasing from CI without a key: what a job may do, and every way in which it may not."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import pytest

from kernel.errors import Conflict
from marketplace.binding import by_job, prove_key, read_binding
from marketplace.client import MarketplaceClient
from marketplace.errors import JobNotTrusted, SignatureInvalid, SignerUnknown, VerificationFailed
from marketplace.index import index_path
from marketplace.jobs import Job, sign_jobs
from marketplace.keys import SigningKey, generate_key
from marketplace.moments import utc_text
from marketplace.namespaces import propose, sign_proposal
from marketplace.oidc.issuers import Issuer
from marketplace.registry import Registry
from marketplace.service import create_app
from marketplace.signing import STATEMENT_PAYLOAD, add_signatures
from marketplace.transport import RegistryTransport
from tests.support.issuer import LocalIssuer, local_issuer

Bind = Callable[..., Awaitable[None]]
Make = Callable[..., Any]
MINUTE = 60 / 86_400


@pytest.fixture
def issuer(tmp_path: Path) -> Iterator[LocalIssuer]:
    with local_issuer(tmp_path) as found:
        yield found


@pytest.fixture
async def market(open_registry: Callable[..., Registry], issuer: LocalIssuer, register: Bind) -> Registry:
    """A registry that takes the local issuer's tokens, with the namespace acme."""
    registry = open_registry(issuers=[Issuer("github", issuer.url, private=True)], issuers_authority=issuer.authority)
    await register(registry)
    return registry


def job_of(issuer: LocalIssuer, **other: Any) -> Job:
    said = Job(issuer.url, "acme/guard", "1001", "2002", ".github/workflows/release.yml", ("guard",), "release")
    return replace(said, **other)


async def let(market: Registry, key: SigningKey, *jobs: Job) -> None:
    await market.let_jobs(sign_jobs("acme", market.reader.jobs.present("acme"), jobs, key))


async def bound(market: Registry, token: str, plugin: str = "acme/guard", key: SigningKey | None = None) -> SigningKey:
    """A key that the marketplace gave a job its minutes for."""
    made = key or generate_key()
    proof = prove_key(made, token, plugin, market.audience)
    await market.bind_job(token, plugin, made.public.to_dict(), proof)
    return made


def client_of(market: Registry, folder: Path) -> MarketplaceClient:
    return MarketplaceClient(RegistryTransport(market.reader), folder, market.trusted_root)


@pytest.fixture
async def released(market: Registry, issuer: LocalIssuer, key: SigningKey, make_release: Make) -> SigningKey:
    """acme/guard 1.0.0, released by a job; its key."""
    await let(market, key, job_of(issuer))
    temporary = await bound(market, issuer.token(market.audience))
    signed = make_release(by=temporary)
    await market.publish(signed.package.data, signed.envelope)
    return temporary


async def test_a_job_releases_without_a_key_and_the_chain_names_every_link(
    market: Registry, released: SigningKey, tmp_path: Path, key: SigningKey, issuer: LocalIssuer
) -> None:
    client = client_of(market, tmp_path / "cache")
    package = await client.fetch("acme/guard", "1.0.0")
    said = "\n".join(package.chain)
    assert f"binding: key {released.id[:16]} is a job of 127.0.0.1:" in said
    assert f"signed by {key.id[:16]}" in next(line for line in package.chain if line.startswith("job: "))
    assert package.origin is not None
    assert package.origin.build is not None
    assert package.origin.signers == (key.id,), "those who let the job release stand behind it"
    assert package.origin.build.repository == "acme/guard"
    assert package.origin.build.commit == "a" * 40
    data = market.reader.package_path(package.digest)
    assert data is not None
    offline = await client.verify(data.read_bytes(), offline=True)
    assert [*offline.package.chain] == [*package.chain]


async def test_a_token_is_used_once(market: Registry, issuer: LocalIssuer, key: SigningKey) -> None:
    await let(market, key, job_of(issuer))
    token = issuer.token(market.audience)
    await bound(market, token)
    with pytest.raises(Conflict, match="used already"):
        await bound(market, token)


@pytest.mark.parametrize(
    "claims",
    [
        {"repository_id": "1002"},
        {"repository_owner_id": "2003"},
        {"repository": "evil/guard", "job_workflow_ref": "evil/guard/.github/workflows/release.yml@refs/heads/main"},
        {"job_workflow_ref": "acme/guard/.github/workflows/test.yml@refs/heads/main"},
        {"job_workflow_ref": "evil/flows/.github/workflows/release.yml@refs/heads/main"},
        {"environment": "staging"},
        {"environment": None},
        {"event_name": "pull_request_target"},
        {"sha": "main"},
        {"aud": "keelstone-marketplace:other"},
        {"aud": ["keelstone-marketplace:other", "x"]},
        {"exp": 1},
        {"nbf": 4_000_000_000},
        {"iat": 4_000_000_000},
        {"exp": 4_000_000_000},
        {"iss": "https://elsewhere.example"},
        {"jti": None},
        {"run_id": "../../x"},
    ],
    ids=lambda claims: ",".join(claims),
)
async def test_a_job_that_is_not_the_one_on_the_list_gets_no_key(
    market: Registry, issuer: LocalIssuer, key: SigningKey, claims: dict[str, Any]
) -> None:
    await let(market, key, job_of(issuer))
    with pytest.raises(JobNotTrusted):
        await bound(market, issuer.token(market.audience, **claims))


async def test_a_job_gets_no_key_for_a_plugin_that_it_may_not_release(
    market: Registry, issuer: LocalIssuer, key: SigningKey
) -> None:
    await let(market, key, job_of(issuer))
    with pytest.raises(JobNotTrusted, match="acme/other"):
        await bound(market, issuer.token(market.audience), "acme/other")


async def test_without_a_list_no_job_gets_a_key(market: Registry, issuer: LocalIssuer) -> None:
    with pytest.raises(JobNotTrusted, match="lets no such job"):
        await bound(market, issuer.token(market.audience))


async def test_whoever_has_only_the_token_gets_nothing_for_a_key_that_they_do_not_have(
    market: Registry, issuer: LocalIssuer, key: SigningKey
) -> None:
    await let(market, key, job_of(issuer))
    token, mine, theirs = issuer.token(market.audience), generate_key(), generate_key()
    proof = prove_key(mine, token, "acme/guard", market.audience)
    with pytest.raises((SignerUnknown, SignatureInvalid)):
        await market.bind_job(token, "acme/guard", theirs.public.to_dict(), proof)


async def test_a_list_that_strangers_signed_is_refused(market: Registry, issuer: LocalIssuer) -> None:
    with pytest.raises(SignerUnknown):
        await let(market, generate_key(), job_of(issuer))


async def test_a_list_that_leaves_one_out_is_refused(market: Registry, issuer: LocalIssuer, key: SigningKey) -> None:
    stale = sign_jobs("acme", None, [job_of(issuer, environment=None)], key)
    await let(market, key, job_of(issuer))
    with pytest.raises(Conflict, match="does not follow"):
        await market.let_jobs(stale)


async def test_a_key_for_one_plugin_releases_no_other(
    market: Registry, issuer: LocalIssuer, key: SigningKey, make_release: Make
) -> None:
    await let(market, key, job_of(issuer, plugins=("*",)))
    signed = make_release("acme/other", by=await bound(market, issuer.token(market.audience)))
    with pytest.raises(JobNotTrusted, match="another plugin"):
        await market.publish(signed.package.data, signed.envelope)


async def test_a_key_whose_minutes_are_over_releases_nothing(
    market: Registry, issuer: LocalIssuer, key: SigningKey, make_release: Make, clock: Any
) -> None:
    await let(market, key, job_of(issuer))
    signed = make_release(by=await bound(market, issuer.token(market.audience)))
    clock.advance(16 * MINUTE)
    with pytest.raises(JobNotTrusted, match="did not hold"):
        await market.publish(signed.package.data, signed.envelope)


async def test_a_job_that_was_removed_releases_nothing_even_with_a_key(
    market: Registry, issuer: LocalIssuer, key: SigningKey, make_release: Make
) -> None:
    await let(market, key, job_of(issuer))
    signed = make_release(by=await bound(market, issuer.token(market.audience)))
    await let(market, key)
    with pytest.raises(JobNotTrusted, match="may not release"):
        await market.publish(signed.package.data, signed.envelope)


async def test_what_a_job_released_stays_good_when_it_is_removed(
    market: Registry, released: SigningKey, key: SigningKey, tmp_path: Path
) -> None:
    await let(market, key)
    package = await client_of(market, tmp_path / "cache").fetch("acme/guard", "1.0.0")
    assert any(line.startswith("job: ") and "list v1" in line for line in package.chain)


async def test_a_key_that_nobody_bound_releases_nothing(
    market: Registry, issuer: LocalIssuer, key: SigningKey, make_release: Make
) -> None:
    await let(market, key, job_of(issuer))
    signed = make_release(by=generate_key())
    with pytest.raises(SignerUnknown):
        await market.publish(signed.package.data, signed.envelope)


class TestOffline:
    """What a marketplace that lies could show, is refused by the walk alone."""

    @pytest.fixture
    def walk(self, market: Registry, released: SigningKey) -> Callable[..., Any]:
        """``by_job`` over what the registry says of the release, with some of it replaced."""
        index, reader = market.reader.index("acme/guard"), market.reader
        release = index.find("1.0.0")
        assert release is not None
        assert release.provenance is not None

        def prove(place: int) -> Any:
            with reader._tables.read() as connection:
                from marketplace.registry.log import LogRows

                return LogRows(connection).proof_of(place).entry

        def walked(**other: Any) -> Any:
            placed = json.loads(reader.log_file("proof/acme/guard/1.0.0"))["index"]
            succession, _ = reader.key_sets("acme")
            given = {
                "plugin": index.plugin,
                "provenance": release.provenance,
                "lists": index.jobs,
                "placed": placed,
                "at": release.published,
                "key_sets": succession,
                "prove": prove,
            } | other
            return by_job(counted=succession.in_force(given["placed"], given["at"], prove), **given)

        return walked

    async def test_the_walk_itself_holds(self, walk: Callable[..., Any], released: SigningKey) -> None:
        assert list(walk().key_set.keys) == [released.id]

    async def test_a_binding_of_another_namespace(self, walk: Callable[..., Any]) -> None:
        with pytest.raises(VerificationFailed, match="another plugin"):
            walk(plugin="evil/guard")

    async def test_a_binding_of_another_plugin(self, walk: Callable[..., Any]) -> None:
        with pytest.raises(VerificationFailed, match="another plugin"):
            walk(plugin="acme/other")

    async def test_a_binding_whose_time_is_over(self, walk: Callable[..., Any]) -> None:
        with pytest.raises(VerificationFailed, match="did not hold"):
            walk(at="2099-01-01T00:00:00Z")

    async def test_a_binding_that_was_logged_after_the_release(
        self, walk: Callable[..., Any], market: Registry
    ) -> None:
        release = market.reader.index("acme/guard").find("1.0.0")
        assert release is not None
        assert release.provenance is not None
        with pytest.raises(VerificationFailed, match="before the release"):
            walk(placed=release.provenance["entry"])

    async def test_a_binding_that_the_log_does_not_have(self, walk: Callable[..., Any], market: Registry) -> None:
        from marketplace.binding import sign_binding

        index = market.reader.index("acme/guard")
        said = index.releases[0].provenance
        assert said is not None
        true = read_binding(said["binding"])
        forged = sign_binding("acme/guard", generate_key().public, true.run, true.since, true.until, generate_key())
        with pytest.raises(VerificationFailed, match="does not have the job's key"):
            walk(provenance={**said, "binding": json.loads(forged)})

    async def test_a_list_that_its_publisher_did_not_sign(
        self, walk: Callable[..., Any], market: Registry, issuer: LocalIssuer
    ) -> None:
        lists = [dict(each) for each in market.reader.index("acme/guard").jobs]
        lists[0]["statement"] = json.loads(sign_jobs("acme", None, [job_of(issuer)], generate_key()))
        with pytest.raises(VerificationFailed, match="something else"):
            walk(lists=lists)

    async def test_no_list_at_all(self, walk: Callable[..., Any]) -> None:
        with pytest.raises(VerificationFailed, match="no job release yet"):
            walk(lists=())

    async def test_a_list_that_was_replaced_before(
        self, walk: Callable[..., Any], market: Registry, key: SigningKey
    ) -> None:
        await let(market, key)
        lists = market.reader.index("acme/guard").jobs
        with pytest.raises(VerificationFailed, match="may not release"):
            walk(lists=lists, placed=lists[-1]["entry"] + 1)

    async def test_a_release_signed_by_another_key(self, walk: Callable[..., Any], make_release: Make) -> None:
        from marketplace.signing import verify_release

        signed = make_release(by=generate_key())
        with pytest.raises(SignerUnknown):
            verify_release(signed.package, signed.envelope, walk().key_set.keys)


async def test_the_index_of_a_plugin_has_all_lists(market: Registry, released: SigningKey, key: SigningKey) -> None:
    await let(market, key)
    served = market.reader.index("acme/guard")
    assert len(served.jobs) == 2
    assert index_path("acme/guard")


async def test_a_repository_vouches_for_all_of_its_publishers_plugins_while_its_job_may_release(
    market: Registry, issuer: LocalIssuer, key: SigningKey, make_release: Make
) -> None:
    other = make_release("acme/other")
    await market.publish(other.package.data, other.envelope)
    await let(market, key, job_of(issuer))
    assert market.reader.index("acme/other").repository is None, "a list alone proves nothing"
    signed = make_release(by=await bound(market, issuer.token(market.audience)))
    await market.publish(signed.package.data, signed.envelope)
    shown = f"{issuer.url.removeprefix('https://')}/acme/guard"
    assert market.reader.index("acme/other").repository == shown
    assert [entry.repository for entry in market.reader.search("")] == [shown, shown]
    await let(market, key)
    assert market.reader.index("acme/other").repository is None


async def test_a_release_that_waited_for_a_reviewer_longer_than_its_key_held_goes_live(
    open_registry: Callable[..., Registry],
    issuer: LocalIssuer,
    key: SigningKey,
    register: Bind,
    make_release: Make,
    clock: Any,
    tmp_path: Path,
) -> None:
    market = open_registry(
        issuers=[Issuer("github", issuer.url, private=True)],
        issuers_authority=issuer.authority,
        rules={"first-release": "review"},
    )
    await register(market)
    await let(market, key, job_of(issuer))
    temporary = await bound(market, issuer.token(market.audience))
    signed = make_release(by=temporary)
    receipt = await market.publish(signed.package.data, signed.envelope)
    assert receipt.state == "quarantined"
    clock.advance(60 * MINUTE)
    assert (await market.publish(signed.package.data, signed.envelope)).state == "quarantined"
    verdict = await market.decide(receipt.digest, approved=True, reason="Fine.", reviewer="ops")
    assert verdict.state == "live"
    package = await client_of(market, tmp_path / "cache").fetch("acme/guard", "1.0.0")
    assert any(line.startswith("binding: ") for line in package.chain)


async def test_where_two_must_sign_one_cannot_let_a_job_release(
    market: Registry, issuer: LocalIssuer, key: SigningKey
) -> None:
    other = generate_key()
    before = market.reader.key_set("acme")
    both = propose(before, [key.public, other.public], threshold=2)
    await market.register_namespace(sign_proposal(both, [key, other]))
    alone = sign_jobs("acme", None, [job_of(issuer)], key)
    with pytest.raises(SignatureInvalid, match="too few"):
        await market.let_jobs(alone)
    await market.let_jobs(add_signatures(alone, STATEMENT_PAYLOAD, [other]))
    await bound(market, issuer.token(market.audience))


async def test_a_list_that_a_stolen_key_signed_ends_with_the_key(
    market: Registry, issuer: LocalIssuer, key: SigningKey, make_release: Make, clock: Any
) -> None:
    stolen = utc_text(clock.now())
    clock.advance(MINUTE)
    await let(market, key, job_of(issuer))
    fresh = generate_key()
    after = propose(market.reader.key_set("acme"), [fresh.public], threshold=1, stolen={key.id: stolen})
    await market.register_namespace(sign_proposal(after, [key, fresh]))
    signed = make_release(by=await bound(market, issuer.token(market.audience, at=clock.now())))
    with pytest.raises(JobNotTrusted):
        await market.publish(signed.package.data, signed.envelope)
    # The holders sign a list of their own, and it counts.
    await let(market, fresh, job_of(issuer))
    await market.publish(signed.package.data, signed.envelope)


async def test_keys_that_were_replaced_leave_their_list_in_force(
    market: Registry, issuer: LocalIssuer, key: SigningKey, make_release: Make, tmp_path: Path
) -> None:
    await let(market, key, job_of(issuer))
    fresh = generate_key()
    after = propose(market.reader.key_set("acme"), [fresh.public], threshold=1)
    await market.register_namespace(sign_proposal(after, [key, fresh]))
    signed = make_release(by=await bound(market, issuer.token(market.audience)))
    await market.publish(signed.package.data, signed.envelope)
    assert (await client_of(market, tmp_path / "cache").fetch("acme/guard", "1.0.0")).origin is not None


async def test_the_jobs_of_an_earlier_owner_release_nothing_for_the_new_one(
    market: Registry, issuer: LocalIssuer, key: SigningKey, make_release: Make
) -> None:
    await let(market, key, job_of(issuer))
    buyer = generate_key()
    after = propose(market.reader.key_set("acme"), [buyer.public], threshold=1, owner="Buyer Ltd")
    await market.register_namespace(sign_proposal(after, [key, buyer]))
    signed = make_release(by=await bound(market, issuer.token(market.audience)))
    with pytest.raises(JobNotTrusted, match="earlier owner"):
        await market.publish(signed.package.data, signed.envelope)


async def test_the_plugins_page_shows_what_built_it(market: Registry, released: SigningKey) -> None:
    transport = httpx.ASGITransport(app=create_app(market))
    async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
        page = (await client.get("/store/acme/guard")).text
        said = (await client.get("/job-keys")).json()
    assert "/acme/guard/actions/runs/77" in page
    assert "Let a CI job release it" in page
    assert said == {"audience": market.audience, "issuers": list(market.issuers.urls)}


async def test_a_marketplace_that_leaves_the_newest_list_out_of_an_index_is_refused_by_who_has_seen_it(
    market: Registry, issuer: LocalIssuer, released: SigningKey, key: SigningKey, make_release: Make, tmp_path: Path
) -> None:
    client = client_of(market, tmp_path / "cache")
    await client.fetch("acme/guard", "1.0.0")
    await let(market, key)  # no job may release any more
    await client.fetch("acme/guard", "1.0.0")
    with market._tables.write() as connection:
        connection.exec_driver_sql("DELETE FROM namespace_jobs WHERE version = 2")
    # As if nothing had been removed, a job releases again: the marketplace says that it may.
    thief = await bound(market, issuer.token(market.audience))
    signed = make_release(version="1.0.1", by=thief)
    await market.publish(signed.package.data, signed.envelope)
    for version in ("1.0.0", "1.0.1"):
        with pytest.raises(VerificationFailed, match="other lists of acme's jobs") as caught:
            await client.fetch("acme/guard", version)
        assert caught.value.link == "job"
