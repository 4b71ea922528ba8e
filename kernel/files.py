"""Files: written so that a crash leaves the old content or the new, and read so that whoever named one is told."""

from __future__ import annotations

import contextlib
import os
import tempfile
from pathlib import Path

from kernel.errors import NotFound


def read_named(file: Path) -> bytes:
    """The bytes of a file that a person named; blocking. Raises NotFound, with why it cannot be read."""
    try:
        return file.read_bytes()
    except OSError as error:
        raise NotFound(f"{file} cannot be read: {error.strerror}.", file=str(file)) from error


def write_durably(path: Path, data: bytes) -> None:
    """Replace ``path`` by ``data``, in one step and on the disk when this returns; blocking.

    The folder is made if need be. The file is readable by its owner only (mode 0600).
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor, temporary = tempfile.mkstemp(prefix=".", dir=path.parent)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(temporary)
        raise
    _sync_folder(path.parent)


def _sync_folder(folder: Path) -> None:
    """Make a rename durable. Not possible, and not needed, on Windows."""
    if os.name == "posix":
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
