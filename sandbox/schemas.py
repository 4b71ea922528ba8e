"""Schemas of events, which strangers write and we evaluate: JSON Schema without its explosives.

Validation runs in the host, where no epoch interrupts. jsonschema-rs matches patterns in linear time
and fetches nothing, so what is left to refuse are references (a chain of them doubles the work with
every link) and nesting without end.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from jsonschema_rs import Draft202012Validator, RegexOptions

from sandbox.errors import SandboxError

_REFUSED = frozenset({"$ref", "$dynamicRef", "$recursiveRef"})
_NAMES = frozenset({"properties", "patternProperties", "$defs", "definitions", "dependentSchemas"})
_DATA = frozenset({"enum", "const", "default", "examples"})
_MAX_DEPTH = 32


class EventSchemaRefused(SandboxError):
    """A declared event's schema is not one that the host evaluates."""

    code, status, title = "event-schema", 422, "An event's schema cannot be used"


def check_event_schema(event_type: str, schema: Mapping[str, Any], plugin: str | None = None) -> None:
    """Raise EventSchemaRefused if the schema is malformed or could run away."""
    found = _refused(schema, 0)
    if found is None:
        try:
            _validator(schema)
            return
        except ValueError as error:
            found = str(error).splitlines()[0][:300]
    raise EventSchemaRefused(
        f"The schema of the event {event_type} cannot be used.",
        plugin=plugin,
        expected=f"JSON Schema 2020-12 without references, at most {_MAX_DEPTH} deep",
        found=found,
        fix="Write out what is referred to; patterns are regular expressions without look-around.",
    )


def _validator(schema: Mapping[str, Any]) -> Draft202012Validator:
    return Draft202012Validator(dict(schema), offline=True, pattern_options=RegexOptions())


def _refused(schema: object, depth: int, names: bool = False) -> str | None:
    if depth > _MAX_DEPTH:
        return f"nested deeper than {_MAX_DEPTH}"
    if isinstance(schema, Mapping):
        for key, inner in schema.items():
            if not names and key in _REFUSED:
                return f"the keyword {key}"
            if not names and key in _DATA:
                continue
            found = _refused(inner, depth + 1, names=not names and key in _NAMES)
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
        found = next(iter(_validator(schema).iter_errors(data)), None)
    except ValueError as error:
        return f"data: {error}"
    if found is None:
        return None
    at = "data" + "".join(f"[{p}]" if isinstance(p, int) else f".{p}" for p in found.instance_path)
    return f"{at}: {found.message[:300]}"
