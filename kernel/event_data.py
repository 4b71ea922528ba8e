"""Checks events' data against the registered types, with one compiled validator per schema."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from kernel.errors import ValidationFailed
from kernel.events import EventType, EventTypes, NewEvent

if TYPE_CHECKING:
    from jsonschema.protocols import Validator


class EventData:
    """Says whether an event may be stored: its type is registered and its data fits the type's schema."""

    def __init__(self, types: EventTypes) -> None:
        self._types = types
        self._validators: dict[str, tuple[EventType, Validator]] = {}

    def check(self, stream: str, events: Sequence[NewEvent]) -> None:
        """Raises ValidationFailed, naming the type and the place in the data."""
        for event in events:
            kind = self._types.get(event.type)
            if kind is None:
                raise ValidationFailed(
                    f"Event type {event.type} is not registered.",
                    expected="a type that an installed plugin declares",
                    found=event.type,
                    fix="Declare it in contribute_event_types, or in the manifest's events.emits.",
                )
            validator = self._validator(kind)
            error = next(validator.iter_errors(dict(event.data)), None)
            if error is not None:
                raise ValidationFailed(
                    f"An event of type {event.type} for stream {stream} does not fit the type's schema.",
                    plugin=kind.owner,
                    expected=f"{error.json_path}: {error.validator} {error.validator_value!r}",
                    found=error.message,
                )

    def _validator(self, kind: EventType) -> Validator:
        cached = self._validators.get(kind.name)
        if cached is not None and cached[0] is kind:
            return cached[1]
        from jsonschema import Draft202012Validator

        made = Draft202012Validator(dict(kind.schema))
        self._validators[kind.name] = (kind, made)
        return made
