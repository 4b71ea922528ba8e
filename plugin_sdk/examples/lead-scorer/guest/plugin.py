"""Scores people when they register or change, keeps counts per company, announces each new score."""

from typing import Any

from keelstone_guest import EventView, config, events, hook, kv, log
from scoring import Person, Rules, score


@hook("event_received")
def on_event(event: EventView) -> None:
    """Score the person of a user.created or user.updated event; forget the one of a user.removed."""
    user = event.data.get("user")
    if not isinstance(user, str) or not user:
        log.warn(f"{event.type} {event.id} names no user; left out")
        return
    known = kv.get_json(f"lead/{user}")
    if event.type == "user.removed":
        _forget(user, known)
        return
    person = _person(event, known)
    rules = Rules.from_settings(config.get)
    colleagues = _count(person, known, rules)
    result = score(person, rules, colleagues)
    if known and known.get("score") == result.points and known.get("reasons") == result.reasons:
        return
    seen = {"email": person.email, "name": person.name, "attributes": person.attributes}
    kv.set_json(
        f"lead/{user}",
        {"score": result.points, "reasons": result.reasons, "domain": person.domain, "colleagues": colleagues, **seen},
    )
    events.emit(
        "lead.scored",
        {
            "user": user,
            "email": person.email,
            "name": person.name,
            "score": result.points,
            "band": result.band,
            "reasons": result.reasons,
        },
    )
    log.info(f"scored {user} at {result.points} ({result.band})")


def _person(event: EventView, known: dict[str, Any] | None) -> Person:
    """The person after the event; an update may carry only what changed."""
    before = known or {}
    attributes = event.data.get("attributes", before.get("attributes"))
    return Person(
        email=str(event.data.get("email", before.get("email", ""))),
        name=str(event.data.get("name", before.get("name", ""))),
        attributes=attributes if isinstance(attributes, dict) else {},
    )


def _count(person: Person, known: dict[str, Any] | None, rules: Rules) -> int:
    """How many of the same company came before this person, who is counted once per company."""
    if person.domain in rules.free_mail_domains or not person.domain:
        return 0
    if known and known.get("domain") == person.domain:
        return int(known.get("colleagues", 0))
    before = int(kv.get(f"company/{person.domain}") or 0)
    kv.set(f"company/{person.domain}", str(before + 1))
    return before


def _forget(user: str, known: dict[str, Any] | None) -> None:
    """Keep nothing of a person who was removed."""
    if known is None:
        return
    kv.delete(f"lead/{user}")
    company = f"company/{known.get('domain', '')}"
    count = int(kv.get(company) or 0)
    if count > 1:
        kv.set(company, str(count - 1))
    elif count:
        kv.delete(company)
