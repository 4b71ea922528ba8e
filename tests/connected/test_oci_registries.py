"""Plugins at a real OCI registry, pushed and pulled by us, and read by oras as any WebAssembly component."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from marketplace.oci.artifact import BUNDLE, PLUGIN, WASM, WASM_CONFIG
from marketplace.oci.carrying import pull_here, push_here
from tests.services.base import Unavailable
from tests.services.oci import oci_registry, oras
from tests.support.absent import absent
from tests.support.artifacts import Released


@pytest.fixture(params=["referrers", "plain"])
def registry(request: pytest.FixtureRequest) -> Iterator[str]:
    """A registry's address: one that lists referrers, and one from before there were any."""
    try:
        with oci_registry(plain=request.param == "plain") as address:
            yield address
    except Unavailable as error:
        absent(f"no OCI registry: {error}")


@pytest.fixture
def released(tmp_path: Path) -> Released:
    return Released(tmp_path)


def run_oras(*arguments: str, folder: Path) -> Any:
    try:
        return oras(*arguments, folder=folder)
    except Unavailable as error:
        absent(f"no oras: {error}")


def test_a_plugin_goes_through_a_registry_by_tag_and_by_digest(registry: str, released: Released) -> None:
    target = f"{registry}/acme/guard"
    pushed = push_here(released.central, "acme/guard", "1.1.0", target)
    again = push_here(released.central, "acme/guard", "1.1.0", target)
    assert again["component"] == pushed["component"]
    for source in (f"{target}:1.1.0", pushed["component"], pushed["package"]):
        pulled = pull_here(released.site, source, released.folder / "pulled")
        assert (pulled["plugin"], pulled["version"]) == ("acme/guard", "1.1.0")


def test_oras_reads_the_component_as_any_other_and_finds_the_signed_package(registry: str, released: Released) -> None:
    target = f"{registry}/acme/guard"
    pushed = push_here(released.central, "acme/guard", "1.1.0", target)
    manifest = json.loads(run_oras("manifest", "fetch", "--plain-http", f"{target}:1.1.0", folder=released.folder))
    (layer,) = manifest["layers"]
    assert (manifest["config"]["mediaType"], layer["mediaType"]) == (WASM_CONFIG, WASM)
    found = f"{target}@{layer['digest']}"
    run_oras("blob", "fetch", "--plain-http", "--output", "component.wasm", found, folder=released.folder)
    assert (released.folder / "component.wasm").read_bytes() == released.component
    listed = run_oras("discover", "--plain-http", "--format", "json", pushed["component"], folder=released.folder)
    (referrer,) = json.loads(listed)["referrers"]
    assert referrer["digest"] == pushed["package"].partition("@")[2]
    run_oras("pull", "--plain-http", pushed["package"], folder=released.folder)
    bundle = released.folder / "acme.guard-1.1.0.bundle"
    assert bundle.exists(), "a referrer's layer has the name of the file"
    document = json.loads(run_oras("manifest", "fetch", "--plain-http", pushed["package"], folder=released.folder))
    (carried,) = document["layers"]
    assert (document["artifactType"], carried["mediaType"]) == (PLUGIN, BUNDLE)
    assert carried["digest"] == f"sha256:{hashlib.sha256(bundle.read_bytes()).hexdigest()}"


def test_what_oras_copies_into_a_folder_is_pulled_from_there(registry: str, released: Released) -> None:
    target = f"{registry}/acme/guard:1.1.0"
    push_here(released.central, "acme/guard", "1.1.0", target)
    copy = ("cp", "--recursive", "--from-plain-http", "--to-oci-layout", target, "layout:1.1.0")
    run_oras(*copy, folder=released.folder)
    pulled = pull_here(released.site, f"oci:{released.folder}/layout:1.1.0", released.folder / "pulled")
    assert pulled["version"] == "1.1.0"


def test_a_layout_that_we_wrote_is_copied_by_oras_to_a_registry(registry: str, released: Released) -> None:
    layout, target = released.folder / "layout", f"{registry}/acme/guard:1.1.0"
    push_here(released.central, "acme/guard", "1.1.0", f"oci:{layout}")
    copy = ("cp", "--recursive", "--from-oci-layout", "--to-plain-http", f"{layout}:1.1.0", target)
    run_oras(*copy, folder=released.folder)
    assert pull_here(released.site, target, released.folder / "pulled")["version"] == "1.1.0"
