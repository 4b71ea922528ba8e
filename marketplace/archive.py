"""A zip archive in one canonical form, so that the same members always give the same bytes.

Members are stored, not compressed (a compressor's output differs between its versions), in the
order given, with one fixed time and mode, without extra fields, comments or gaps. Every unzip tool
reads it. The reader accepts this form only: it parses at most ``MAX_MEMBERS`` directory entries and
then writes the archive anew and compares. Whatever makes two zip readers disagree (a directory
that contradicts the local headers, hidden or trailing bytes, false sizes, zip64 tricks) is thereby
refused as a whole, instead of one trick at a time.

Format: PKWARE APPNOTE.TXT 6.3.10, sections 4.3.7, 4.3.12 and 4.3.16.
"""

from __future__ import annotations

import stat
import struct
import zlib
from collections.abc import Mapping

from marketplace.errors import PackageCorrupt, PackageMembersInvalid, PackageTooLarge

MAX_MEMBERS = 16
LOCAL = struct.Struct("<4s5H3I2H")
ENTRY = struct.Struct("<4s6H3I5H2I")
END = struct.Struct("<4s4H2IH")
_DOS_TIME, _DOS_DATE = 0, (0 << 9) | (1 << 5) | 1  # 1980-01-01 00:00, the first moment zip knows
_ZIP_20 = 20
_UNIX = 3 << 8
_MODE = (stat.S_IFREG | 0o644) << 16
_REBUILD = "Make packages with `keelstone plugin sign`; do not repack them."


def write_archive(members: Mapping[str, bytes]) -> bytes:
    """The canonical archive of ``members``, in their order. Names are ASCII."""
    body, directory = bytearray(), bytearray()
    for name, data in members.items():
        size, crc = len(data), zlib.crc32(data)
        directory += directory_entry(name, size, crc, len(body))
        body += local_header(name, size, crc)
        body += data
    return bytes(body + directory + end_record(len(members), len(directory), len(body)))


def local_header(name: str, size: int, crc: int) -> bytes:
    """What stands before a member's bytes."""
    raw = name.encode("ascii")
    return LOCAL.pack(b"PK\x03\x04", _ZIP_20, 0, 0, _DOS_TIME, _DOS_DATE, crc, size, size, len(raw), 0) + raw


def directory_entry(name: str, size: int, crc: int, offset: int) -> bytes:
    """What the directory says of a member whose header is at ``offset``."""
    raw = name.encode("ascii")
    entry = ENTRY.pack(
        b"PK\x01\x02", _UNIX | _ZIP_20, _ZIP_20, 0, 0, _DOS_TIME, _DOS_DATE,
        crc, size, size, len(raw), 0, 0, 0, 0, _MODE, offset,
    )  # fmt: skip
    return entry + raw


def end_record(count: int, directory: int, start: int) -> bytes:
    """The archive's end: how many members, how many bytes the directory has, and where it starts."""
    return END.pack(b"PK\x05\x06", 0, 0, count, count, directory, start, 0)


def read_archive(data: bytes, max_bytes: int) -> dict[str, bytes]:
    """The members of a canonical archive, in order.

    Raises PackageTooLarge over ``max_bytes``; PackageMembersInvalid for duplicate names, links,
    directories and paths that leave the archive; PackageCorrupt for everything else.
    """
    check_size(len(data), max_bytes)
    members: dict[str, bytes] = {}
    for name, mode, offset, size, compressed, method, flags in _directory(data):
        _check_name(name, members)
        if stat.S_IFMT(mode) not in (0, stat.S_IFREG):
            kind = "a link" if stat.S_ISLNK(mode) else "not a regular file"
            raise PackageMembersInvalid(f"Member {name!r} is {kind}.", file=name, fix=_REBUILD)
        if method != 0 or flags != 0:
            raise PackageCorrupt(f"Member {name!r} is compressed or encrypted.", file=name, fix=_REBUILD)
        if size != compressed or offset + size > len(data):
            raise PackageCorrupt(
                f"Member {name!r} declares a size that is not its real one.",
                file=name,
                expected=f"{size:,} bytes",
                found=f"{min(compressed, max(0, len(data) - offset)):,} bytes",
                fix=_REBUILD,
            )
        start = offset + LOCAL.size + len(name)
        members[name] = data[start : start + size]
    if write_archive(members) != data:
        raise PackageCorrupt(
            "The archive is not in canonical form: headers, order or checksums differ, or bytes hide in it.",
            fix="The file was damaged or repacked. Download it again, or build it anew.",
        )
    return members


def check_size(size: int, max_bytes: int) -> None:
    """Raise PackageTooLarge if a package of ``size`` bytes is too large; ask before reading a file."""
    if size > max_bytes:
        raise PackageTooLarge(
            "The package is larger than allowed.",
            expected=f"at most {max_bytes:,} bytes",
            found=f"{size:,} bytes",
            fix="Make the component smaller, or ask the operator to raise KEELSTONE_MAX_PACKAGE_MB.",
        )


def _directory(data: bytes) -> list[tuple[str, int, int, int, int, int, int]]:
    """(name, unix mode, offset, size, stored size, method, flags) of each directory entry."""
    if len(data) < END.size:
        raise PackageCorrupt("The file is too short to be a package.", found=f"{len(data)} bytes", fix=_REBUILD)
    magic, _, _, _, count, size, start, comment = END.unpack_from(data, len(data) - END.size)
    if magic != b"PK\x05\x06" or comment:
        raise PackageCorrupt(
            "The file does not end as a package does: it is cut short, or is something else.",
            expected="a zip directory without a comment at the end",
            fix="Download it again, or build it anew with `keelstone plugin sign`.",
        )
    if count > MAX_MEMBERS:
        raise PackageMembersInvalid("The package has too many members.", expected=f"at most {MAX_MEMBERS}", found=count)
    if start + size + END.size != len(data):
        raise PackageCorrupt("The archive's directory is not where its end record says.", fix=_REBUILD)
    entries, at = [], start
    for _ in range(count):
        if at + ENTRY.size > start + size:
            raise PackageCorrupt("The archive's directory ends too early.", fix=_REBUILD)
        fields = ENTRY.unpack_from(data, at)
        (signature, _, _, flags, method, _, _, _, stored, real, length, extra, note, _, _, attributes, offset) = fields
        raw = data[at + ENTRY.size : at + ENTRY.size + length]
        if signature != b"PK\x01\x02" or extra or note or len(raw) != length:
            raise PackageCorrupt("The archive's directory is malformed.", fix=_REBUILD)
        try:
            name = raw.decode("ascii")
        except UnicodeDecodeError as error:
            raise PackageMembersInvalid("A member's name is not ASCII.", found=repr(raw)) from error
        entries.append((name, attributes >> 16, offset, real, stored, method, flags))
        at += ENTRY.size + length
    return entries


def _check_name(name: str, seen: Mapping[str, bytes]) -> None:
    if name in seen:
        raise PackageMembersInvalid(f"Member {name!r} is in the package twice.", file=name, fix=_REBUILD)
    if not is_inner_path(name):
        raise PackageMembersInvalid(
            f"Member {name!r} is not a plain path inside the package.",
            file=name,
            expected="a relative path of visible ASCII without .., backslash, drive or empty part",
            found=name,
        )


def is_inner_path(name: str) -> bool:
    """Whether ``name`` is a relative path that stays inside on every operating system."""
    parts = name.split("/")
    return (
        name.isascii()
        and name.isprintable()
        and not set(name) & set('\\:*?"<>|')
        and all(part not in ("", ".", "..") and part == part.strip(" ") and not part.endswith(".") for part in parts)
    )
