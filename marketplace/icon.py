"""Icons are shown in the console and storefront, so a drawing must not be able to act.

SVG is checked against a list of what may be there, never cleaned: elements that draw, attributes
that neither run nor load anything. PNG is checked by its header.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Iterator
from xml.etree import ElementTree
from xml.etree.ElementTree import Element

from marketplace.errors import PackageContentInvalid

MAX_SIDE = 1024
_SVG = "{http://www.w3.org/2000/svg}"
_XLINK_HREF = "{http://www.w3.org/1999/xlink}href"
_DRAWING = frozenset(
    {"svg", "g", "defs", "symbol", "use", "path", "rect", "circle", "ellipse", "line", "polyline", "polygon"}
    | {"title", "desc", "text", "tspan", "linearGradient", "radialGradient", "stop", "clipPath", "mask", "pattern"}
)
_REACHES_OUT = re.compile(r"url\(\s*(?!['\"]?#)|@import|expression\s*\(|javascript:|data:", re.IGNORECASE)
_PNG = b"\x89PNG\r\n\x1a\n"


def check_svg(data: bytes, file: str) -> None:
    """Raise PackageContentInvalid unless ``data`` is an SVG that only draws."""
    lowered = data.lower()
    if b"<!doctype" in lowered or b"<!entity" in lowered or b"<?xml-stylesheet" in lowered:
        raise _bad(file, "it has a DOCTYPE, an entity or a style sheet")
    try:
        # Entities are refused above, which is what makes expat safe on strangers' input.
        root = ElementTree.fromstring(data)  # noqa: S314
    except (ElementTree.ParseError, ValueError, LookupError) as error:
        raise _bad(file, f"it is not XML: {error}") from error
    if root.tag != _SVG + "svg":
        raise _bad(file, f"its root is <{root.tag}>, not <svg>")
    for problem in _problems(root):
        raise _bad(file, problem)


def check_png(data: bytes, file: str) -> None:
    """Raise PackageContentInvalid unless ``data`` begins as a PNG of at most 1024 x 1024 pixels."""
    size = png_size(data)
    if size is None:
        raise _bad(file, "it is not a PNG image")
    width, height = size
    if not (0 < width <= MAX_SIDE and 0 < height <= MAX_SIDE):
        raise _bad(file, f"it is {width} x {height} pixels; at most {MAX_SIDE} x {MAX_SIDE} are allowed")


def png_size(data: bytes) -> tuple[int, int] | None:
    """Width and height in pixels, as a PNG's header says; None if it does not begin as one."""
    if not data.startswith(_PNG) or data[12:16] != b"IHDR" or len(data) < 33:
        return None
    width, height = struct.unpack(">II", data[16:24])
    return width, height


def _problems(root: Element) -> Iterator[str]:
    for element in root.iter():
        tag = element.tag if isinstance(element.tag, str) else "?"
        name = tag.removeprefix(_SVG)
        if not tag.startswith(_SVG) or name not in _DRAWING:
            yield f"<{name}> is not a drawing element"
        for key, value in element.attrib.items():
            plain = key.rpartition("}")[2].lower()
            if plain.startswith("on"):
                yield f"attribute {plain} of <{name}> would run a script"
            if (key == _XLINK_HREF or plain == "href") and not value.strip().startswith("#"):
                yield f"<{name}> refers to {value[:60]!r} outside the icon"
            if _REACHES_OUT.search(value):
                yield f"attribute {plain} of <{name}> loads or runs something"


def _bad(file: str, problem: str) -> PackageContentInvalid:
    return PackageContentInvalid(
        f"The icon {file} cannot be used: {problem}.",
        file=file,
        fix="Use an SVG of plain shapes (no scripts, styles, images or outside references) or a PNG.",
    )
