"""What all payloads have in common. They are plain dataclasses: a guest carries no pydantic."""

from __future__ import annotations

import dataclasses
from typing import Any, TypeVar

P = TypeVar("P", bound="Payload")

UNCHANGED: Any = object()
"""Stands for a member that ``replace`` is not told to change."""


class Payload:
    """Base of payloads: frozen values."""

    @classmethod
    def from_json(cls: type[P], data: dict[str, Any]) -> P:
        """The payload in decoded JSON. Members that this library does not know yet are left out."""
        known = cls.__dataclass_fields__  # type: ignore[attr-defined]
        return cls(**{name: value for name, value in data.items() if name in known})

    def to_json(self) -> dict[str, Any]:
        """The payload as data for JSON. Its members are the payload's own, not copies."""
        return dict(vars(self))

    def _changed(self: P, **members: Any) -> P:
        changes = {name: value for name, value in members.items() if value is not UNCHANGED}
        return dataclasses.replace(self, **changes)  # type: ignore[type-var]
