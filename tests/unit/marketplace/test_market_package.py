"""The package format: the same input gives the same bytes, and only that form is read."""

from __future__ import annotations

import io
import json
import struct
import zipfile
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kernel.errors import KeelstoneError, ManifestError
from marketplace.archive import read_archive, write_archive
from marketplace.errors import (
    PackageContentInvalid,
    PackageCorrupt,
    PackageMembersInvalid,
    PackageTooLarge,
)
from marketplace.package import build_package, package_member, read_package
from marketplace.testing import EMPTY_COMPONENT, write_plugin
from tests.support.pictures import png

LIMIT = 1_000_000
PNG = b"\x89PNG\r\n\x1a\n" + struct.pack(">I4sIIBBBBB", 13, b"IHDR", 64, 64, 8, 6, 0, 0, 0) + b"\0" * 8


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return write_plugin(tmp_path / "plugin")


@pytest.fixture
def members(folder: Path) -> dict[str, bytes]:
    return read_archive(build_package(folder, EMPTY_COMPONENT), LIMIT)


def code_of(data: bytes, limit: int = LIMIT) -> str:
    with pytest.raises(KeelstoneError) as caught:
        read_package(data, max_bytes=limit)
    assert caught.value.detail
    return caught.value.code


def test_what_goes_in_comes_out(folder: Path) -> None:
    (folder / "icon.png").write_bytes(PNG)
    package = read_package(build_package(folder, EMPTY_COMPONENT))
    assert package.manifest.id == "acme/guard"
    assert package.component == EMPTY_COMPONENT
    assert package.readme.startswith("# Guard")
    assert package.changelog.startswith("## 1.0.0")
    assert package.settings_schema is not None
    assert package.settings_schema["properties"] == {"strict": {"type": "boolean"}}
    assert package.icon == PNG
    assert package.file_name == "acme.guard-1.0.0.keelstone"


def test_same_input_gives_the_same_bytes_wherever_and_whenever(folder: Path, tmp_path: Path) -> None:
    again = write_plugin(tmp_path / "elsewhere")
    (again / "README.md").touch()
    (again / "README.md").chmod(0o600)
    (again / "node_modules").mkdir()
    (again / "notes.txt").write_text("not part of the package")
    assert build_package(folder, EMPTY_COMPONENT) == build_package(again, EMPTY_COMPONENT)


def test_any_unzip_tool_reads_it(folder: Path) -> None:
    with zipfile.ZipFile(io.BytesIO(build_package(folder, EMPTY_COMPONENT))) as archive:
        assert archive.testzip() is None
        assert archive.namelist()[:2] == ["plugin.toml", "component.wasm"]
        assert archive.getinfo("plugin.toml").external_attr >> 16 == 0o100644


@given(st.dictionaries(st.from_regex(r"[a-z]{1,8}(/[a-z]{1,8})?", fullmatch=True), st.binary(max_size=200), max_size=8))
def test_every_archive_reads_back_as_it_was(content: dict[str, bytes]) -> None:
    assert read_archive(write_archive(content), LIMIT) == content


@given(st.data())
def test_no_changed_byte_goes_unnoticed(data: st.DataObject) -> None:
    whole = bytearray(write_archive({"plugin.toml": b"manifest = 1", "component.wasm": EMPTY_COMPONENT}))
    at = data.draw(st.integers(0, len(whole) - 1))
    whole[at] ^= data.draw(st.integers(1, 255))
    with pytest.raises(KeelstoneError):
        read_archive(bytes(whole), LIMIT)


def test_a_truncated_package_is_corrupt(folder: Path) -> None:
    data = build_package(folder, EMPTY_COMPONENT)
    assert {code_of(data[:length]) for length in (0, 10, len(data) // 2, len(data) - 1)} == {"package-corrupt"}


def test_bytes_before_after_or_between_members_are_refused(folder: Path) -> None:
    data = build_package(folder, EMPTY_COMPONENT)
    assert code_of(b"#!/bin/sh\n" + data) == "package-corrupt"
    assert code_of(data + b"tail") == "package-corrupt"


def test_an_ordinary_zip_is_refused_even_with_the_right_members(members: dict[str, bytes]) -> None:
    for method in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        buffer = io.BytesIO()
        with zipfile.ZipFile(buffer, "w", method) as archive:
            for name, content in members.items():
                archive.writestr(name, content)
        assert code_of(buffer.getvalue()) == "package-corrupt"


def test_a_bomb_is_refused_by_its_declared_size(members: dict[str, bytes]) -> None:
    data = bytearray(write_archive(members))
    entry = data.index(b"PK\x01\x02")
    struct.pack_into("<I", data, entry + 24, 0xF0000000)  # the real size, as the directory tells it
    with pytest.raises(PackageCorrupt, match="declares a size"):
        read_package(bytes(data))


def test_a_directory_with_a_hundred_thousand_entries_is_not_even_read() -> None:
    end = struct.pack("<4s4H2IH", b"PK\x05\x06", 0, 0, 60_000, 60_000, 0, 0, 0)
    with pytest.raises(PackageMembersInvalid, match="too many"):
        read_archive(end, LIMIT)


def test_an_oversized_package_is_refused_before_anything_else() -> None:
    with pytest.raises(PackageTooLarge) as caught:
        read_package(b"x" * 101, max_bytes=100)
    assert caught.value.status == 413
    assert "101" in str(caught.value.found)


def test_an_oversized_member_is_named(members: dict[str, bytes]) -> None:
    members["README.md"] = b"a" * (512 * 1024 + 1)
    with pytest.raises(PackageTooLarge) as caught:
        read_package(write_archive(members))
    assert caught.value.file == "README.md"


@pytest.mark.parametrize(
    "name",
    ["../evil", "/etc/passwd", "a/../../evil", "C:/evil", "a\\b", "a//b", "./a", "con. ", "nul\x00", "dir/", "a*b"],
)
def test_a_path_that_could_leave_the_package_is_refused(members: dict[str, bytes], name: str) -> None:
    assert code_of(write_archive({**members, name: b""})) == "package-members"


def test_a_member_named_twice_is_refused(members: dict[str, bytes]) -> None:
    data = write_archive({**members, "READMF.md": b"second"}).replace(b"READMF.md", b"README.md")
    with pytest.raises(PackageMembersInvalid, match="twice"):
        read_package(data)


def test_a_link_is_refused(members: dict[str, bytes]) -> None:
    data = bytearray(write_archive(members))
    entry = data.index(b"PK\x01\x02")
    struct.pack_into("<I", data, entry + 38, 0o120777 << 16)
    with pytest.raises(PackageMembersInvalid, match="a link"):
        read_package(bytes(data))


@pytest.mark.parametrize("name", ["setup.py", "component.wat", "icon.gif", "readme.md", "lib/README.md"])
def test_a_member_that_does_not_belong_is_refused(members: dict[str, bytes], name: str) -> None:
    assert code_of(write_archive({**members, name: b"x"})) == "package-members"


@pytest.mark.parametrize("name", ["plugin.toml", "component.wasm", "README.md", "settings.schema.json"])
def test_a_missing_member_is_named(members: dict[str, bytes], name: str) -> None:
    del members[name]
    with pytest.raises(PackageMembersInvalid) as caught:
        read_package(write_archive(members))
    assert caught.value.file == name


def test_a_changelog_may_be_missing(members: dict[str, bytes]) -> None:
    del members["CHANGELOG.md"]
    assert read_package(write_archive(members)).changelog == ""


def test_an_unknown_manifest_key_is_refused_by_name(members: dict[str, bytes]) -> None:
    members["plugin.toml"] = b"colour = 'red'\n" + members["plugin.toml"]
    with pytest.raises(ManifestError, match="unknown key colour"):
        read_package(write_archive(members))


@pytest.mark.parametrize(
    ("component", "said"),
    [(b"", "nothing"), (b"\x7fELF....", "not WebAssembly"), (b"\x00asm\x01\x00\x00\x00", "core WebAssembly module")],
)
def test_only_a_component_is_a_component(members: dict[str, bytes], component: bytes, said: str) -> None:
    members["component.wasm"] = component
    with pytest.raises(PackageContentInvalid, match="component") as caught:
        read_package(write_archive(members))
    assert said in str(caught.value)


@pytest.mark.parametrize(
    "schema",
    [
        "{",
        "[]",
        '{"type": "string"}',
        '{"type": "object", "properties": {"a": {"type": "colour"}}}',
        '{"type": "object", "properties": {"a": {"$ref": "https://example.com/s.json"}}}',
        '{"type": "object", "$schema": "http://json-schema.org/draft-04/schema#"}',
        '{"type": "object", "properties": ' + "[" * 50_000 + "]" * 50_000 + "}",
    ],
)
def test_a_settings_schema_must_be_one(members: dict[str, bytes], schema: str) -> None:
    members["settings.schema.json"] = schema.encode()
    assert code_of(write_archive(members)) == "package-content"


def test_the_settings_schema_cannot_be_another_member(members: dict[str, bytes]) -> None:
    members["plugin.toml"] = members["plugin.toml"].replace(b"settings.schema.json", b"README.md")
    assert code_of(write_archive(members)) == "package-members"


def test_text_must_be_utf8(members: dict[str, bytes]) -> None:
    members["README.md"] = b"\xff\xfe"
    assert code_of(write_archive(members)) == "package-content"


SVG = '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 8 8">{}</svg>'


@pytest.mark.parametrize(
    "inside",
    [
        "<script>alert(1)</script>",
        '<rect onload="alert(1)"/>',
        "<foreignObject/>",
        "<style>@import url(https://example.com)</style>",
        '<image href="https://example.com/a.png"/>',
        '<use href="https://example.com/a.svg#x"/>',
        '<rect fill="url(https://example.com/#x)"/>',
        '<rect style="background:url(//example.com)"/>',
        '<a xmlns:x="http://www.w3.org/1999/xlink" x:href="javascript:alert(1)"/>',
        '<html:script xmlns:html="http://www.w3.org/1999/xhtml"/>',
        '<animate attributeName="href" to="javascript:alert(1)"/>',
        "<rect",
    ],
)
def test_an_icon_that_could_act_is_refused(members: dict[str, bytes], inside: str) -> None:
    assert code_of(write_archive({**members, "icon.svg": SVG.format(inside).encode()})) == "package-content"


@pytest.mark.parametrize(
    "icon",
    [
        '<!DOCTYPE svg [<!ENTITY a "aaaa"><!ENTITY b "&a;&a;">]>' + SVG.format("<text>&b;</text>"),
        '<?xml-stylesheet href="https://example.com/a.css"?>' + SVG.format(""),
        "<html/>",
        "",
    ],
)
def test_an_icon_that_is_not_a_plain_drawing_is_refused(members: dict[str, bytes], icon: str) -> None:
    assert code_of(write_archive({**members, "icon.svg": icon.encode()})) == "package-content"


def test_a_drawing_with_gradients_and_local_references_is_an_icon(members: dict[str, bytes]) -> None:
    drawing = SVG.format(
        '<defs><linearGradient id="g"><stop offset="0" stop-color="#fff"/></linearGradient></defs>'
        '<circle cx="4" cy="4" r="3" fill="url(#g)"/><use href="#g"/>'
    ).encode()
    assert read_package(write_archive({**members, "icon.svg": drawing})).icon == drawing


@pytest.mark.parametrize(
    "png", [b"GIF89a" + b"\0" * 40, PNG[:20], PNG.replace(struct.pack(">I", 64), struct.pack(">I", 9000))]
)
def test_a_png_must_be_a_small_png(members: dict[str, bytes], png: bytes) -> None:
    assert code_of(write_archive({**members, "icon.png": png})) == "package-content"


def test_two_icons_are_one_too_many(members: dict[str, bytes]) -> None:
    icons = {"icon.png": PNG, "icon.svg": SVG.format("").encode()}
    assert code_of(write_archive({**members, **icons})) == "package-members"


def test_an_unreadable_package_is_never_built(folder: Path) -> None:
    (folder / "settings.schema.json").write_text(json.dumps({"type": "array"}))
    with pytest.raises(PackageContentInvalid):
        build_package(folder, EMPTY_COMPONENT)


# ---------------------------------------------------------------------- screenshots

_SHOT = '[[screenshots]]\nfile = "{}"\nshows = "The list"\n'
_WEBP = {
    "lossy": b"VP8 " + struct.pack("<I", 18) + b"\x30\x01\x00\x9d\x01\x2a" + struct.pack("<HH", 320, 200) + b"\0" * 8,
    "lossless": b"VP8L" + struct.pack("<I", 18) + b"\x2f" + struct.pack("<I", 319 | 199 << 14) + b"\0" * 13,
    "extended": b"VP8X" + struct.pack("<I", 10) + b"\0" * 4 + b"\x3f\x01\x00" + b"\xc7\x00\x00" + b"\0" * 4,
}


def _with_shots(folder: Path, *names: str) -> dict[str, bytes]:
    """Members of a package whose manifest names screenshots."""
    write_plugin(folder, more="\n".join(_SHOT.format(name) for name in names))
    texts = ("plugin.toml", "README.md", "CHANGELOG.md", "settings.schema.json")
    return {name: (folder / name).read_bytes() for name in texts} | {"component.wasm": EMPTY_COMPONENT}


def test_screenshots_are_packed_in_the_manifests_order(folder: Path) -> None:
    _with_shots(folder, "screenshots/b.png", "screenshots/a.webp")
    (folder / "screenshots").mkdir()
    (folder / "screenshots" / "b.png").write_bytes(png(300, 100, (1, 2, 3)))
    (folder / "screenshots" / "a.webp").write_bytes(b"RIFF\0\0\0\0WEBP" + _WEBP["lossy"])
    (folder / "screenshots" / "not-named.png").write_bytes(png(300, 100, (1, 2, 3)))
    data = build_package(folder, EMPTY_COMPONENT)
    shots = read_package(data).screenshots
    assert [(each.file, each.width, each.height, each.media_type) for each in shots] == [
        ("screenshots/b.png", 300, 100, "image/png"),
        ("screenshots/a.webp", 320, 200, "image/webp"),
    ]
    assert package_member(data, "screenshots/b.png") == png(300, 100, (1, 2, 3))
    assert package_member(data, "screenshots/not-named.png") is None


@pytest.mark.parametrize("kind", sorted(_WEBP))
def test_every_kind_of_webp_says_its_size(folder: Path, kind: str) -> None:
    members = _with_shots(folder, "screenshots/a.webp") | {"screenshots/a.webp": b"RIFF\0\0\0\0WEBP" + _WEBP[kind]}
    (shot,) = read_package(write_archive(members)).screenshots
    assert (shot.width, shot.height) == (320, 200)


@pytest.mark.parametrize(
    "picture",
    [
        b"",
        b"<svg xmlns='http://www.w3.org/2000/svg'/>",
        PNG[:20],
        png(63, 300, (0, 0, 0)),
        PNG.replace(struct.pack(">I", 64), struct.pack(">I", 9000)),
        b"RIFF\0\0\0\0WEBP" + _WEBP["lossy"],
    ],
)
def test_a_screenshot_that_is_no_such_picture_is_refused(folder: Path, picture: bytes) -> None:
    members = _with_shots(folder, "screenshots/a.png")
    assert code_of(write_archive(members | {"screenshots/a.png": picture})) == "package-content"


@pytest.mark.parametrize(
    "name",
    ["a.png", "screenshots/a.svg", "screenshots/A.png", "screenshots/../a.png", "screenshots/x/a.png", "icon.png"],
)
def test_a_screenshot_has_a_plain_name_in_its_folder(folder: Path, name: str) -> None:
    assert code_of(write_archive(_with_shots(folder, name))) == "package-members"


def test_screenshots_are_named_once_there_and_not_too_large(folder: Path) -> None:
    one = png(64, 64, (0, 0, 0))
    name = "screenshots/a.png"
    assert code_of(write_archive(_with_shots(folder, name))) == "package-members"
    assert code_of(write_archive(_with_shots(folder, name, name) | {name: one})) == "package-members"
    assert code_of(write_archive(_with_shots(folder) | {name: one})) == "package-members"
    assert code_of(write_archive(_with_shots(folder, name) | {name: one + bytes(513 * 1024)})) == "package-too-large"
