"""The author's lines in what a compiler or a crashed guest said."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

_ERROR = re.compile(r"(?:^|\s)(?:ERROR|error)(?:\[?[ \w]*\]?)?: *(?P<message>.+)")
_FORMS = (
    # AssemblyScript: └─ in assembly/index.ts(7,3)    TypeScript: assembly/index.ts(7,3): error TS2322: ...
    re.compile(
        r"(?:└─ in )?(?P<file>[\w./~@-]+\.\w+)\((?P<line>\d+),(?P<column>\d+)\)(?:: error [A-Z]*\d*: (?P<message>.+))?"
    ),
    # Rust: --> src/lib.rs:7:3
    re.compile(r"--> (?P<file>[\w./@-]+\.\w+):(?P<line>\d+):(?P<column>\d+)"),
    # Python: File "guest/plugin.py", line 7, in user_creating
    re.compile(r'File "(?P<file>[^"]+\.py)", line (?P<line>\d+)(?:, in (?P<function>\S+))?'),
    # C, Zig, Go, JavaScript: src/plugin.c:7:3: error: ...
    re.compile(r"(?P<file>[\w./@-]+\.\w+):(?P<line>\d+):(?P<column>\d+)(?:: (?:fatal )?(?:error: )?(?P<message>.+))?"),
)
_MOST = 10


@dataclass(frozen=True, slots=True)
class Place:
    """A line of the author's. ``file`` is relative to the plugin's folder; ``column`` is 0 if unknown;
    ``text`` is the line itself, ``message`` what was said about it (maybe empty)."""

    file: str
    line: int
    column: int = 0
    message: str = ""
    text: str = ""
    function: str = ""

    def describe(self) -> dict[str, Any]:
        """JSON-ready."""
        return {name: value for name, value in asdict(self).items() if value not in ("", 0)}


def places_in(text: str, folder: Path) -> list[Place]:
    """Every line of a file in ``folder`` that ``text`` points at, in order, each once."""
    found: dict[tuple[str, int], Place] = {}
    said = ""
    for line in text.splitlines():
        if (error := _ERROR.search(line)) is not None:
            said = error["message"].strip()
        for place in _in_line(line, folder):
            complete = place if place.message else place_with(place, said)
            found.setdefault((place.file, place.line), complete)
            break
        if len(found) == _MOST:
            break
    return list(found.values())


def place_with(place: Place, message: str) -> Place:
    """The same place, with something said about it."""
    return Place(place.file, place.line, place.column, message, place.text, place.function)


def place_at(
    folder: Path, file: str, line: int, column: int = 0, message: str = "", function: str = ""
) -> Place | None:
    """The place, with its line's text; None if there is no such line in the plugin's folder."""
    inside = _inside(folder, file)
    if inside is None:
        return None
    try:
        lines = inside.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return None
    if not 1 <= line <= len(lines):
        return None
    name = inside.relative_to(folder).as_posix()
    return Place(name, line, column, message, lines[line - 1].rstrip()[:200], function)


def _in_line(line: str, folder: Path) -> Iterator[Place]:
    for form in _FORMS:
        for match in form.finditer(line):
            parts = match.groupdict()
            place = place_at(
                folder,
                parts["file"],
                int(parts["line"]),
                int(parts.get("column") or 0),
                (parts.get("message") or "").strip(),
                parts.get("function") or "",
            )
            if place is not None:
                yield place


def _inside(folder: Path, file: str) -> Path | None:
    """The author's file of that name: as a path from the folder, or the only one that ends so.

    A guest's compiler may have seen it under another root (a staging folder, ``/0`` in a component).
    """
    if not file or file.startswith("~lib/"):
        return None
    direct = (folder / file).resolve()
    if direct.is_file() and direct.is_relative_to(folder) and "build" not in direct.relative_to(folder).parts[:1]:
        return direct
    name = Path(file).name
    twins = [
        path
        for path in folder.rglob(name)
        if not {"build", "node_modules", "target", "tests"} & set(path.relative_to(folder).parts[:-1])
        and not any(part.startswith(".") for part in path.relative_to(folder).parts)
    ]
    parts = Path(file).parts
    best = sorted(twins, key=lambda p: -_common(p.relative_to(folder).parts, parts))
    return best[0] if best else None


def _common(one: tuple[str, ...], other: tuple[str, ...]) -> int:
    count = 0
    for a, b in zip(reversed(one), reversed(other), strict=False):
        if a != b:
            break
        count += 1
    return count
