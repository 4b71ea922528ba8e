"""The e-mail guard in the real sandbox."""

import pytest

from plugin_sdk.testing import Filtered, Guest


async def create(guest: Guest, email: str, **settings: object) -> Filtered:
    return await guest.filter("user_creating", {"email": email, "name": "Ann"}, settings=settings)


async def test_an_ordinary_address_passes_unchanged(guest: Guest) -> None:
    answer = await create(guest, "ann@example.com")
    assert answer.rejected is None
    assert not answer.changed


@pytest.mark.parametrize("email", ["x@mailinator.com", "x@MAILINATOR.com", "x@a.b.mailinator.com", "x@mailinator.com."])
async def test_a_throw_away_domain_is_refused_however_it_is_written(guest: Guest, email: str) -> None:
    answer = await create(guest, email)
    assert answer.rejected is not None
    assert "mailinator.com" in answer.rejected
    assert "refused an address at" in guest.log_text


async def test_a_domain_that_only_ends_like_a_refused_one_passes(guest: Guest) -> None:
    assert (await create(guest, "ann@notmailinator.com")).rejected is None


async def test_a_changed_profile_is_guarded_too(guest: Guest) -> None:
    answer = await guest.filter("user_updating", {"email": "ann@yopmail.com", "name": "Ann"})
    assert answer.rejected is not None


async def test_the_tenants_own_list_and_message_count(guest: Guest) -> None:
    answer = await create(
        guest, "ann@rival.example", refused_domains=["Rival.example "], message="No {domain}, {domain}!"
    )
    assert answer.rejected == "No rival.example, rival.example!"
    assert (await create(guest, "ann@mailinator.com", refused_domains=[])).rejected is None


async def test_an_allowed_domain_is_stronger_than_a_refused_one(guest: Guest) -> None:
    settings = {"refused_domains": ["example.com"], "allowed_domains": ["good.example.com"]}
    assert (await create(guest, "ann@good.example.com", **settings)).rejected is None
    assert (await create(guest, "ann@bad.example.com", **settings)).rejected is not None


async def test_only_allowed_domains_get_in_when_the_tenant_says_so(guest: Guest) -> None:
    settings = {"only_allowed": True, "allowed_domains": ["example.com"]}
    assert (await create(guest, "ann@example.com", **settings)).rejected is None
    assert (await create(guest, "ann@other.example", **settings)).rejected is not None


async def test_an_address_is_trimmed_and_its_domain_put_in_lower_case(guest: Guest) -> None:
    answer = await create(guest, "  Ann.Lee@EXAMPLE.Com ")
    assert answer.payload["email"] == "Ann.Lee@example.com"


async def test_tags_are_dropped_only_on_request(guest: Guest) -> None:
    assert (await create(guest, "ann+news@example.com")).payload["email"] == "ann+news@example.com"
    assert (await create(guest, "ann+news@example.com", strip_tags=True)).payload["email"] == "ann@example.com"
    assert (await create(guest, "+news@example.com", strip_tags=True)).payload["email"] == "+news@example.com"


async def test_gmail_addresses_fold_into_one(guest: Guest) -> None:
    for email in ("a.n.n@gmail.com", "Ann+x@gmail.com", "ann@googlemail.com"):
        assert (await create(guest, email, fold_gmail=True)).payload["email"] == "ann@gmail.com"
    assert (await create(guest, "a.n.n@example.com", fold_gmail=True)).payload["email"] == "a.n.n@example.com"


@pytest.mark.parametrize(
    "email", ["ann", "@example.com", "ann@", "ann@localhost", "a b@example.com", "a@-x.com", "a@b@c.de"]
)
async def test_what_is_no_address_is_refused_with_a_reason(guest: Guest, email: str) -> None:
    assert "not an e-mail address" in str((await create(guest, email)).rejected)


async def test_everything_else_of_the_draft_comes_back_as_it_was(guest: Guest) -> None:
    attributes = {"deep": [1, 2.5, -0.0, 9007199254740993, None, True, {"é😀": 'a"\\\n\u0001'}], "empty": {}}
    draft = {"email": "Ann@EXAMPLE.com", "name": "Ann \u00e9 😀", "attributes": attributes}
    answer = await guest.filter("user_creating", draft)
    assert answer.payload == {**draft, "email": "Ann@example.com"}


async def test_without_its_settings_granted_it_fails_rather_than_letting_everybody_in(guest: Guest) -> None:
    with pytest.raises(Exception, match="not-granted"):
        await guest.filter("user_creating", {"email": "x@mailinator.com", "name": "X"}, grants=["log"])
