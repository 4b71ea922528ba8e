"""The bundle: what a marketplace shows, and packages, in one file that crosses an air gap.

A zip archive in one canonical form, as ``marketplace.archive`` has for packages, but written and read member by
member, because it may have gigabytes: members are stored without compression, one after the other without gaps, with
one fixed time and mode, and the directory repeats exactly what their headers say. Every unzip tool lists it; whatever
could make two of them disagree is refused.

============================  =====================================================================
member                        has
============================  =====================================================================
bundle.json                   what is inside and when it was made, for people (nothing is believed)
metadata/...                  the marketplace's TUF metadata, by plain names
targets/...                   its documents: indexes, key sets, revocations, advisories
log/checkpoint, log/tile/...  its log's checkpoint with witnesses' signatures, and its hashes
log/proofs, log/entries       the proofs of releases and of key sets
packages/<sha256>             packages
============================  =====================================================================

Format: PKWARE APPNOTE.TXT 6.3.10, sections 4.3.7, 4.3.12 and 4.3.16.
"""

from __future__ import annotations

import re
import threading
import zlib
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import BinaryIO

from marketplace.archive import (
    END,
    ENTRY,
    LOCAL,
    directory_entry,
    end_record,
    is_inner_path,
    local_header,
)
from marketplace.errors import BundleCorrupt
from marketplace.log.note import MAX_NOTE_BYTES
from marketplace.log.proof import MAX_PROOF_BYTES
from marketplace.log.tiles import WIDTH
from marketplace.log.tree import HASH_BYTES

ABOUT = "bundle.json"
FORMAT = 1
MAX_BYTES = 0xFFFF_0000
"""Of a whole bundle, a little under 4 GiB: where zip needs another form."""
MAX_MEMBERS = 0xFFFE
MAX_DIRECTORY = 32 * 1024 * 1024
_DOCUMENT = 64 * 1024 * 1024
_KINDS = (
    (re.compile(r"^bundle\.json$"), 16 * 1024 * 1024),
    (
        re.compile(r"^metadata/(timestamp|snapshot|targets|bins-[0-9a-f]{3}|root_history/[0-9]{1,6}\.root)\.json$"),
        _DOCUMENT,
    ),
    (re.compile(r"^targets/[a-z][a-z0-9/.-]*\.json$"), _DOCUMENT),
    (re.compile(r"^log/checkpoint$"), MAX_NOTE_BYTES),
    (re.compile(r"^log/tile/[0-9]/[x0-9/]+(\.p/[0-9]{1,3})?$"), WIDTH * HASH_BYTES),
    (re.compile(r"^log/proofs/[a-z0-9-]+/[a-z0-9-]+/[0-9A-Za-z.+-]+\.json$"), MAX_PROOF_BYTES),
    (re.compile(r"^log/entries/[0-9]{1,18}\.json$"), MAX_PROOF_BYTES),
)
_PACKAGE = re.compile(r"^packages/[0-9a-f]{64}$")
_AGAIN = "Copy the file again, or export it anew with `keelstone marketplace bundle export`."


class BundleWriter:
    """Writes a bundle to an open file, member by member. End it with :meth:`close`."""

    def __init__(self, file: BinaryIO) -> None:
        self._file, self._offset = file, 0
        self._entries: dict[str, bytes] = {}

    def add(self, name: str, data: bytes) -> None:
        """Add a member, once. Raises BundleCorrupt if the bundle would become too large."""
        if name in self._entries:
            return
        crc = zlib.crc32(data)
        header = local_header(name, len(data), crc)
        if self._offset + len(header) + len(data) > MAX_BYTES or len(self._entries) >= MAX_MEMBERS:
            raise BundleCorrupt(
                "This is too much for one bundle.",
                expected=f"at most {MAX_BYTES:,} bytes in {MAX_MEMBERS:,} members",
                fix="Export some of the plugins into one bundle, and the others into another.",
            )
        self._entries[name] = directory_entry(name, len(data), crc, self._offset)
        self._file.write(header)
        self._file.write(data)
        self._offset += len(header) + len(data)

    def close(self) -> None:
        """Write the directory."""
        directory = b"".join(self._entries.values())
        self._file.write(directory + end_record(len(self._entries), len(directory), self._offset))


class BundleFile:
    """An open bundle whose form has been checked; a context manager. Each member's bytes are checked when read.

    Raises BundleCorrupt. ``max_package`` is the largest package in bytes.
    """

    def __init__(self, path: Path, max_package: int) -> None:
        self._path, self._limit, self._turn = path, max_package, threading.Lock()
        try:
            self._file = path.open("rb")
        except OSError as error:
            raise BundleCorrupt(f"{path} cannot be read: {error.strerror}.", file=str(path)) from error
        try:
            self._members = self._directory()
        except BaseException:
            self._file.close()
            raise

    def __enter__(self) -> BundleFile:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._file.close()

    @property
    def names(self) -> Mapping[str, object]:
        """The names of all members."""
        return self._members

    def read(self, name: str) -> bytes | None:
        """A member's bytes; None if there is none of that name. Raises BundleCorrupt if they were changed."""
        if name not in self._members:
            return None
        offset, size, crc = self._members[name]
        with self._turn:  # several threads read, and there is one position in the file
            self._file.seek(offset + LOCAL.size + len(name))
            data = self._file.read(size)
        if len(data) != size or zlib.crc32(data) != crc:
            raise self._bad(f"Member {name} was changed or cut short")
        return data

    def _directory(self) -> dict[str, tuple[int, int, int]]:
        """Offset, size and CRC of each member, after checking that the file is exactly what these make."""
        size = self._file.seek(0, 2)
        if not END.size <= size <= MAX_BYTES + MAX_DIRECTORY:
            raise self._bad(f"{size:,} bytes are no bundle")
        self._file.seek(size - END.size)
        end = self._file.read(END.size)
        magic, _, _, _, count, length, start, _ = END.unpack(end)
        if magic != b"PK\x05\x06" or length > MAX_DIRECTORY or start + length + END.size != size:
            raise self._bad("It does not end as a bundle does")
        self._file.seek(start)
        directory = self._file.read(length)
        members: dict[str, tuple[int, int, int]] = {}
        at = offset = 0
        for _ in range(count):
            if at + ENTRY.size > length:
                raise self._bad("Its directory ends too early")
            fields = ENTRY.unpack_from(directory, at)
            crc, real, letters = fields[7], fields[9], fields[10]
            raw = directory[at + ENTRY.size : at + ENTRY.size + letters]
            name = self._name(raw, members, real)
            entry = directory_entry(name, real, crc, offset)
            header = local_header(name, real, crc)
            self._file.seek(offset)
            if directory[at : at + len(entry)] != entry or self._file.read(len(header)) != header:
                raise self._bad(f"Member {name} is not where, or what, the directory says")
            members[name] = (offset, real, crc)
            at, offset = at + len(entry), offset + len(header) + real
        if at != length or offset != start or end != end_record(count, length, start):
            raise self._bad("Bytes hide in it")
        return members

    def _name(self, raw: bytes, members: Mapping[str, object], size: int) -> str:
        name = raw.decode("ascii", "replace")
        if not is_inner_path(name) or name in members:
            raise self._bad(f"Member {name!r} is there twice" if name in members else f"{name!r} is no plain path")
        limits = [limit for kind, limit in _KINDS if kind.match(name)]
        limits += [self._limit] if _PACKAGE.match(name) else []
        if not limits:
            raise self._bad(f"Member {name!r} does not belong in a bundle")
        if size > limits[0]:
            raise BundleCorrupt(
                f"Member {name} is too large.",
                file=str(self._path),
                expected=f"at most {limits[0]:,} bytes",
                found=f"{size:,} bytes",
                fix="If it is a package, raise KEELSTONE_MAX_PACKAGE_MB.",
            )
        return name

    def _bad(self, problem: str) -> BundleCorrupt:
        return BundleCorrupt(f"{problem}.", file=str(self._path), fix=_AGAIN)
