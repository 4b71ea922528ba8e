"""Events' data against their types."""

from __future__ import annotations

import pytest

from kernel.errors import ConfigurationError, ValidationFailed
from kernel.event_data import EventData
from kernel.events import EventType, EventTypes, NewEvent

SCHEMA = {
    "type": "object",
    "properties": {"score": {"type": "integer", "minimum": 0}, "tags": {"type": "array", "items": {"type": "string"}}},
    "required": ["score"],
}


def checker(schema: object = SCHEMA) -> EventData:
    return EventData(EventTypes([EventType("lead.scored", "acme/scorer", "A lead got a score.", schema)]))  # type: ignore[arg-type]


def test_fitting_data_passes() -> None:
    checker().check("lead/1", [NewEvent("lead.scored", {"score": 0, "tags": ["new"], "more": None})])


@pytest.mark.parametrize(
    ("data", "place"),
    [
        ({}, "data"),
        ({"score": -1}, "data/score"),
        ({"score": 1, "tags": ["a", 2]}, "data/tags/1"),
        ({"score": True}, ""),
    ],
)
def test_wrong_data_is_refused_with_its_place_and_owner(data: dict[str, object], place: str) -> None:
    with pytest.raises(ValidationFailed) as caught:
        checker().check("lead/1", [NewEvent("lead.scored", {"score": 1}), NewEvent("lead.scored", data)])
    assert caught.value.plugin == "acme/scorer"
    assert str(caught.value.found).startswith(place)


def test_an_unknown_type_is_refused() -> None:
    with pytest.raises(ValidationFailed, match=r"lead\.lost is not registered"):
        checker().check("lead/1", [NewEvent("lead.lost", {})])


def test_a_type_that_grew_is_checked_by_its_new_schema() -> None:
    types = EventTypes([EventType("a.b", "x", "", {"type": "object"})])
    data = EventData(types)
    data.check("s", [NewEvent("a.b", {"n": "text"})])
    types.register(EventType("a.b", "x", "", {"type": "object", "properties": {"n": {"type": "integer"}}}))
    with pytest.raises(ValidationFailed):
        data.check("s", [NewEvent("a.b", {"n": "text"})])


@pytest.mark.parametrize(
    "schema",
    [
        {"type": "nonsense"},
        {"$ref": "http://127.0.0.1:1/schema.json"},
        {"$ref": "file:///etc/passwd"},
        {"properties": {"a": {"pattern": "(a+)+\\1"}}},
    ],
)
def test_a_schema_that_is_none_or_reaches_out_is_refused(schema: dict[str, object]) -> None:
    with pytest.raises(ConfigurationError, match=r"lead\.scored"):
        checker(schema).check("s", [NewEvent("lead.scored", {"a": "aaaa"})])


def test_no_pattern_of_a_stranger_can_hang_the_platform() -> None:
    data = checker({"properties": {"a": {"type": "string", "pattern": "^(a+)+$"}}})
    with pytest.raises(ValidationFailed):
        data.check("s", [NewEvent("lead.scored", {"a": "a" * 5_000 + "!"})])
