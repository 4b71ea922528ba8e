"""Python: frozen dataclasses whose ``replace`` names its fields, so that a type checker knows them."""

from __future__ import annotations

from collections.abc import Iterable

from plugin_sdk.toolchain.payloads import FieldKind, PayloadField, PayloadType

_TYPES: dict[FieldKind, str] = {
    "text": "str",
    "integer": "int",
    "number": "float",
    "flag": "bool",
    "texts": "list[str]",
    "object": "dict[str, Any]",
}


def payloads(types: Iterable[PayloadType]) -> str:
    """``payloads.py``. Fields with a default come last, as dataclasses want it."""
    lines = [
        '"""What hooks receive. Generated from kernel/payloads.py: `python -m plugin_sdk.toolchain.typed`."""',
        "",
        "from __future__ import annotations",
        "",
        "from dataclasses import dataclass, field",
        "from typing import Any",
        "",
        "from .payload import UNCHANGED, Payload",
    ]
    for one in types:
        lines += ["", "", "@dataclass(frozen=True)", f"class {one.name}(Payload):", f'    """{one.summary}"""', ""]
        ordered = sorted(one.fields, key=lambda field: field.default is not None)
        for item in ordered:
            lines += [f"    {item.name}: {_TYPES[item.kind]}{_default(item)}", f'    """{item.summary}"""']
        if one.changeable:
            lines += ["", "    def replace(", "        self,", "        *,"]
            lines += [f"        {item.name}: {_TYPES[item.kind]} = UNCHANGED," for item in ordered]
            lines += [
                f"    ) -> {one.name}:",
                '        """The same payload with some members changed."""',
                "        return self._changed(",
                *(f"            {item.name}={item.name}," for item in ordered),
                "        )",
            ]
    return "\n".join([*lines, ""])


def _default(item: PayloadField) -> str:
    if item.default is None:
        return ""
    if item.kind in ("texts", "object"):
        return f" = field(default_factory={'list' if item.kind == 'texts' else 'dict'})"
    return f" = {_quoted(item.default)}"


def _quoted(value: object) -> str:
    return f'"{value}"' if isinstance(value, str) else repr(value)
