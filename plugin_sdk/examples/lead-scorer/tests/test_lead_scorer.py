"""The lead scorer in the real sandbox."""

import json
from typing import Any

from plugin_sdk.testing import Guest

ANN = {"user": "u1", "email": "ann@acme.example", "name": "Ann", "attributes": {"title": "CTO of Acme"}}


def data_of(guest: Guest) -> list[dict[str, Any]]:
    return [dict(event.data) for event in guest.events]


async def test_a_new_person_is_scored_and_announced_with_reasons(guest: Guest) -> None:
    observed = await guest.observe("user.created", ANN)
    assert [event.type for event in observed.events] == ["lead.scored"]
    assert data_of(guest) == [
        {
            "user": "u1",
            "email": "ann@acme.example",
            "name": "Ann",
            "score": 70,
            "band": "hot",
            "reasons": ["+30 company address at acme.example", "+40 title says cto"],
        }
    ]
    assert "scored u1 at 70 (hot)" in guest.log_text


async def test_colleagues_who_came_before_raise_the_score_up_to_a_limit(guest: Guest) -> None:
    for number in range(7):
        await guest.observe("user.created", {"user": f"u{number}", "email": f"p{number}@acme.example", "name": "P"})
    assert [data["score"] for data in data_of(guest)] == [30, 35, 40, 45, 50, 50, 50]
    assert guest.stored["company/acme.example"] == "7"


async def test_free_mail_counts_for_nothing_and_is_not_counted(guest: Guest) -> None:
    await guest.observe("user.created", {"user": "u1", "email": "ann@gmail.com", "name": "Ann"})
    assert data_of(guest)[0]["score"] == 0
    assert data_of(guest)[0]["band"] == "cold"
    assert "company/gmail.com" not in guest.stored


async def test_the_same_event_again_neither_counts_nor_announces_twice(guest: Guest) -> None:
    await guest.observe("user.created", ANN)
    await guest.observe("user.created", ANN)
    assert len(guest.events) == 1
    assert guest.stored["company/acme.example"] == "1"


async def test_a_changed_title_gives_a_changed_score_and_the_same_one_does_not(guest: Guest) -> None:
    await guest.observe("user.created", ANN)
    await guest.observe("user.updated", {"user": "u1", "attributes": {"title": "Intern"}})
    await guest.observe("user.updated", {"user": "u1", "name": "Ann"})
    assert [data["score"] for data in data_of(guest)] == [70, 20]
    assert data_of(guest)[1]["email"] == "ann@acme.example"


async def test_the_tenants_weights_count(guest: Guest) -> None:
    settings = {
        "company_domain_points": 1,
        "domain_points": {"Acme.example": 50},
        "title_points": {"wizard": 7},
        "attribute_points": {"plan=enterprise": 20},
        "hot_from": 70,
    }
    person = {**ANN, "attributes": {"role": "Chief Wizard", "plan": "Enterprise"}}
    await guest.observe("user.created", person, settings=settings)
    assert data_of(guest)[0]["score"] == 78
    assert data_of(guest)[0]["band"] == "hot"
    assert "+20 plan=enterprise" in data_of(guest)[0]["reasons"]


async def test_tenants_are_scored_apart(guest: Guest) -> None:
    await guest.observe("user.created", ANN)
    guest.tenant = "globex"
    await guest.observe("user.created", {**ANN, "user": "u2"})
    assert [data["score"] for data in data_of(guest)] == [70, 70]


async def test_an_event_without_a_user_is_left_out(guest: Guest) -> None:
    await guest.observe("user.created", {"email": "ann@acme.example"})
    assert guest.events == []
    assert "names no user" in guest.log_text


async def test_nothing_is_kept_of_a_person_who_was_removed(guest: Guest) -> None:
    await guest.observe("user.created", ANN)
    await guest.observe("user.created", {**ANN, "user": "u2"})
    for user in ("u1", "u1"):
        await guest.observe("user.removed", {"user": user})
    assert sorted(guest.stored) == ["company/acme.example", "lead/u2"]
    assert guest.stored["company/acme.example"] == "1"
    await guest.observe("user.removed", {"user": "u2"})
    assert guest.stored == {}


async def test_state_is_what_it_says(guest: Guest) -> None:
    await guest.observe("user.created", ANN)
    kept = json.loads(guest.stored["lead/u1"])
    assert kept["score"] == 70
    assert kept["domain"] == "acme.example"
