"""What a mirrored call came to, beside the call that was answered: same or different, and in which fields."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import orjson

from plugin_sdk import KeelstoneError
from plugin_sdk.services import GuestCall, GuestResult
from plugins.builtin.catalog.upgrades.figures import Arm

Result = GuestResult | KeelstoneError
MOST_EXAMPLES = 10
MOST_FIELDS = 20
_PLAIN_KEY = re.compile(r"[a-z][a-z0-9_.:/-]{0,60}")
_EGRESS = ("http.", "secrets.", "ai.", "notify.")


@dataclass(frozen=True, slots=True)
class Difference:
    """One field in which the versions disagree; values are masked down to their kind."""

    field: str
    old: str
    new: str


@dataclass(frozen=True, slots=True)
class Comparison:
    """One mirrored call: what came out differently, and what only the new version reached for."""

    differences: tuple[Difference, ...]
    reached: tuple[str, ...]


def compare(call: GuestCall, old: Result, new: Result) -> Comparison:
    """Outputs, effects and what was reached for, of the same call in two versions."""
    reached = tuple(sorted(_egress(new) - _egress(old)))
    if isinstance(old, GuestResult) and isinstance(new, GuestResult):
        differences = [*_outputs(call, old.output, new.output), *_effects(old, new)]
        return Comparison(tuple(differences[:MOST_FIELDS]), reached)
    ends = [f"failed: {r.code}" if isinstance(r, KeelstoneError) else "answered" for r in (old, new)]
    found = (Difference("result", ends[0], ends[1]),) if ends[0] != ends[1] else ()
    return Comparison(found, reached)


def _outputs(call: GuestCall, old: str, new: str) -> list[Difference]:
    before, after = (_effective(call, text) for text in (old, new))
    return _walk("answer", before, after)


def _effective(call: GuestCall, output: str) -> Any:
    """The reply as it counts: nulls left out, and an unchanged payload is no change."""
    try:
        reply = orjson.loads(output)
    except ValueError:
        return {"unreadable": output}
    if not isinstance(reply, dict):
        return reply
    kept = {name: value for name, value in reply.items() if value is not None}
    if "payload" in kept:
        asked = orjson.loads(call.payload)
        if isinstance(asked, dict) and isinstance(kept["payload"], dict):
            changed = {k: v for k, v in kept["payload"].items() if asked.get(k) != v}
            kept = {k: v for k, v in kept.items() if k != "payload"} | ({"payload": changed} if changed else {})
    return kept


def _effects(old: GuestResult, new: GuestResult) -> list[Difference]:
    found = _walk("kv", _named(old.effects.kv_writes), _named(new.effects.kv_writes))
    before = [{"type": e.type, "data": dict(e.data)} for e in old.effects.events]
    after = [{"type": e.type, "data": dict(e.data)} for e in new.effects.events]
    return found + _walk("events", before, after)


def _named(writes: Mapping[str, str | None]) -> dict[str, str | None]:
    """Keys as they may be told: one that looks like personal data is masked down to its size."""
    return {k if _PLAIN_KEY.fullmatch(k) else f"a key of {len(k)} characters": v for k, v in writes.items()}


def _walk(at: str, old: Any, new: Any) -> list[Difference]:
    if isinstance(old, dict) and isinstance(new, dict):
        return [d for k in sorted(old.keys() | new.keys()) for d in _walk(f"{at}.{k}", *_pair(old, new, k))]
    if isinstance(old, list) and isinstance(new, list) and len(old) == len(new):
        return [d for i, (a, b) in enumerate(zip(old, new, strict=True)) for d in _walk(f"{at}[{i}]", a, b)]
    return [] if old == new and type(old) is type(new) else [Difference(at, kind(old), kind(new))]


class _Absent:
    """Stands for a field that is not there."""


def _pair(old: Mapping[str, Any], new: Mapping[str, Any], key: str) -> tuple[Any, Any]:
    return old.get(key, _Absent), new.get(key, _Absent)


def kind(value: Any) -> str:
    """What may be told of a value: its kind and size, never what it says."""
    if value is _Absent:
        return "absent"
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "yes or no"
    if isinstance(value, (int, float)):
        return "a number"
    if isinstance(value, str):
        return f"text of {len(value)} characters"
    return f"{'a list' if isinstance(value, list) else 'an object'} of {len(value)}"


def _egress(result: Result) -> set[str]:
    usage = getattr(result, "usage", None)
    return {name for name in (usage.uses if usage is not None else ()) if name.startswith(_EGRESS)}


def micros_of(result: Result) -> int | None:
    """How long a call ran, in microseconds; None if it never did."""
    usage = getattr(result, "usage", None)
    return None if usage is None else int(usage.wall_us)


@dataclass(slots=True)
class Report:
    """The sums of a tenant's mirrored calls; those of several processes add up."""

    same: int = 0
    different: int = 0
    skipped: int = 0
    old: Arm = field(default_factory=Arm)
    new: Arm = field(default_factory=Arm)
    reached: Counter[str] = field(default_factory=Counter)
    fields: Counter[str] = field(default_factory=Counter)
    examples: list[dict[str, Any]] = field(default_factory=list)

    def note(self, call: GuestCall, old: Result, new: Result) -> None:
        """Add one mirrored call."""
        found = compare(call, old, new)
        self.old.note(micros_of(old), isinstance(old, KeelstoneError))
        self.new.note(micros_of(new), isinstance(new, KeelstoneError))
        self.reached.update(found.reached)
        if not found.differences:
            self.same += 1
            return
        self.different += 1
        self.fields.update(d.field for d in found.differences)
        if len(self.examples) < MOST_EXAMPLES:
            self.examples.append(
                {
                    "hook": call.hook,
                    "correlation_id": call.context.correlation_id,
                    "fields": [{"field": d.field, "old": d.old, "new": d.new} for d in found.differences],
                }
            )

    def plain(self) -> dict[str, Any]:
        """JSON-ready."""
        return {
            "same": self.same,
            "different": self.different,
            "skipped": self.skipped,
            "old": self.old.plain(),
            "new": self.new.plain(),
            "reached": dict(self.reached.most_common(50)),
            "fields": dict(self.fields.most_common(50)),
            "examples": self.examples,
        }

    @staticmethod
    def of(data: Mapping[str, Any]) -> Report:
        """What :meth:`plain` gave."""
        numbers = {name: int(data.get(name, 0)) for name in ("same", "different", "skipped")}
        return Report(
            **numbers,
            old=Arm.of(data.get("old", {})),
            new=Arm.of(data.get("new", {})),
            reached=Counter(data.get("reached", {})),
            fields=Counter(data.get("fields", {})),
            examples=list(data.get("examples", ())),
        )

    def __add__(self, other: Report) -> Report:
        return Report(
            self.same + other.same,
            self.different + other.different,
            self.skipped + other.skipped,
            self.old + other.old,
            self.new + other.new,
            self.reached + other.reached,
            self.fields + other.fields,
            [*self.examples, *other.examples][:MOST_EXAMPLES],
        )
