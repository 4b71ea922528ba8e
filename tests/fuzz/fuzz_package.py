"""The package reader: an archive as it came over the network, or one whose members a stranger chose."""

from __future__ import annotations

from kernel.errors import KeelstoneError
from marketplace.archive import read_archive, write_archive
from marketplace.index import manifest_document
from marketplace.package import read_package
from tests.fuzz.feed import Feed, told

NAMES = (
    "plugin.toml", "component.wasm", "README.md", "CHANGELOG.md", "settings.schema.json", "icon.svg", "icon.png",
)  # fmt: skip
MOST = 1 << 20


def members(data: bytes) -> bytes:
    """The archive of the members that ``data`` tells: a name (by number, or spelt out) and content each."""
    feed, found = Feed(data), {}
    while feed and len(found) < 20:
        number = feed.byte()
        name = NAMES[number] if number < len(NAMES) else feed.text(40).encode("ascii", "replace").decode()
        found[name] = feed.raw(65_535)
    return write_archive(found)


def TestOneInput(data: bytes) -> None:
    """The first byte says which of the two."""
    archive = data[1:] if data[:1] == b"\0" else members(data[1:])
    try:
        package = read_package(archive, max_bytes=MOST)
    except KeelstoneError as error:
        told(error)
        return
    assert write_archive(read_archive(archive, MOST)) == archive
    manifest_document(package.manifest)
