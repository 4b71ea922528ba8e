"""Schemas of events, which strangers write and the host evaluates, and data that strangers emit."""

from __future__ import annotations

import orjson

from kernel.errors import KeelstoneError
from kernel.events import EventType, EventTypes, breaking_changes
from sandbox.schemas import check_event_schema, problem_with
from tests.fuzz.feed import told


def TestOneInput(data: bytes) -> None:
    """Up to three JSON texts, between NULs: a schema, data for it, and another schema of the same type."""
    parts = data.split(b"\0", 2)
    try:
        found = [orjson.loads(part) for part in parts]
    except orjson.JSONDecodeError:
        return
    schema, content, other = (*found, {}, {})[:3]
    if not isinstance(schema, dict) or not isinstance(other, dict):
        return
    try:
        check_event_schema("acme.done", schema)
    except KeelstoneError as error:
        told(error)
        return
    problem = problem_with(content, schema)
    assert problem is None or isinstance(problem, str)
    try:
        check_event_schema("acme.done", other)
        types = EventTypes([EventType("acme.done", "acme/a", "Done.", schema)])
        types.register(EventType("acme.done", "acme/a", "Done.", other))
    except KeelstoneError as error:
        told(error)
    assert breaking_changes(schema, schema) == []
