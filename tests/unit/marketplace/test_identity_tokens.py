"""Identity tokens: who issues them, how they are signed, and within which bounds an issuer's documents are fetched."""

from __future__ import annotations

import asyncio
import json
import ssl
import time
from base64 import urlsafe_b64encode
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from joserfc import jwt
from joserfc.jwk import ECKey, OctKey, RSAKey

from kernel.errors import BackendUnavailable, ConfigurationError
from marketplace.errors import JobNotTrusted
from marketplace.oidc.claims import run_of
from marketplace.oidc.fetching import fetch_json, is_open
from marketplace.oidc.here import token_here
from marketplace.oidc.issuers import AGAIN_SECONDS, FAILED_SECONDS, Issuer, Issuers, read_issuers
from tests.support.issuer import LocalIssuer, local_issuer

AUDIENCE = "keelstone-marketplace:0123456789abcdef"
DISCOVERY, KEYS = "/.well-known/openid-configuration", "/.well-known/jwks"


class Clock:
    """Moves when told."""

    def __init__(self) -> None:
        self.at = time.time()

    def now(self) -> float:
        return self.at


@pytest.fixture
def issuer(tmp_path: Path) -> Iterator[LocalIssuer]:
    with local_issuer(tmp_path) as found:
        yield found


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def issuers(issuer: LocalIssuer, clock: Clock) -> Issuers:
    return Issuers([Issuer("github", issuer.url, private=True)], clock, issuer.authority)


def trust_of(issuer: LocalIssuer) -> ssl.SSLContext:
    context = ssl.create_default_context()
    context.load_verify_locations(issuer.authority)
    return context


async def test_a_token_says_which_run_it_is_of(issuer: LocalIssuer, issuers: Issuers) -> None:
    found = await issuers.check(issuer.token(AUDIENCE), AUDIENCE)
    assert (found.run.repository, found.run.workflow) == ("acme/guard", ".github/workflows/release.yml")
    assert found.run.url == f"{issuer.url}/acme/guard/actions/runs/77"


async def test_keys_are_fetched_once_for_many_at_once(issuer: LocalIssuer, issuers: Issuers) -> None:
    tokens = [issuer.token(AUDIENCE) for _ in range(8)]
    await asyncio.gather(*(issuers.check(token, AUDIENCE) for token in tokens))
    assert issuer.asked == [DISCOVERY, KEYS]


async def test_another_key_of_the_issuer_is_looked_for_but_not_each_time(
    issuer: LocalIssuer, issuers: Issuers, clock: Clock
) -> None:
    await issuers.check(issuer.token(AUDIENCE), AUDIENCE)
    issuer.key = RSAKey.generate_key(2048, {"kid": "two"})
    header = {"alg": "RS256", "kid": "two"}

    def fresh() -> str:
        claims = json.loads(_decoded(issuer.token(AUDIENCE, at=clock.at)))
        return jwt.encode(header, claims, issuer.key)

    for _ in range(5):
        with pytest.raises(JobNotTrusted, match="does not have"):
            await issuers.check(fresh(), AUDIENCE)
    assert len(issuer.asked) == 2, "whoever invents key ids makes nobody ask"
    clock.at += AGAIN_SECONDS + 1
    await issuers.check(fresh(), AUDIENCE)
    assert len(issuer.asked) == 4


async def test_an_issuer_that_fails_is_left_alone_for_a_while(
    issuer: LocalIssuer, issuers: Issuers, clock: Clock
) -> None:
    issuer.answers[DISCOVERY] = (500, b"", {})
    for _ in range(3):
        with pytest.raises(BackendUnavailable, match="status 500"):
            await issuers.check(issuer.token(AUDIENCE), AUDIENCE)
    assert len(issuer.asked) == 1
    del issuer.answers[DISCOVERY]
    clock.at += FAILED_SECONDS + 1
    await issuers.check(issuer.token(AUDIENCE), AUDIENCE)


async def test_a_token_that_somebody_else_signed_is_refused(issuer: LocalIssuer, issuers: Issuers) -> None:
    with pytest.raises(JobNotTrusted, match="signature"):
        await issuers.check(issuer.token(AUDIENCE, key=RSAKey.generate_key(2048)), AUDIENCE)


@pytest.mark.parametrize("alg", ["none", "HS256", "RS512", "PS256"])
async def test_only_two_ways_of_signing_count(issuer: LocalIssuer, issuers: Issuers, alg: str) -> None:
    claims = json.loads(_decoded(issuer.token(AUDIENCE)))
    header = {"alg": alg, "kid": "one"}
    if alg == "none":
        token = f"{_encoded(header)}.{_encoded(claims)}."
    elif alg == "HS256":
        token = jwt.encode(header, claims, OctKey.import_key("s" * 64), algorithms=[alg])
    else:
        token = jwt.encode(header, claims, issuer.key, algorithms=[alg])
    with pytest.raises(JobNotTrusted, match="does not count"):
        await issuers.check(token, AUDIENCE)


async def test_an_elliptic_curves_key_counts_as_well(issuer: LocalIssuer, issuers: Issuers) -> None:
    key = ECKey.generate_key("P-256", {"kid": "curve"})
    listed = {"keys": [key.as_dict(private=False)]}
    issuer.answers[KEYS] = (200, json.dumps(listed).encode(), {})
    claims = json.loads(_decoded(issuer.token(AUDIENCE)))
    token = jwt.encode({"alg": "ES256", "kid": "curve"}, claims, key)
    assert (await issuers.check(token, AUDIENCE)).run.commit == "a" * 40


@pytest.mark.filterwarnings("ignore::joserfc.errors.SecurityWarning")
async def test_a_weak_key_of_an_issuer_does_not_count(issuer: LocalIssuer, issuers: Issuers) -> None:
    weak = RSAKey.generate_key(1024, {"kid": "one"})
    issuer.answers[KEYS] = (200, json.dumps({"keys": [weak.as_dict(private=False)]}).encode(), {})
    with pytest.raises(JobNotTrusted, match="does not have"):
        await issuers.check(issuer.token(AUDIENCE, key=weak), AUDIENCE)


@pytest.mark.parametrize("address", ["https://evil.example/jwks", "http://127.0.0.1/jwks"])
async def test_keys_at_another_host_are_not_fetched(issuer: LocalIssuer, issuers: Issuers, address: str) -> None:
    said = {"issuer": issuer.url, "jwks_uri": address}
    issuer.answers[DISCOVERY] = (200, json.dumps(said).encode(), {})
    with pytest.raises(BackendUnavailable, match="another host"):
        await issuers.check(issuer.token(AUDIENCE), AUDIENCE)
    assert issuer.asked == [DISCOVERY]


async def test_discovery_must_speak_of_the_issuer_itself(issuer: LocalIssuer, issuers: Issuers) -> None:
    said = {"issuer": "https://elsewhere.example", "jwks_uri": f"{issuer.url}{KEYS}"}
    issuer.answers[DISCOVERY] = (200, json.dumps(said).encode(), {})
    with pytest.raises(BackendUnavailable, match="does not answer as an issuer"):
        await issuers.check(issuer.token(AUDIENCE), AUDIENCE)


@pytest.mark.parametrize("token", ["", "x", "a.b.c", "e30.e30.", "W10.W10.x", "." * 20_000])
async def test_what_is_no_token_is_refused(issuers: Issuers, token: str) -> None:
    with pytest.raises(JobNotTrusted):
        await issuers.check(token, AUDIENCE)


class TestFetching:
    async def test_no_redirect_is_followed(self, issuer: LocalIssuer) -> None:
        issuer.answers["/from"] = (302, b"", {"Location": f"{issuer.url}{KEYS}"})
        with pytest.raises(BackendUnavailable, match="status 302"):
            await fetch_json(f"{issuer.url}/from", private=True, trust=trust_of(issuer))

    async def test_a_document_has_a_greatest_size(self, issuer: LocalIssuer) -> None:
        issuer.answers["/large"] = (200, b" " * 300_000, {})
        with pytest.raises(BackendUnavailable, match="more than"):
            await fetch_json(f"{issuer.url}/large", private=True, trust=trust_of(issuer))

    async def test_the_deadline_is_for_all_of_it(self, issuer: LocalIssuer) -> None:
        async def never(host: str, port: int) -> list[str]:
            await asyncio.Event().wait()
            return []

        with pytest.raises(BackendUnavailable, match="did not answer within"):
            await fetch_json(f"{issuer.url}{KEYS}", private=True, resolve=never, deadline=0.01)

    async def test_a_private_address_is_refused_unless_the_operator_says_so(self, issuer: LocalIssuer) -> None:
        with pytest.raises(BackendUnavailable, match="not one of the open internet"):
            await fetch_json(f"{issuer.url}{KEYS}", trust=trust_of(issuer))
        assert issuer.asked == []

    async def test_a_name_with_one_private_address_is_refused(self, issuer: LocalIssuer) -> None:
        async def both(host: str, port: int) -> list[str]:
            return ["8.8.8.8", "127.0.0.1"]

        with pytest.raises(BackendUnavailable, match=r"127\.0\.0\.1"):
            await fetch_json("https://issuer.example/x", resolve=both)

    async def test_an_unknown_authority_is_not_believed(self, issuer: LocalIssuer) -> None:
        with pytest.raises(BackendUnavailable, match="CERTIFICATE_VERIFY_FAILED"):
            await fetch_json(f"{issuer.url}{KEYS}", private=True)

    async def test_proxies_of_the_environment_are_not_used(
        self, issuer: LocalIssuer, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        for name in ("HTTPS_PROXY", "https_proxy", "ALL_PROXY"):
            monkeypatch.setenv(name, "http://127.0.0.1:1")
        for name in ("NO_PROXY", "no_proxy"):
            monkeypatch.delenv(name, raising=False)
        assert "keys" in await fetch_json(f"{issuer.url}{KEYS}", private=True, trust=trust_of(issuer))

    @pytest.mark.parametrize("url", ["http://issuer.example/x", "https://user:x@issuer.example/", "file:///etc/passwd"])
    async def test_only_plain_https_is_fetched(self, url: str) -> None:
        with pytest.raises(BackendUnavailable, match="no https address"):
            await fetch_json(url)

    @pytest.mark.parametrize(
        "address",
        [
            "127.0.0.1",
            "10.1.2.3",
            "169.254.169.254",
            "100.64.0.1",
            "::1",
            "fe80::1",
            "::ffff:8.8.8.8",
            "2002:808::",
            "64:ff9b::808:808",
            "224.0.0.1",
            "0.0.0.0",
            "fd00::1",
            "name",
        ],
    )
    def test_an_address_that_is_not_open(self, address: str) -> None:
        assert not is_open(address)

    @pytest.mark.parametrize("address", ["8.8.8.8", "2606:4700::1111"])
    def test_an_open_address(self, address: str) -> None:
        assert is_open(address)


GITLAB: dict[str, Any] = {
    "project_path": "acme/tools/guard",
    "project_id": "3003",
    "namespace_id": "4004",
    "ci_config_ref_uri": "gitlab.com/acme/tools/guard//.gitlab-ci.yml@refs/tags/v1.0.0",
    "environment": "release",
    "ref": "v1.0.0",
    "ref_type": "tag",
    "sha": "c" * 40,
    "pipeline_source": "push",
    "job_id": "99",
}


def test_a_token_of_gitlab_says_the_same_in_other_words() -> None:
    run = run_of("gitlab", "https://gitlab.com", GITLAB)
    assert (run.repository, run.repository_id, run.owner_id) == ("acme/tools/guard", "3003", "4004")
    assert (run.workflow, run.ref) == (".gitlab-ci.yml", "refs/tags/v1.0.0")
    assert run.url == "https://gitlab.com/acme/tools/guard/-/jobs/99"


@pytest.mark.parametrize(
    "claims",
    [
        {"ci_config_ref_uri": "gitlab.com/evil/flows//.gitlab-ci.yml@refs/heads/main"},
        {"ci_config_ref_uri": "gitlab.com/acme/tools/guard2//.gitlab-ci.yml@refs/heads/main"},
        {"pipeline_source": "merge_request_event"},
        {"project_id": None},
        {"project_path": "acme/../x y"},
    ],
)
def test_a_token_of_gitlab_that_is_not_the_projects_own(claims: dict[str, Any]) -> None:
    with pytest.raises(JobNotTrusted):
        run_of("gitlab", "https://gitlab.com", GITLAB | claims)


class TestInTheJob:
    def test_the_addresss_own_query_is_kept(self, issuer: LocalIssuer, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("SSL_CERT_FILE", str(issuer.authority))
        assert token_here(AUDIENCE, issuer.environment()).count(".") == 2
        assert "api-version=2.0" in issuer.asked[0]

    def test_the_runs_secret_goes_over_https_alone(self) -> None:
        told = {"ACTIONS_ID_TOKEN_REQUEST_URL": "http://127.0.0.1:1/x", "ACTIONS_ID_TOKEN_REQUEST_TOKEN": "x"}
        with pytest.raises(ConfigurationError, match="no https"):
            token_here(AUDIENCE, told)

    def test_gitlabs_token_is_a_variable_and_for_this_marketplace(self, issuer: LocalIssuer) -> None:
        token = issuer.token(AUDIENCE)
        assert token_here(AUDIENCE, {"KEELSTONE_ID_TOKEN": token}) == token
        with pytest.raises(ConfigurationError, match="another marketplace"):
            token_here("keelstone-marketplace:other", {"KEELSTONE_ID_TOKEN": token})

    def test_outside_a_job_there_is_none(self) -> None:
        with pytest.raises(ConfigurationError, match="no identity token"):
            token_here(AUDIENCE, {})


@pytest.mark.parametrize(
    "entry", ["https://x.example", "github=http://x.example", "jenkins=https://x.example", "github="]
)
def test_an_issuer_that_cannot_be_read(entry: str) -> None:
    with pytest.raises(ConfigurationError, match="cannot be read"):
        read_issuers([entry])


def test_without_issuers_there_are_none() -> None:
    assert read_issuers(()) == ()


def _encoded(said: Any) -> str:
    return urlsafe_b64encode(json.dumps(said).encode()).decode().rstrip("=")


def _decoded(token: str) -> bytes:
    from base64 import urlsafe_b64decode

    part = token.split(".")[1]
    return urlsafe_b64decode(part + "=" * (-len(part) % 4))
