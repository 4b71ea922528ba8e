"""References inside a stranger's JSON Schema, bounded before the host evaluates it.

Each link of a chain of references can be followed twice, and one that leads back to itself twice for
every level of the data: a few hundred bytes would keep a validator busy for years. So a schema is
measured as if every reference were written out.
"""

from __future__ import annotations

from typing import Any
from urllib.parse import unquote

MAX_WRITTEN_OUT = 20_000
"""Values in a schema whose references have been written out."""
_REFUSED = ("$dynamicRef", "$recursiveRef", "$anchor", "$dynamicAnchor")


def problem_with_references(schema: dict[str, Any]) -> str | None:
    """Why the schema's references can't be followed, in a few words; None if they can."""
    try:
        size = _Measure(schema).of(schema)
    except ValueError as problem:
        return str(problem)
    except RecursionError:
        return "is nested too deeply"
    return None if size <= MAX_WRITTEN_OUT else f"is too large once its references are written out ({size:,} values)"


class _Measure:
    def __init__(self, root: dict[str, Any]) -> None:
        self._root = root
        self._known: dict[str, int] = {}
        self._open: set[str] = set()

    def of(self, node: Any) -> int:
        if isinstance(node, list):
            return 1 + sum(self.of(item) for item in node)
        if not isinstance(node, dict):
            return 1
        for keyword in _REFUSED:
            if isinstance(node.get(keyword), str):
                raise ValueError(f"uses {keyword}; refer to parts by their place, #/$defs/...")
        if isinstance(node.get("$id"), str) and node is not self._root:
            # References below it would mean another document than the one that is measured.
            raise ValueError("has an $id inside")
        reference = node.get("$ref")
        return (
            1
            + sum(self.of(item) for item in node.values())
            + (self._behind(reference) if isinstance(reference, str) else 0)
        )

    def _behind(self, reference: str) -> int:
        if reference in self._open:
            raise ValueError(f"refers to itself by {reference[:100]!r}")
        if reference not in self._known:
            self._open.add(reference)
            # Memoised, so measuring costs what the schema's own size is; the number may be enormous.
            self._known[reference] = self.of(self._at(reference))
            self._open.discard(reference)
        return self._known[reference]

    def _at(self, reference: str) -> Any:
        if not reference.startswith("#"):
            raise ValueError(f"refers to {reference[:100]!r}; schemas stand alone")
        node: Any = self._root
        for part in unquote(reference[1:]).split("/")[1:]:
            key = part.replace("~1", "/").replace("~0", "~")
            try:
                node = node[int(key)] if isinstance(node, list) else node[key]
            except (KeyError, IndexError, ValueError, TypeError):
                raise ValueError(f"refers to {reference[:100]!r}, which is not there") from None
        return node
