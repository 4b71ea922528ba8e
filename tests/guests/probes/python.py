"""The probe of the guest library for Python: does what its payload's attributes tell it."""

import random
import time
from datetime import UTC, datetime

from keelstone_guest import (
    AccessRequest,
    Allow,
    Deny,
    EventView,
    HostError,
    UserDraft,
    ai,
    clock,
    config,
    events,
    hook,
    http,
    kv,
    log,
    notify,
    secrets,
    services,
)
from keelstone_guest import random as chance


def settings() -> list:
    return [config.get("text", "none"), config.get("number", -1), config.get("flag"), *config.get("list", [])]


def logs() -> list:
    log.debug("d"), log.info("i \u00e9\U0001f600"), log.warn("w"), log.error("e")
    print("printed")
    return []


def store() -> list:
    kv.set("b", "2"), kv.set("a", "1 \u00e9\U0001f600"), kv.set("c", "")
    empty = kv.get("c") == ""
    kv.delete("c")
    return [empty, kv.get("c") is None, *(kv.get(k) for k in kv.keys("", 10))]


def refused() -> list:
    calls = [
        lambda: kv.get("a"),
        lambda: kv.keys(),
        lambda: events.emit("probe.tried", {}),
        lambda: http.get("https://example.com/"),
        lambda: config.get("text"),
    ]
    said = []
    for call in calls:
        try:
            call()
        except HostError as error:
            said.append(error.code)
    return said


def insist() -> list:
    kv.set("a", "1")
    return ["went on"]


def emit() -> list:
    events.emit("probe.tried", {"n": 7})
    return []


def fetch() -> list:
    answer = http.post(config.get("target") + "echo", json={"x": 1}, headers={"x-probe": "yes"})
    return [answer.status, answer.ok, answer.body, answer.headers.get("x-answer", "none")]


def more() -> list:
    kv.set_many({"x": "1", "y": ""})
    said: list = kv.get_many(["x", "nope", "y"])
    said += [kv.set_if("x", "2", "1"), kv.set_if("x", "3", None)]
    kv.set_for("t", "gone", 60)
    said += [kv.get("t"), clock.now() > datetime(2023, 11, 1, tzinfo=UTC)]
    before = clock.monotonic()
    said += [clock.monotonic() >= before, chance.number() != chance.number(), len(chance.hex(8)) == 16]
    answer = ai.complete("small", "What?", system="Be brief.", max_tokens=50)
    said += [secrets.placeholder("token") != "", answer.text, answer.model, answer.tokens]
    said += [notify.send("email", "ann@example.com", "Hi", "Body \u00e9")]
    said += [services.call("acme/other", "lookup", q="\u00e9")["found"]]
    try:
        ai.complete("large", "What?", max_tokens=50)
    except HostError as error:
        said.append(error.code)
    return said


def crash() -> list:
    raise ValueError("on purpose")


def machine() -> list:
    return [time.time() > 1_700_000_000, random.random()]


TODO = {
    "settings": settings,
    "log": logs,
    "kv": store,
    "refused": refused,
    "insist": insist,
    "emit": emit,
    "fetch": fetch,
    "crash": crash,
    "fail": crash,
    "machine": machine,
    "more": more,
}


@hook("user_creating")
def create(draft: UserDraft) -> UserDraft:
    todo = TODO.get(str(draft.attributes.get("do")), list)
    return draft.replace(attributes={**draft.attributes, "said": todo()})


@hook("access_deciding")
def decide(request: AccessRequest) -> Allow | Deny | None:
    if request.action == "allow":
        return Allow(f"{request.principal}/{','.join(request.roles)}")
    return Deny("no") if request.action == "deny" else None


@hook("event_received")
def observe(event: EventView) -> None:
    if "fail" in event.data:
        raise RuntimeError("later")
    log.info(f"{event.type} {event.version} {event.tenant}")
