"""Events: the envelope, the type registry and the rules by which a type's schema may grow.

On the outside an event is a CloudEvents 1.0 structured JSON document
(https://github.com/cloudevents/spec/blob/v1.0.2/cloudevents/formats/json-format.md).
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

import orjson

from kernel.context import new_id
from kernel.errors import SchemaIncompatible, ValidationFailed
from kernel.payloads import EventView
from kernel.plain import check_plain

GENESIS_HASH = "0" * 64
"""``prev_hash`` of the first event of a stream."""


@dataclass(frozen=True, slots=True)
class NewEvent:
    """An event about to be appended. ``metadata`` is filled by the unit of work."""

    type: str
    data: Mapping[str, Any]
    id: str = field(default_factory=new_id)
    metadata: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Event:
    """A committed event.

    ``position`` is its global order, ``version`` its order in ``(tenant, stream)`` from 1. ``hash``
    is SHA-256 over the canonical content and ``prev_hash``, the hash of the stream's event before.
    """

    id: str
    type: str
    tenant: str
    stream: str
    version: int
    position: int
    time: datetime
    data: Mapping[str, Any]
    metadata: Mapping[str, Any]
    prev_hash: str
    hash: str

    @property
    def sequence(self) -> str:
        """The key of ordering: tenant and stream."""
        return f"{self.tenant}/{self.stream}"

    @property
    def correlation_id(self) -> str:
        """Correlation id of the work that made the event; empty if unknown."""
        return str(self.metadata.get("correlation_id", ""))

    @property
    def hops(self) -> int:
        """Distance from the event that began the chain it is a consequence of (``kernel.causation``)."""
        found = self.metadata.get("hops", 0)
        return found if isinstance(found, int) else 0

    def view(self) -> EventView:
        """The event as hooks' observers get it."""
        return EventView(
            id=self.id,
            type=self.type,
            tenant=self.tenant,
            stream=self.stream,
            version=self.version,
            position=self.position,
            time=self.time.isoformat(),
            data=dict(self.data),
            correlation_id=self.correlation_id,
        )


def canonical_json(value: object) -> bytes:
    """JSON bytes that are equal for equal values: sorted keys, no spaces, UTF-8.

    Raises ValidationFailed for what is not JSON everywhere (see ``kernel.plain``).
    """
    try:
        return orjson.dumps(value, option=orjson.OPT_SORT_KEYS)
    except TypeError as error:
        check_plain(value, "A value")
        raise ValidationFailed(f"A value can't be kept as JSON: {error}.", found=type(value).__name__) from error


def event_hash(
    prev_hash: str, tenant: str, stream: str, version: int, id: str, type: str, data: bytes, metadata: bytes
) -> str:
    """The chain hash of one event; ``data`` and ``metadata`` are canonical JSON bytes."""
    head = f"{prev_hash}\n{tenant}\n{stream}\n{version}\n{id}\n{type}\n".encode()
    return hashlib.sha256(head + data + b"\n" + metadata).hexdigest()


def to_cloudevent(event: Event, source: str = "keelstone") -> dict[str, Any]:
    """The event as a CloudEvents 1.0 structured document (JSON-ready)."""
    return {
        "specversion": "1.0",
        "id": event.id,
        "source": f"/{source}/tenants/{event.tenant}",
        "type": event.type,
        "subject": event.stream,
        "time": event.time.astimezone(UTC).isoformat().replace("+00:00", "Z"),
        "datacontenttype": "application/json",
        "tenant": event.tenant,
        "sequence": f"{event.version:020d}",
        "position": str(event.position),
        "prevhash": event.prev_hash,
        "hash": event.hash,
        "correlationid": event.correlation_id,
        "metadata": orjson.dumps(dict(event.metadata)).decode(),
        "data": dict(event.data),
    }


def from_cloudevent(document: Mapping[str, Any]) -> Event:
    """The event in a document made by :func:`to_cloudevent`. Raises ValidationFailed."""
    try:
        if document["specversion"] != "1.0":
            raise ValueError(f"specversion {document['specversion']!r}")
        return Event(
            id=str(document["id"]),
            type=str(document["type"]),
            tenant=str(document["tenant"]),
            stream=str(document["subject"]),
            version=int(document["sequence"]),
            position=int(document["position"]),
            time=datetime.fromisoformat(str(document["time"])),
            data=dict(document["data"]),
            metadata=dict(orjson.loads(document["metadata"])),
            prev_hash=str(document["prevhash"]),
            hash=str(document["hash"]),
        )
    except (KeyError, ValueError, TypeError) as error:
        raise ValidationFailed(
            "A bus message is not an event of this platform.",
            expected="a CloudEvents 1.0 document with Keelstone's extensions",
            found=f"{type(error).__name__}: {error}",
        ) from error


@dataclass(frozen=True, slots=True)
class EventType:
    """A registered type: who owns it, what its data looks like."""

    name: str
    owner: str
    summary: str
    schema: Mapping[str, Any] = field(default_factory=lambda: {"type": "object"})


class EventTypes:
    """The registry of event types. Registering a type again must not break its readers."""

    def __init__(self, types: Iterable[EventType] = ()) -> None:
        self._types: dict[str, EventType] = {}
        for item in types:
            self.register(item)

    def register(self, *items: EventType) -> None:
        """Add or grow types, all or none. Raises SchemaIncompatible (other owner, or a breaking change).

        A schema that the present one has grown from is taken too and changes nothing: several
        versions of a plugin may run side by side, and an older one may come back by a rollback.
        """
        grown = [item for item in items if self._grows(item)]
        self._types.update((item.name, item) for item in grown)

    def _grows(self, item: EventType) -> bool:
        present = self._types.get(item.name)
        if present is not None:
            if present.owner != item.owner:
                raise SchemaIncompatible(
                    f"Event type {item.name} belongs to {present.owner}.",
                    plugin=item.owner,
                    fix="Emit a type of your own.",
                )
            if present.schema == item.schema:
                return False
            broken = breaking_changes(present.schema, item.schema)
            if broken and not breaking_changes(item.schema, present.schema):
                return False
            if broken:
                raise SchemaIncompatible(
                    f"The new schema of {item.name} would break its readers: {'; '.join(broken)}.",
                    plugin=item.owner,
                    fix="Add optional fields instead, or declare a new event type.",
                )
        return True

    def get(self, name: str) -> EventType | None:
        """The type of that name, or None."""
        return self._types.get(name)

    def all(self) -> list[EventType]:
        """Every registered type, by name."""
        return [self._types[n] for n in sorted(self._types)]


_NOTES = frozenset({"title", "description", "examples", "default", "$comment", "deprecated"})
_COMPARED = frozenset({"properties", "required", "items", "type"})


def breaking_changes(old: Mapping[str, Any], new: Mapping[str, Any], at: str = "data") -> list[str]:
    """What of ``new`` would break somebody who reads by ``old`` (both JSON Schemas of objects).

    Backward and forward: fields may be added if optional and if ``old`` lets other fields pass; a
    field may not vanish, change its type or any other rule, become required, or stop being required.
    """
    if old.get("type") != new.get("type"):
        return [f"{at} was {old.get('type')}, is {new.get('type')}"]
    rules = (old.keys() | new.keys()) - _NOTES - _COMPARED
    problems = [f"{at} has another rule {name}" for name in sorted(rules) if old.get(name) != new.get(name)]
    before: Mapping[str, Any] = old.get("properties", {})
    after: Mapping[str, Any] = new.get("properties", {})
    problems += [f"{at}.{name} is gone" for name in sorted(before.keys() - after.keys())]
    if old.get("additionalProperties", True) is False:
        problems += [f"{at}.{name} is new to readers who refuse it" for name in sorted(after.keys() - before.keys())]
    for name in sorted(before.keys() & after.keys()):
        problems += breaking_changes(before[name], after[name], f"{at}.{name}")
    was, now = set(old.get("required", ())), set(new.get("required", ()))
    problems += [f"{at}.{name} became required" for name in sorted(now - was)]
    problems += [f"{at}.{name} is no longer certain" for name in sorted(was - now)]
    if ("items" in old) != ("items" in new):
        problems.append(f"{at}[] has another rule")
    elif "items" in old:
        problems += breaking_changes(old["items"], new["items"], f"{at}[]")
    return problems


def matches(pattern: str, event_type: str) -> bool:
    """Whether a subscription such as ``user.created``, ``user.*`` or ``*`` takes the type in."""
    if pattern == "*":
        return True
    if pattern.endswith(".*"):
        return event_type.startswith(pattern[:-1])
    return pattern == event_type
