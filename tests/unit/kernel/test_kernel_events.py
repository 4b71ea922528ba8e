"""Events: the envelope on the wire, the hash over it, and how a type's schema may grow."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta, timezone

import pytest
from cloudevents.core.bindings.http import HTTPMessage, from_structured_event, to_structured_event
from cloudevents.core.formats.json import JSONFormat
from cloudevents.core.v1.event import CloudEvent
from hypothesis import given
from hypothesis import strategies as st
from jsonschema import Draft202012Validator

from kernel.errors import SchemaIncompatible, ValidationFailed
from kernel.events import (
    GENESIS_HASH,
    Event,
    EventType,
    EventTypes,
    breaking_changes,
    canonical_json,
    event_hash,
    from_cloudevent,
    matches,
    to_cloudevent,
)

plain = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**63 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(exclude_categories=["Cs"]), max_size=10),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)
events = st.builds(
    Event,
    id=st.uuids().map(lambda u: u.hex),
    type=st.sampled_from(["user.created", "lead.scored"]),
    tenant=st.sampled_from(["acme", "globex"]),
    stream=st.sampled_from(["user:1", "activation:acme/hello"]),
    version=st.integers(1, 2**53),
    position=st.integers(1, 2**53),
    time=st.datetimes(timezones=st.just(UTC)),
    data=st.dictionaries(st.text(st.characters(exclude_categories=["Cs"]), max_size=5), plain, max_size=4),
    metadata=st.dictionaries(st.sampled_from(["correlation_id", "cause"]), st.text("abc-", max_size=8)),
    prev_hash=st.just(GENESIS_HASH),
    hash=st.just("a" * 64),
)


@given(events)
def test_an_event_comes_back_from_its_cloud_event_as_it_was(event):
    document = json.loads(json.dumps(to_cloudevent(event)))
    assert from_cloudevent(document) == event


@given(events)
def test_the_cloudevents_sdk_reads_and_writes_the_same_document(event):
    document = to_cloudevent(event)
    read = from_structured_event(
        HTTPMessage({"content-type": "application/cloudevents+json"}, json.dumps(document).encode()), JSONFormat()
    )
    assert isinstance(read, CloudEvent)
    assert read.get_specversion() == "1.0"
    assert read.get_id() == event.id
    assert read.get_type() == event.type
    assert read.get_subject() == event.stream
    assert read.get_time() == event.time
    assert read.get_data() == event.data
    assert read.get_extension("tenant") == event.tenant
    written = to_structured_event(read, JSONFormat())
    assert from_cloudevent(json.loads(written.body)) == event


def sample(**changes) -> Event:
    base = {
        "id": "e1",
        "type": "user.created",
        "tenant": "acme",
        "stream": "user:1",
        "version": 1,
        "position": 7,
        "time": datetime(2026, 1, 2, tzinfo=timezone(timedelta(hours=2))),
        "data": {"count": 0, "flag": False, "text": ""},
        "metadata": {"correlation_id": "work-0001"},
        "prev_hash": GENESIS_HASH,
        "hash": "b" * 64,
    }
    return Event(**{**base, **changes})


def test_times_leave_in_utc_and_falsy_data_is_kept():
    document = to_cloudevent(sample())
    assert document["time"] == "2026-01-01T22:00:00Z"
    assert document["data"] == {"count": 0, "flag": False, "text": ""}
    assert document["correlationid"] == "work-0001"
    view = sample().view()
    assert view.data == {"count": 0, "flag": False, "text": ""}
    assert view.correlation_id == "work-0001"


@pytest.mark.parametrize("member", ["specversion", "id", "type", "tenant", "subject", "sequence", "time", "data"])
def test_a_document_without_a_member_is_refused_by_name(member):
    document = to_cloudevent(sample())
    del document[member]
    with pytest.raises(ValidationFailed, match="not an event") as caught:
        from_cloudevent(document)
    assert member in str(caught.value.found)


@pytest.mark.parametrize(
    "change", [{"specversion": "0.3"}, {"sequence": "x"}, {"time": "yesterday"}, {"data": 3}, {"metadata": "{"}]
)
def test_a_document_with_nonsense_is_refused(change):
    with pytest.raises(ValidationFailed):
        from_cloudevent({**to_cloudevent(sample()), **change})


def digest(prev=GENESIS_HASH, tenant="acme", stream="s", version=1, id="e", type="t.t", data=b"{}", metadata=b"{}"):
    return event_hash(prev, tenant, stream, version, id, type, data, metadata)


@pytest.mark.parametrize(
    "change",
    [
        {"prev": "1" * 64},
        {"tenant": "globex"},
        {"stream": "r"},
        {"version": 2},
        {"id": "f"},
        {"type": "t.u"},
        {"data": b'{"a":0}'},
        {"metadata": b'{"a":0}'},
    ],
)
def test_the_hash_covers_every_member_and_the_event_before(change):
    assert digest() == digest()
    assert digest(**change) != digest()


@given(st.dictionaries(st.text("abc", max_size=3), plain, max_size=5))
def test_canonical_json_does_not_depend_on_the_order_of_keys(value):
    turned = dict(reversed(list(value.items())))
    assert canonical_json(value) == canonical_json(turned)
    assert json.loads(canonical_json(value)) == value


@pytest.mark.parametrize("value", [{"n": 2**64}, {"t": "\ud800"}, {"o": object()}, {1: 2}, {"s": {1, 2}}])
def test_what_is_not_json_everywhere_is_refused_in_words(value):
    with pytest.raises(ValidationFailed):
        canonical_json(value)


@pytest.mark.parametrize(
    ("pattern", "type_", "taken"),
    [
        ("*", "user.created", True),
        ("user.*", "user.created", True),
        ("user.*", "user.profile.changed", True),
        ("user.*", "users.created", False),
        ("user.*", "user", False),
        ("user.created", "user.created", True),
        ("user.created", "user.created_again", False),
    ],
)
def test_a_subscription_takes_what_its_pattern_says(pattern, type_, taken):
    assert matches(pattern, type_) is taken


# ---------------------------------------------------------------------------- schemas


def schema(required=(), **properties):
    return {"type": "object", "required": list(required), "properties": properties}


TEXT, NUMBER = {"type": "string"}, {"type": "integer"}
OLD = schema(["user"], user=TEXT, tags={"type": "array", "items": TEXT})


@pytest.mark.parametrize(
    ("new", "told"),
    [
        (schema(["user"], user=TEXT, tags={"type": "array", "items": TEXT}, note=TEXT), None),
        ({**OLD, "title": "Now with a title"}, None),
        (schema(["user"], user=TEXT), "data.tags is gone"),
        (schema(["user"], user=NUMBER, tags={"type": "array", "items": TEXT}), "data.user was string, is integer"),
        (schema(["user", "tags"], user=TEXT, tags={"type": "array", "items": TEXT}), "data.tags became required"),
        (schema([], user=TEXT, tags={"type": "array", "items": TEXT}), "data.user is no longer certain"),
        (schema(["user"], user=TEXT, tags={"type": "array", "items": NUMBER}), "data.tags[] was string"),
        (schema(["user"], user=TEXT, tags={"type": "array"}), "data.tags[] has another rule"),
        (schema(["user"], user={**TEXT, "maxLength": 3}, tags={"type": "array", "items": TEXT}), "rule maxLength"),
        (schema(["user"], user={**TEXT, "enum": ["a"]}, tags={"type": "array", "items": TEXT}), "rule enum"),
        ({**OLD, "additionalProperties": False}, "rule additionalProperties"),
    ],
)
def test_a_schema_may_grow_and_not_break_its_readers(new, told):
    problems = breaking_changes(OLD, new)
    if told is None:
        assert problems == []
    else:
        assert any(told in problem for problem in problems), problems


def test_a_closed_schema_takes_no_new_field():
    closed = {**OLD, "additionalProperties": False}
    grown = {**closed, "properties": {**closed["properties"], "note": TEXT}}
    assert breaking_changes(closed, grown) == ["data.note is new to readers who refuse it"]


kinds = st.sampled_from(
    [TEXT, NUMBER, {"type": "boolean"}, {**TEXT, "maxLength": 2}, {"type": "string", "enum": ["a"]}]
)
schemas = st.dictionaries(st.sampled_from("abc"), kinds, max_size=3).flatmap(
    lambda props: st.builds(
        lambda required: schema(required, **props), st.lists(st.sampled_from(sorted(props) or ["a"]), unique=True)
    )
)
data = st.dictionaries(st.sampled_from("abc"), st.sampled_from(["a", "abc", 1, True]), max_size=3)


@given(schemas, schemas, data)
def test_what_passes_the_old_schema_passes_a_compatible_new_one_and_back(old, new, value):
    if breaking_changes(old, new):
        return
    known = {k: v for k, v in value.items() if k in old["properties"]}
    assert Draft202012Validator(old).is_valid(known) == Draft202012Validator(new).is_valid(known)


@given(schemas)
def test_every_schema_is_compatible_with_itself(found):
    assert breaking_changes(found, found) == []


def lead(schema_, owner="acme/scorer") -> EventType:
    return EventType("lead.scored", owner, "A lead was scored.", schema_)


def test_a_type_grows_and_keeps_its_newest_schema_when_an_older_one_comes_again():
    first, grown = schema(["user"], user=TEXT), schema(["user"], user=TEXT, score=NUMBER)
    types = EventTypes([lead(first), lead(grown)])
    types.register(lead(first))
    assert types.get("lead.scored").schema == grown


def test_a_breaking_schema_is_refused_and_the_present_one_stays():
    types = EventTypes([lead(OLD)])
    with pytest.raises(SchemaIncompatible, match=r"data\.user was string"):
        types.register(lead(schema(["user"], user=NUMBER, tags={"type": "array", "items": TEXT})))
    assert types.get("lead.scored").schema == OLD


def test_nobody_takes_another_plugins_type_over():
    types = EventTypes([lead(OLD)])
    with pytest.raises(SchemaIncompatible, match="belongs to acme/scorer"):
        types.register(lead(OLD, owner="evil/scorer"))
    assert [t.owner for t in types.all()] == ["acme/scorer"]
