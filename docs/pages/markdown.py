"""Small pieces of Markdown: tables, JSON Schemas as tables, texts of docstrings."""

from __future__ import annotations

import ast
import inspect
import json
import textwrap
from collections.abc import Iterable, Mapping, Sequence
from itertools import pairwise
from typing import Any

NOTE = "<!-- Generated from the code by `make docs`. Change the code, not this page. -->"
_BOUNDS = {
    "minimum": "at least {}",
    "exclusiveMinimum": "more than {}",
    "maximum": "at most {}",
    "minLength": "at least {} characters",
    "maxLength": "at most {} characters",
    "minItems": "at least {} items",
    "maxItems": "at most {} items",
    "pattern": "matches `{}`",
}


def page(title: str, introduction: str, *parts: str) -> str:
    """A whole page."""
    return "\n\n".join([f"# {title}", NOTE, paragraph(introduction), *parts]).rstrip() + "\n"


def paragraph(text: str) -> str:
    """Text of a docstring as Markdown: one line a paragraph, literals in single backticks."""
    blocks = inspect.cleandoc(text).split("\n\n")
    return "\n\n".join(" ".join(block.split()) for block in blocks).replace("``", "`")


def table(columns: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """A table; cells are Markdown on one line."""
    lines = [f"| {' | '.join(columns)} |", f"|{'|'.join('---' for _ in columns)}|"]
    lines += [f"| {' | '.join(_cell(c) for c in row)} |" for row in rows]
    return "\n".join(lines)


def _cell(value: object) -> str:
    return " ".join(str(value).split()).replace("|", "\\|")


def code(value: object) -> str:
    """Inline code, or nothing for nothing."""
    return f"`{value}`" if value not in (None, "") else ""


def fields(schema: Mapping[str, Any], definitions: Mapping[str, Any], notes: Mapping[str, str] | None = None) -> str:
    """The properties of an object's JSON Schema as a table."""
    required = set(schema.get("required", ()))
    rows = []
    for name, field in schema.get("properties", {}).items():
        default = "required" if name in required else _default(field)
        described = (notes or {}).get(name) or field.get("description", "")
        rows.append([code(name), kind_of(field, definitions), default, _sentence(described, bounds(field))])
    return table(["key", "type", "default", "meaning"], rows)


def _default(field: Mapping[str, Any]) -> str:
    default = field.get("default")
    # The parts of a nested table have a table of their own, with their defaults.
    return "" if default is None or (isinstance(default, dict) and "$ref" in field) else code(json.dumps(default))


def _sentence(text: str, further: str) -> str:
    text = paragraph(text) if text else ""
    return f"{text} {further[0].upper()}{further[1:]}.".strip() if further else text


def bounds(field: Mapping[str, Any]) -> str:
    """The limits in a schema, in words."""
    found = [text.format(field[key]) for key, text in _BOUNDS.items() if key in field]
    for option in field.get("anyOf", ()):
        found += [text.format(option[key]) for key, text in _BOUNDS.items() if key in option]
    return ", ".join(found)


def kind_of(field: Mapping[str, Any], definitions: Mapping[str, Any]) -> str:
    """A schema's type in words, with links to the definitions on the same page."""
    if "$ref" in field:
        name = field["$ref"].rpartition("/")[2]
        return f"[{name}](#{name.lower()})" if name in definitions else name
    if "const" in field:
        return code(json.dumps(field["const"]))
    if "enum" in field:
        return " or ".join(code(json.dumps(v)) for v in field["enum"])
    if "anyOf" in field:
        return " or ".join(kind_of(o, definitions) for o in field["anyOf"] if o.get("type") != "null")
    if field.get("type") == "array":
        return f"list of {kind_of(field.get('items', {}), definitions)}"
    inner = field.get("additionalProperties")
    if field.get("type") == "object" and isinstance(inner, dict) and inner:
        return f"table of {kind_of(inner, definitions)}"
    return str(field.get("type", "anything"))


def attribute_notes(cls: type) -> dict[str, str]:
    """The docstrings that follow the attributes of a class, its bases' too."""
    found: dict[str, str] = {}
    for base in reversed(cls.__mro__[:-1]):
        try:
            tree = ast.parse(textwrap.dedent(inspect.getsource(base)))
        except (OSError, TypeError):
            continue
        body = tree.body[0].body if isinstance(tree.body[0], ast.ClassDef) else []
        for before, after in pairwise(body):
            if (
                isinstance(before, ast.AnnAssign)
                and isinstance(before.target, ast.Name)
                and isinstance(after, ast.Expr)
                and isinstance(after.value, ast.Constant)
                and isinstance(after.value.value, str)
            ):
                found[before.target.id] = after.value.value
    return found
