"""The chat notifier in the real sandbox, posting to a real server on loopback."""

from typing import Any

import pytest

from plugin_sdk.testing import Guest

ANN = {"user": "u1", "email": "ann@example.com", "name": "Ann"}


def with_hook(guest: Guest, **settings: Any) -> dict[str, Any]:
    return {"webhook_url": guest.web.url + "hook", **settings}


async def test_a_new_user_is_posted_in_the_form_slack_reads(guest: Guest) -> None:
    await guest.observe("user.created", ANN, settings=with_hook(guest))
    (request,) = guest.web.requests
    assert (request.method, request.path) == ("POST", "/hook")
    assert request.headers["content-type"] == "application/json"
    assert request.json() == {"text": "Ann (ann@example.com) has registered."}


async def test_a_lead_is_posted_with_its_reasons(guest: Guest) -> None:
    lead = {**ANN, "score": 70, "band": "hot", "reasons": ["+40 title says cto", "+30 company address"]}
    await guest.observe("lead.scored", lead, settings=with_hook(guest))
    text = guest.web.requests[0].json()["text"]
    assert text == "Ann (ann@example.com) is a hot lead: 70 points. +40 title says cto, +30 company address"


async def test_a_lead_below_the_least_score_is_not_posted(guest: Guest) -> None:
    await guest.observe("lead.scored", {**ANN, "score": 59}, settings=with_hook(guest, minimum_score=60))
    await guest.observe("lead.scored", {**ANN, "score": 60}, settings=with_hook(guest, minimum_score=60))
    assert len(guest.web.requests) == 1


async def test_only_chosen_events_are_posted(guest: Guest) -> None:
    await guest.observe("user.updated", ANN, settings=with_hook(guest))
    assert guest.web.requests == []
    await guest.observe("user.updated", ANN, settings=with_hook(guest, events=["user.*"]))
    assert guest.web.requests[0].json() == {"text": "user.updated on sample-1"}


async def test_templates_reach_into_the_event(guest: Guest) -> None:
    templates = {"user.created": "{type}/{tenant}/{user.role}/{missing}/{tags}/{n}/{ok}/{unclosed"}
    data = {"user": {"role": "cto"}, "tags": ["a", "b"], "n": 2.50, "ok": None}
    await guest.observe("user.created", data, settings=with_hook(guest, templates=templates))
    assert guest.web.requests[0].json()["text"] == "user.created/acme/cto//a, b/2.5//{unclosed"


async def test_an_event_that_comes_twice_is_posted_once(guest: Guest) -> None:
    for _ in range(2):
        await guest.observe("user.created", ANN, settings=with_hook(guest), id="e1")
    assert len(guest.web.requests) == 1


@pytest.mark.parametrize("status", [500, 502, 503, 429, 408])
async def test_a_webhook_in_trouble_is_tried_again_later(guest: Guest, status: int) -> None:
    guest.web.answer(status)
    with pytest.raises(Exception, match=str(status)):
        await guest.observe("user.created", ANN, settings=with_hook(guest), id="e1")
    assert guest.stored == {}
    await guest.observe("user.created", ANN, settings=with_hook(guest), id="e1")
    assert len(guest.web.requests) == 2
    assert list(guest.stored) == ["posted/e1"]


@pytest.mark.parametrize("status", [400, 403, 404, 410])
async def test_a_webhook_that_refuses_is_noted_and_not_tried_again(guest: Guest, status: int) -> None:
    guest.web.answer(status)
    await guest.observe("user.created", ANN, settings=with_hook(guest))
    assert f"with {status}; not tried again" in guest.log_text


async def test_a_webhook_that_is_down_is_tried_again_later(guest: Guest) -> None:
    settings = with_hook(guest)
    guest.web.close()
    with pytest.raises(Exception, match="cannot be reached"):
        await guest.observe("user.created", ANN, settings=settings)


async def test_an_address_inside_the_house_is_refused_and_noted(guest: Guest) -> None:
    await guest.observe("user.created", ANN, settings={"webhook_url": "http://127.0.0.1:1/hook"})
    assert "was not posted: denied" in guest.log_text
    assert guest.web.requests == []


async def test_without_an_address_nothing_is_posted_and_the_log_says_so(guest: Guest) -> None:
    await guest.observe("user.created", ANN)
    assert "webhook_url is not set" in guest.log_text


async def test_nobody_can_ring_everybodys_bell_with_a_name(guest: Guest) -> None:
    evil = {**ANN, "name": "<!channel> @all @everyone & <https://evil.example|click>"}
    await guest.observe("user.created", evil, settings=with_hook(guest))
    await guest.observe("user.created", evil, settings=with_hook(guest, style="mattermost"))
    await guest.observe("user.created", evil, settings=with_hook(guest, style="discord"))
    slack, mattermost, discord = (request.json() for request in guest.web.requests)
    assert "&lt;!channel&gt;" in slack["text"]
    assert "&amp;" in slack["text"]
    assert "@all" not in mattermost["text"]
    assert discord["allowed_mentions"] == {"parse": []}
    assert discord["content"].startswith("<!channel>")


async def test_a_long_message_is_cut(guest: Guest) -> None:
    await guest.observe("user.created", {**ANN, "name": "x" * 5000}, settings=with_hook(guest))
    assert len(guest.web.requests[0].json()["text"]) == 1901


async def test_old_events_are_forgotten(guest: Guest) -> None:
    for number in range(105):
        await guest.observe("user.created", ANN, settings=with_hook(guest), id=f"e{number:04d}")
    assert sorted(guest.stored)[0] == "posted/e0005"
    assert len(guest.stored) == 100
