"""References in a settings schema: followed where they end, refused where they could keep the host busy."""

from __future__ import annotations

from typing import Any

import pytest

from marketplace.references import MAX_WRITTEN_OUT, problem_with_references


def chain(links: int) -> dict[str, Any]:
    """Each link is followed twice."""
    steps: dict[str, Any] = {
        f"a{n}": {"allOf": [{"$ref": f"#/$defs/a{n + 1}"}, {"$ref": f"#/$defs/a{n + 1}"}]} for n in range(links)
    }
    return {"type": "object", "$defs": steps | {f"a{links}": {"type": "object"}}, "$ref": "#/$defs/a0"}


def test_references_to_parts_of_the_schema_are_followed() -> None:
    shared = {"type": "object", "$defs": {"name": {"type": "string"}, "a/b": {}, "c%d": {}}}
    for reference in ("#/$defs/name", "#/$defs/a~1b", "#/$defs/c%25d"):
        assert problem_with_references(shared | {"properties": {"x": {"$ref": reference}}}) is None
    assert problem_with_references(chain(6)) is None


def test_a_chain_that_doubles_with_every_link_is_refused_at_once() -> None:
    assert "too large" in str(problem_with_references(chain(60)))
    assert problem_with_references(chain(20)) is not None
    assert MAX_WRITTEN_OUT < 2**20


@pytest.mark.parametrize(
    ("schema", "says"),
    [
        ({"properties": {"x": {"$ref": "#"}}}, "itself"),
        ({"$defs": {"a": {"$ref": "#/$defs/b"}, "b": {"not": {"$ref": "#/$defs/a"}}}, "$ref": "#/$defs/a"}, "itself"),
        ({"$ref": "https://example.com/schema"}, "alone"),
        ({"$ref": "other.json"}, "alone"),
        ({"$ref": "#/$defs/absent"}, "not there"),
        ({"$ref": "#/type/0"}, "not there"),
        ({"$dynamicRef": "#x"}, "$dynamicRef"),
        ({"$defs": {"a": {"$anchor": "x"}}}, "$anchor"),
        ({"$defs": {"a": {"$id": "urn:other", "$ref": "#"}}}, "$id"),
    ],
)
def test_what_cannot_be_measured_is_refused(schema: dict[str, Any], says: str) -> None:
    assert says in str(problem_with_references({"type": "object"} | schema))


def test_properties_named_like_keywords_are_properties() -> None:
    names = {name: {"type": "string"} for name in ("$ref", "$id", "$anchor", "$dynamicRef")}
    assert problem_with_references({"type": "object", "properties": names}) is None
