"""The hooks' payloads as plain data, from which every language's own types are generated.

The source is kernel/payloads.py, read at build time: a field that the platform does not have is then
unknown to the author's compiler. A payload of a shape that no generator knows stops the build of
Keelstone's own tests (``payload_types`` raises), not an author's.
"""

from __future__ import annotations

import ast
import inspect
import textwrap
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache
from itertools import pairwise
from typing import Any, Literal, get_args, get_origin

from pydantic import BaseModel

from kernel.hookspecs import HOOKS

FieldKind = Literal["text", "integer", "number", "flag", "texts", "object"]
AnswerKind = Literal["filter", "decide", "observe"]

_SIMPLE: dict[Any, FieldKind] = {str: "text", int: "integer", float: "number", bool: "flag"}


@dataclass(frozen=True, slots=True)
class PayloadField:
    """One field. ``default`` is what it is when left out, None where it never is."""

    name: str
    kind: FieldKind
    default: Any
    summary: str


@dataclass(frozen=True, slots=True)
class PayloadType:
    """One payload. ``changeable`` says whether a filter may hand it back."""

    name: str
    summary: str
    fields: tuple[PayloadField, ...]
    changeable: bool

    @property
    def snake(self) -> str:
        """The name in snake_case: ``user_draft``."""
        return "".join(f"_{c.lower()}" if c.isupper() else c for c in self.name).lstrip("_")


@dataclass(frozen=True, slots=True)
class GuestHook:
    """One hook that guests may implement: its payload's name, and which kind of answer it wants."""

    name: str
    payload: str
    answer: AnswerKind
    summary: str


@cache
def guest_hooks() -> tuple[GuestHook, ...]:
    """Every hook that guests may implement, in the order of kernel/hookspecs.py."""
    return tuple(
        GuestHook(spec.name, spec.payload.__name__, spec.kind, spec.summary)
        for spec in HOOKS.values()
        if spec.payload is not None and spec.kind != "contribute"
    )


@cache
def payload_types() -> tuple[PayloadType, ...]:
    """Every payload of those hooks. Raises TypeError on a field that no language could be given."""
    found: dict[str, PayloadType] = {}
    filtered = {hook.payload for hook in guest_hooks() if hook.answer == "filter"}
    for spec in HOOKS.values():
        if spec.payload is not None and spec.payload.__name__ not in found:
            found[spec.payload.__name__] = _described(spec.payload, spec.payload.__name__ in filtered)
    return tuple(found.values())


def hooks_named(names: Iterable[str]) -> list[GuestHook]:
    """The hooks of a manifest, in a stable order."""
    wanted = set(names)
    return [hook for hook in guest_hooks() if hook.name in wanted]


def _described(model: type[BaseModel], changeable: bool) -> PayloadType:
    summaries = _field_docs(model)
    fields = tuple(
        PayloadField(
            name,
            _kind(model, name, field.annotation),
            None if field.is_required() else field.get_default(call_default_factory=True, validated_data={}),
            summaries.get(name, ""),
        )
        for name, field in model.model_fields.items()
    )
    return PayloadType(model.__name__, (inspect.getdoc(model) or "").partition("\n")[0], fields, changeable)


def _kind(model: type[BaseModel], name: str, annotation: Any) -> FieldKind:
    if annotation in _SIMPLE:
        return _SIMPLE[annotation]
    origin = get_origin(annotation)
    if origin is dict:
        return "object"
    if origin in (tuple, list) and get_args(annotation)[0] is str:
        return "texts"
    raise TypeError(f"{model.__name__}.{name}: no language's generator knows {annotation!r}")


def _field_docs(model: type[BaseModel]) -> dict[str, str]:
    """The docstrings that follow the fields."""
    tree = ast.parse(textwrap.dedent(inspect.getsource(model)))
    body = tree.body[0].body if isinstance(tree.body[0], ast.ClassDef) else []
    docs = {}
    for before, after in pairwise(body):
        if isinstance(before, ast.AnnAssign) and isinstance(before.target, ast.Name) and isinstance(after, ast.Expr):
            value = after.value
            if isinstance(value, ast.Constant) and isinstance(value.value, str):
                docs[before.target.id] = " ".join(value.value.split())
    return docs
