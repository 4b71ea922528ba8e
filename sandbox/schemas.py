"""Schemas of events, which strangers write and we evaluate: JSON Schema without its explosives.

Regular expressions, references and comparisons of everything with everything are refused: a
pattern can backtrack and a chain of references can double for longer than any deadline, and all of
it would run in the host, where no epoch interrupts. What is left takes time in proportion to schema and data.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from jsonschema import Draft202012Validator
from jsonschema.exceptions import SchemaError, best_match

from sandbox.errors import SandboxError

_REFUSED = (
    "pattern",
    "patternProperties",
    "$ref",
    "$dynamicRef",
    "uniqueItems",
    "unevaluatedItems",
    "unevaluatedProperties",
)
_NESTED = ("properties", "$defs", "definitions", "dependentSchemas")
_MAX_DEPTH = 32


class EventSchemaRefused(SandboxError):
    """A declared event's schema is not one that the host evaluates."""

    code, status, title = "event-schema", 422, "An event's schema cannot be used"


def check_event_schema(event_type: str, schema: Mapping[str, Any], plugin: str | None = None) -> None:
    """Raise EventSchemaRefused if the schema is malformed or could run away."""
    try:
        found = _refused(schema, 0)
        if found is None:
            Draft202012Validator.check_schema(dict(schema))
            return
    except SchemaError as error:
        found = f"{error.message}"
    raise EventSchemaRefused(
        f"The schema of the event {event_type} cannot be used.",
        plugin=plugin,
        expected=f"JSON Schema 2020-12 without {', '.join(_REFUSED)}, at most {_MAX_DEPTH} deep",
        found=found,
        fix="Write the constraint out, e.g. with enum, minLength, maxLength, minimum.",
    )


def _refused(schema: object, depth: int, names: bool = False) -> str | None:
    if depth > _MAX_DEPTH:
        return f"deeper than {_MAX_DEPTH}"
    if isinstance(schema, Mapping):
        for key, inner in schema.items():
            if not names and key in _REFUSED:
                return f"the keyword {key}"
            if not names and key in ("enum", "const", "default", "examples"):
                continue
            found = _refused(inner, depth + 1, names=not names and key in _NESTED)
            if found:
                return found
    elif isinstance(schema, list):
        for inner in schema:
            found = _refused(inner, depth + 1)
            if found:
                return found
    return None


def problem_with(data: object, schema: Mapping[str, Any]) -> str | None:
    """Why ``data`` does not fit the (checked) schema, in one line; None if it does."""
    try:
        found = best_match(Draft202012Validator(dict(schema)).iter_errors(data))
    except RecursionError:
        return "data: nested too deeply"
    if found is None:
        return None
    at = "data" + "".join(f"[{p}]" if isinstance(p, int) else f".{p}" for p in found.absolute_path)
    return f"{at}: {found.message[:300]}"
