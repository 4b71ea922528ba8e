"""``keelstone plugin new``: a plugin that builds and passes its tests before a line is written."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from kernel.errors import Conflict, ValidationFailed
from kernel.manifest import check_plugin_id, load_manifest

TEMPLATES = Path(__file__).parent / "scaffolds"


@dataclass(frozen=True, slots=True)
class _Kind:
    source: str
    time_ms: int
    memory_mb: int


_KINDS: Mapping[str, _Kind] = {
    "assemblyscript": _Kind("assembly/index.ts", time_ms=250, memory_mb=8),
    "c": _Kind("guest/plugin.c", time_ms=250, memory_mb=8),
    "go": _Kind("guest/plugin.go", time_ms=500, memory_mb=32),
    "javascript": _Kind("guest/plugin.js", time_ms=500, memory_mb=32),
    "python": _Kind("guest/plugin.py", time_ms=1000, memory_mb=64),
    "rust": _Kind("guest/lib.rs", time_ms=250, memory_mb=8),
    "typescript": _Kind("guest/plugin.ts", time_ms=500, memory_mb=32),
    "zig": _Kind("guest/plugin.zig", time_ms=250, memory_mb=8),
}
LANGUAGES = tuple(_KINDS)


def new_plugin(parent: Path, name: str, language: str, publisher: str) -> Path:
    """Write the plugin ``publisher/name`` into a new folder of ``parent`` and return that folder.

    Raises ValidationFailed (name, publisher or language) or Conflict (the folder is there).
    """
    kind = _KINDS.get(language)
    if kind is None:
        raise ValidationFailed(
            f"There is no scaffold for {language!r}.",
            expected=", ".join(LANGUAGES),
            found=language,
            fix="Other languages: build a component for plugin_sdk/wit/keelstone.wit with their own tools.",
        )
    try:
        check_plugin_id(f"{publisher}/{name}")
    except ValueError as error:
        raise ValidationFailed(f"{error}.") from error
    folder = parent / name
    values = {
        "name": name,
        "publisher": publisher,
        "title": name.replace("-", " ").capitalize()[:60],
        "language": language,
        "source": kind.source,
        "time_ms": str(kind.time_ms),
        "memory_mb": str(kind.memory_mb),
    }
    try:
        folder.mkdir(parents=True)
    except FileExistsError as error:
        raise Conflict(
            f"{folder} is there already.", file=str(folder), fix="Choose another name, or delete the folder."
        ) from error
    for root in (TEMPLATES / "common", TEMPLATES / language):
        for template in sorted(root.rglob("*.tmpl")):
            target = folder / template.relative_to(root).with_suffix("")
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_text(_fill(template.read_text(encoding="utf-8"), values), encoding="utf-8")
    load_manifest(folder)
    return folder


def _fill(template: str, values: Mapping[str, str]) -> str:
    return re.sub(r"\{\{(\w+)\}\}", lambda match: values[match.group(1)], template)
