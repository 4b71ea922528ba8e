"""Screenshots: what people see of a plugin before they have it. Images only, checked by their headers, never decoded
here; browsers show them from our own address, where nothing in them can run.

PNG: https://www.w3.org/TR/png-3/ ; WebP: RFC 9649.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from kernel.manifest import PluginManifest
from marketplace.errors import PackageContentInvalid, PackageMembersInvalid
from marketplace.icon import png_size

MAX_SCREENSHOT_BYTES = 512 * 1024
LEAST_SIDE, MOST_SIDE = 64, 4_096
_NAME = re.compile(r"^screenshots/[a-z0-9][a-z0-9._-]{0,63}\.(png|webp)$")
_MEDIA = {"png": "image/png", "webp": "image/webp"}


@dataclass(frozen=True, slots=True)
class Screenshot:
    """One picture of a package: its member, what it shows in the author's words, width and height in pixels."""

    file: str
    shows: str
    width: int
    height: int

    @property
    def media_type(self) -> str:
        """Its media type."""
        return _MEDIA[self.file.rpartition(".")[2]]


def read_screenshots(manifest: PluginManifest, members: Mapping[str, bytes]) -> tuple[Screenshot, ...]:
    """The screenshots that the manifest names, in its order. Raises PackageMembersInvalid or PackageContentInvalid."""
    names = [each.file for each in manifest.screenshots]
    for name in names:
        if not _NAME.match(name) or names.count(name) > 1:
            raise PackageMembersInvalid(
                f"The manifest names {name!r} as a screenshot, which it cannot be.",
                plugin=manifest.id,
                file=name[:100],
                expected="screenshots/NAME.png or .webp, in lower case, each once",
                found=name[:100],
            )
        if name not in members:
            raise PackageMembersInvalid(
                f"The manifest names the screenshot {name}, but the package has none.",
                plugin=manifest.id,
                file=name,
                fix="Add the file, or take it out of [[screenshots]] in plugin.toml.",
            )
    return tuple(
        Screenshot(each.file, each.shows, *_size(members[each.file], each.file)) for each in manifest.screenshots
    )


def _size(data: bytes, file: str) -> tuple[int, int]:
    size = png_size(data) if file.endswith(".png") else _webp_size(data)
    if size is None:
        raise _bad(file, "it is not what its name says")
    width, height = size
    if not (min(size) >= LEAST_SIDE and max(size) <= MOST_SIDE):
        raise _bad(file, f"it is {width} x {height} pixels; each side has {LEAST_SIDE} to {MOST_SIDE}")
    return width, height


def _webp_size(data: bytes) -> tuple[int, int] | None:
    if len(data) < 30 or data[:4] != b"RIFF" or data[8:12] != b"WEBP":
        return None
    kind, body = data[12:16], data[20:]
    if kind == b"VP8X":
        return int.from_bytes(body[4:7], "little") + 1, int.from_bytes(body[7:10], "little") + 1
    if kind == b"VP8L" and body[0] == 0x2F:
        bits = int.from_bytes(body[1:5], "little")
        return (bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1
    if kind == b"VP8 " and body[3:6] == b"\x9d\x01\x2a":
        return int.from_bytes(body[6:8], "little") & 0x3FFF, int.from_bytes(body[8:10], "little") & 0x3FFF
    return None


def _bad(file: str, problem: str) -> PackageContentInvalid:
    return PackageContentInvalid(
        f"The screenshot {file} cannot be used: {problem}.", file=file, fix="Save it as a PNG or WebP picture."
    )
