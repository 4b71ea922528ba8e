"""Credentials, secrets and tokens: rules without a database."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st
from joserfc.jwk import OKPKey

from plugin_sdk import Forbidden, TokenExpired, Unauthenticated, ValidationFailed
from plugins.builtin.identity import domain
from plugins.builtin.identity.infrastructure import Argon2Passwords
from plugins.builtin.identity.tokens import TokenSigner

NOW = datetime(2026, 1, 1, tzinfo=UTC)


@given(st.from_regex(r"[a-z0-9-]{1,40}", fullmatch=True), st.sampled_from(["ks", "ksr"]))
def test_a_secret_survives_its_text_and_only_its_hash_is_kept(tenant, prefix):
    made = domain.new_secret(prefix, tenant)
    read = domain.parse_secret(made.text, prefix)
    assert read == made
    assert read.matches(made.digest)
    assert made.secret not in made.digest
    assert not domain.new_secret(prefix, tenant).matches(made.digest)


@given(st.text(max_size=120))
def test_whatever_is_sent_is_a_secret_or_refused(text):
    with pytest.raises(Unauthenticated):
        domain.parse_secret(text, "ks")


@pytest.mark.parametrize("change", [lambda t: t + "\n", lambda t: "x" + t, lambda t: t[:-1], lambda t: t.upper()])
def test_a_secret_of_another_shape_or_use_is_refused(change):
    text = domain.new_secret("ks", "acme").text
    with pytest.raises(Unauthenticated):
        domain.parse_secret(change(text), "ks")
    with pytest.raises(Unauthenticated):
        domain.parse_secret(text, "ksr")


@pytest.mark.parametrize(("length", "good"), [(11, False), (12, True), (200, True), (201, False)])
def test_a_password_is_long_enough_and_not_too_long(length, good):
    if good:
        assert domain.check_password("x" * length)
    else:
        with pytest.raises(ValidationFailed) as caught:
            domain.check_password(("s3cret" * 40)[:length])
        assert "s3cret" not in str(caught.value)


def test_roles_are_known_sorted_and_operators_of_the_platform_only():
    assert domain.check_roles(["member", "admin", "member"], "acme") == ("admin", "member")
    assert domain.check_roles(["operator"], "platform") == ("operator",)
    assert domain.check_roles([], "acme") == ()
    with pytest.raises(ValidationFailed, match="emperor"):
        domain.check_roles(["emperor"], "platform")
    with pytest.raises(Forbidden):
        domain.check_roles(["member", "operator"], "acme")


@given(st.integers(0, 50))
def test_sign_in_rests_from_the_tenth_wrong_password_on(failures):
    until = domain.lock_after(failures, NOW)
    assert (until is None) == (failures < domain.MAX_FAILURES)
    credential = domain.Credential("u1", "a@b.example", "hash", failures, until)
    assert credential.locked(NOW) == (failures >= domain.MAX_FAILURES)
    assert not credential.locked(NOW + domain.LOCK)


@pytest.mark.parametrize("name", ["*", "", "Acme", "a b", "a\n", "a'", "x" * 65])
def test_what_names_no_single_tenant_is_told_apart(name):
    assert domain.names_tenant("acme-2")
    assert not domain.names_tenant(name)


# ---------------------------------------------------------------------------- access tokens


class Clock:
    def __init__(self) -> None:
        self.now = 1_800_000_000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def keys() -> list[OKPKey]:
    return [OKPKey.generate_key("Ed25519", {"kid": f"k{n}"}) for n in range(2)]


def test_a_token_says_who_until_it_is_stale_even_if_it_was_seen_before(clock, keys):
    signer = TokenSigner(keys, 60, clock)
    token = signer.sign("u1", "acme", ("admin",))
    for _ in range(2):
        claims = signer.check(token)
        assert (claims.subject, claims.tenant, claims.roles) == ("u1", "acme", ("admin",))
    clock.now += 59
    assert signer.check(token).subject == "u1"
    clock.now += 1
    for _ in range(2):
        with pytest.raises(TokenExpired):
            signer.check(token)
    with pytest.raises(TokenExpired):
        TokenSigner(keys, 60, clock).check(token)


def test_an_older_key_still_checks_and_a_strange_one_does_not(clock, keys):
    old = TokenSigner([keys[1]], 60, clock).sign("u1", "acme", ())
    assert TokenSigner(keys, 60, clock).check(old).subject == "u1"
    with pytest.raises(Unauthenticated):
        TokenSigner([keys[0]], 60, clock).check(old)


@given(st.text(max_size=80))
def test_whatever_comes_as_a_token_is_refused_in_one_way(text):
    signer = TokenSigner([OKPKey.generate_key("Ed25519", {"kid": "k"})], 60)
    with pytest.raises(Unauthenticated):
        signer.check(text)


def test_a_cache_of_tokens_stays_small_and_right(clock, keys):
    signer = TokenSigner(keys, 60, clock, cache=2)
    tokens = [signer.sign(f"u{n}", "acme", ()) for n in range(5)]
    for _ in range(2):
        assert [signer.check(t).subject for t in tokens] == [f"u{n}" for n in range(5)]


def test_public_keys_hold_nothing_private(keys):
    published = TokenSigner(keys, 60).public_keys()["keys"]
    assert [k["kid"] for k in published] == ["k0", "k1"]
    assert all("d" not in k for k in published)


# ---------------------------------------------------------------------------- passwords


def test_a_password_is_checked_against_its_hash_and_nobodys_fits_none():
    passwords = Argon2Passwords()
    hashed = passwords.hash("correct horse battery")
    assert hashed.startswith("$argon2id$")
    assert passwords.verify(hashed, "correct horse battery")
    assert not passwords.verify(hashed, "correct horse batterx")
    assert not passwords.verify(None, "correct horse battery")
    assert not passwords.verify("not a hash", "correct horse battery")


def test_a_lock_lasts_a_quarter_of_an_hour():
    assert timedelta(minutes=15) == domain.LOCK
