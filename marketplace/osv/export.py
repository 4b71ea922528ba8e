"""An export in the OSV format: a zip of documents, one a weakness, or a single document.

Read one after the other, within bounds, and never unpacked to disk.
"""

from __future__ import annotations

import json
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from kernel.errors import NotFound, ValidationFailed

MAX_DOCUMENT = 8 * 1024 * 1024
MAX_DOCUMENTS = 2_000_000
_FIX = "Get one from osv.dev, or from a mirror of it: an ecosystem's zip, with a JSON document for each weakness."


def read_export(file: Path) -> Iterator[Any]:
    """What each document says, as plain data; None for one that is no JSON or too large.

    Raises NotFound, or ValidationFailed if the file is no export.
    """
    if not file.is_file():
        raise NotFound(f"There is no file {file}.", file=str(file), fix=_FIX)
    if not zipfile.is_zipfile(file):
        said = _plain(file.read_bytes()) if file.stat().st_size <= MAX_DOCUMENT else None
        if said is None:
            expected = "a zip, or one document"
            raise ValidationFailed("This is no OSV export.", file=str(file), expected=expected, fix=_FIX)
        yield said
        return
    try:
        with zipfile.ZipFile(file) as archive:
            members = [each for each in archive.infolist() if each.filename.endswith(".json")]
            if not members or len(members) > MAX_DOCUMENTS:
                raise ValidationFailed(
                    "This is no OSV export.",
                    file=str(file),
                    expected=f"1 to {MAX_DOCUMENTS:,} documents",
                    found=f"{len(members):,}",
                    fix=_FIX,
                )
            for member in members:
                yield _member(archive, member)
    except (zipfile.BadZipFile, OSError) as error:
        raise ValidationFailed(f"The export cannot be read: {error}.", file=str(file), fix=_FIX) from error


def _member(archive: zipfile.ZipFile, member: zipfile.ZipInfo) -> Any:
    """A bomb says that it is small, so what comes out is counted."""
    try:
        with archive.open(member) as stream:
            data = stream.read(MAX_DOCUMENT + 1)
    except (zipfile.BadZipFile, zlib.error, RuntimeError):
        return None  # damaged, encrypted, or packed in a way that we don't know
    return _plain(data) if len(data) <= MAX_DOCUMENT else None


def _plain(data: bytes) -> Any:
    try:
        return json.loads(data)
    except (ValueError, RecursionError):
        return None
