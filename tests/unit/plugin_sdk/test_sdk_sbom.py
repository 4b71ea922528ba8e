"""The list of what a component was linked from: valid by CycloneDX's own schema, and read back within bounds."""

import json
from pathlib import Path
from typing import Any

import pytest
from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator
from hypothesis import given
from hypothesis import strategies as st
from packageurl import PackageURL

from kernel.manifest import PluginManifest, load_manifest
from plugin_sdk.sbom import MAX_DEPTH, MAX_PARTS, MAX_SBOM_BYTES, Part, SbomInvalid, read_sbom, write_sbom
from plugin_sdk.scaffold import new_plugin
from plugin_sdk.toolchain.errors import BuildFailed
from plugin_sdk.toolchain.fetch import Tool
from plugin_sdk.toolchain.linked.golang import modules_of
from plugin_sdk.toolchain.linked.npm import packages_of
from plugin_sdk.toolchain.linked.vendored import crates, distributions, told, zig_packages

PARTS = (
    Part("npm", "@types/node", "22.1.0", "ab" * 64),
    Part("npm", "left-pad", "1.3.0"),
    Part("golang", "github.com/BurntSushi/toml", "v1.3.2+incompatible", "cd" * 32),
    Part("pypi", "Typing_Extensions", "4.1"),
    Part("cargo", "serde", "1.0.1"),
    Part("generic", "sqlite"),
    Part("golang", "stdlib", "1.26.8", kind="framework"),
)
NAMES = st.text(st.characters(codec="utf-8", exclude_categories=("C", "Z")), min_size=1, max_size=20)


@pytest.fixture
def manifest(tmp_path: Path) -> PluginManifest:
    return load_manifest(new_plugin(tmp_path, "hello", "python", "me"))


def test_the_document_is_valid_by_the_official_schema(manifest: PluginManifest) -> None:
    document = write_sbom(manifest, "ef" * 32, PARTS, "1.0")
    validator = JsonStrictValidator(SchemaVersion.V1_6)
    assert validator.validate_str(document.decode()) is None
    assert validator.validate_str(document.decode().replace('"library"', '"thing"', 1)) is not None


def test_what_was_written_is_read_and_names_the_very_component(manifest: PluginManifest) -> None:
    found = read_sbom(write_sbom(manifest, "ef" * 32, PARTS, "1.0"))
    assert (found.plugin, found.version, found.component) == ("me/hello", "0.1.0", "ef" * 32)
    assert sorted(part.purl for part in found.parts) == sorted(part.purl for part in PARTS)
    assert {part.digest for part in found.parts if part.name == "@types/node"} == {"ab" * 64}


def test_the_same_parts_in_any_order_give_the_same_bytes(manifest: PluginManifest) -> None:
    said = write_sbom(manifest, "ef" * 32, PARTS, "1.0")
    assert write_sbom(manifest, "ef" * 32, [*reversed(PARTS), PARTS[0]], "1.0") == said


@given(st.sampled_from(["cargo", "generic"]), NAMES, NAMES)
def test_package_urls_say_what_others_read_in_them(type_: str, name: str, version: str) -> None:
    purl = Part(type_, name.replace("/", "-").replace(".", "-"), version).purl
    read = PackageURL.from_string(purl)
    assert (read.type, read.name, read.version) == (type_, name.replace("/", "-").replace(".", "-"), version)


@pytest.mark.parametrize("part", PARTS)
def test_package_urls_are_in_canonical_form(part: Part) -> None:
    assert PackageURL.from_string(part.purl).to_string() == part.purl


def _document(components: Any, **more: Any) -> bytes:
    return json.dumps({"bomFormat": "CycloneDX", "specVersion": "1.6", "components": components, **more}).encode()


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"[]",
        b"{}",
        b"\xff",
        b"[" * 100_000,
        b'{"bomFormat": "CycloneDX", "specVersion": "9"}',
        _document("x"),
        _document([1]),
        _document([{"name": "x", "purl": "npm/x"}]),
        _document([{"name": "x", "purl": "pkg:npm"}]),
        _document([{"name": "x"}] * (MAX_PARTS + 1)),
        _document([], more=[[[[[[[[[[[[[[[[[[[[[[[[[[]]]]]]]]]]]]]]]]]]]]]]]]]]),
        _document([{"name": "x" * MAX_SBOM_BYTES}]),
    ],
)
def test_what_is_no_list_or_larger_than_anything_real_is_refused(data: bytes) -> None:
    with pytest.raises(SbomInvalid):
        read_sbom(data)


def test_parts_inside_parts_are_found_and_nesting_is_bounded() -> None:
    inner: dict[str, Any] = {"name": "deep", "purl": "pkg:npm/deep@1.0.0"}
    nested: dict[str, Any] = {"name": "outer", "components": [inner]}
    assert [part.name for part in read_sbom(_document([nested])).parts] == ["deep"]
    for _ in range(MAX_DEPTH):
        nested = {"name": "outer", "components": [nested]}
    with pytest.raises(SbomInvalid, match="nested too deeply"):
        read_sbom(_document([nested]))


def _write(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


def test_npm_packages_are_named_by_their_files_with_the_locks_digest(tmp_path: Path) -> None:
    _write(tmp_path / "package.json", '{"name": "mine", "version": "1.0.0"}')
    own = _write(tmp_path / "guest" / "plugin.js", "")
    _write(tmp_path / "node_modules" / "@a" / "b" / "package.json", '{"name": "@a/b", "version": "2.0.0"}')
    _write(tmp_path / "node_modules" / "@a" / "b" / "esm" / "package.json", '{"type": "module"}')
    theirs = _write(tmp_path / "node_modules" / "@a" / "b" / "esm" / "index.js", "")
    _write(
        tmp_path / "node_modules" / ".package-lock.json",
        '{"packages": {"node_modules/@a/b": {"integrity": "sha512-' + "AAAA" * 21 + 'AA=="}}}',
    )
    (found,) = packages_of([own, theirs], tmp_path)
    assert (found.purl, found.digest) == ("pkg:npm/%40a/b@2.0.0", "00" * 64)


def test_vendored_crates_distributions_and_zig_packages_are_named(tmp_path: Path) -> None:
    source = tmp_path / "guest"
    _write(source / "Cargo.toml", '[package]\nname = "plugin"\nversion = "0.1.0"\n')
    _write(source / "vendor" / "fast" / "Cargo.toml", '[package]\nname = "fast"\nversion = "1.2.3"\n')
    lock = '[[package]]\nname = "fast"\nversion = "1.2.3"\nchecksum = "' + "ab" * 32 + '"\n'
    _write(tmp_path / "Cargo.lock", lock + '[[package]]\nname = "never-linked"\nversion = "9.0.0"\n')
    assert list(crates(source, tmp_path)) == [Part("cargo", "fast", "1.2.3", "ab" * 32)]
    _write(source / "idna-3.10.dist-info" / "METADATA", "Metadata-Version: 2.1\nName: idna\nVersion: 3.10\n\nName: x\n")
    assert list(distributions(source)) == [Part("pypi", "idna", "3.10")]
    _write(source / "deps" / "build.zig.zon", '.{ .name = .ziglyph, .version = "0.11.2" }')
    assert list(zig_packages(source, tmp_path)) == [Part("generic", "ziglyph", "0.11.2")]


def test_an_authors_own_list_names_what_nothing_else_can_and_must_be_readable(tmp_path: Path) -> None:
    listed = _write(tmp_path / "vendored.cdx.json", "")
    listed.write_bytes(_document([{"type": "library", "name": "sqlite", "purl": "pkg:generic/sqlite@3.50.0"}]))
    assert [part.purl for part in told(tmp_path, "me/hello")] == ["pkg:generic/sqlite@3.50.0"]
    listed.write_text("{")
    with pytest.raises(BuildFailed, match=r"vendored\.cdx\.json"):
        list(told(tmp_path, "me/hello"))


def test_go_modules_are_those_that_go_lists_with_their_sums(tmp_path: Path) -> None:
    listed = [
        {"Module": {"Path": "guest", "Main": True}},
        {"Module": {"Path": "golang.org/x/text", "Version": "v0.3.7"}},
        {"Module": {"Path": "a.example/old", "Version": "v1.0.0", "Replace": {"Path": "../mine"}}},
        {},
    ]
    program = _write(tmp_path / "go", "")
    said = "".join(json.dumps(each) for each in listed)
    program.write_text(f"#!/bin/sh\nif [ $1 = env ]; then echo go1.26.8; else cat <<'END'\n{said}\nEND\nfi\n")
    program.chmod(0o755)
    sums = _write(tmp_path / "go.sum", "golang.org/x/text v0.3.7 h1:" + "A" * 43 + "=\n")
    found = list(modules_of(Tool((str(program),), {}), tmp_path, {}, sums))
    assert found == [
        Part("golang", "stdlib", "1.26.8", kind="framework"),
        Part("golang", "golang.org/x/text", "v0.3.7", "00" * 32),
    ]
