"""AssemblyScript: classes that read and write the guest library's Json."""

from __future__ import annotations

import json
from collections.abc import Iterable

from plugin_sdk.toolchain.payloads import FieldKind, PayloadField, PayloadType

_TYPES: dict[FieldKind, str] = {
    "text": "string",
    "integer": "i64",
    "number": "f64",
    "flag": "bool",
    "texts": "string[]",
    "object": "Json",
}
_HELPERS = {
    "object": """
function objectAt(data: Json, name: string): Json {
  const found = data.get(name);
  return found !== null && found.kind == JsonKind.Object ? found : Json.object();
}""",
    "texts": """
function textsAt(data: Json, name: string): string[] {
  const found = data.get(name);
  return found === null ? new Array<string>() : found.asTexts();
}""",
    "integer": """
function integerAt(data: Json, name: string): i64 {
  const found = data.get(name);
  return found === null ? 0 : found.asInteger();
}""",
    "number": """
function numberAt(data: Json, name: string): f64 {
  const found = data.get(name);
  return found === null ? 0 : found.asNumber();
}""",
    "flag": """
function flagAt(data: Json, name: string): bool {
  const found = data.get(name);
  return found !== null && found.asBool();
}""",
}


def payloads(types: Iterable[PayloadType]) -> str:
    """``payloads.ts``."""
    kinds = {field.kind for one in types for field in one.fields}
    lines = [
        "/** What hooks receive. Generated from kernel/payloads.py: `python -m plugin_sdk.toolchain.typed`. */",
        'import { Json, JsonKind } from "./json";',
        "",
        "/** Base of payloads that a filter can hand back. */",
        "export abstract class Payload {",
        "  abstract toJson(): Json;",
        "}",
    ]
    for one in types:
        lines += ["", f"/** {one.summary} */"]
        lines += [f"export class {one.name}{' extends Payload' if one.changeable else ''} {{", "  constructor("]
        for field in one.fields:
            lines += [f"    /** {field.summary} */", f"    public {camel(field.name)}: {_TYPES[field.kind]},"]
        lines += [
            *(["  ) {", "    super();", "  }"] if one.changeable else ["  ) {}"]),
            "",
            f"  static from(data: Json): {one.name} {{",
            f"    return new {one.name}(",
            *(f"      {_decoded(field)}," for field in one.fields),
            "    );",
            "  }",
        ]
        if one.changeable:
            lines += ["", "  toJson(): Json {", "    return Json.object()"]
            lines += [f'      .set("{field.name}", {_encoded(field)})' for field in one.fields]
            lines[-1] += ";"
            lines.append("  }")
        lines.append("}")
    return "\n".join([*lines, *(text for kind, text in _HELPERS.items() if kind in kinds), ""])


def camel(name: str) -> str:
    """``correlation_id`` is correlationId."""
    first, *rest = name.split("_")
    return first + "".join(word.capitalize() for word in rest)


def _decoded(field: PayloadField) -> str:
    if field.kind == "text":
        otherwise = f", {json.dumps(field.default)}" if field.default else ""
        return f'data.text("{field.name}"{otherwise})'
    return f'{field.kind}At(data, "{field.name}")'


def _encoded(field: PayloadField) -> str:
    value = f"this.{camel(field.name)}"
    match field.kind:
        case "text":
            return f"Json.text({value})"
        case "integer":
            return f"Json.integer({value})"
        case "number":
            return f"Json.number({value})"
        case "flag":
            return f"Json.bool({value})"
        case "texts":
            return f"Json.ofTexts({value})"
        case "object":
            return value
