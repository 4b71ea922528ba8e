"""Plugins as OCI artifacts, in a layout on the disk: what tools read, and that a pull believes nothing."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest

from kernel.errors import Forbidden, KeelstoneError, NotFound, ValidationFailed
from marketplace.errors import VerificationFailed
from marketplace.oci.artifact import BUNDLE, PLUGIN, WASM, WASM_CONFIG, digest_of
from marketplace.oci.carrying import pull_here, push_here
from marketplace.oci.reference import Reference, is_loopback, read_reference
from marketplace.oci.remote import RemoteStore
from tests.support.artifacts import Released


class Pushed(Released):
    """A marketplace's release in a layout, and a machine elsewhere that trusts its root."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.layout = folder / "layout"

    def push(self, version: str = "1.1.0", tag: str = "") -> Any:
        return push_here(self.central, "acme/guard", version, f"oci:{self.layout}{tag}")

    def pull(self, which: str = ":1.1.0", **options: Any) -> Any:
        return pull_here(self.site, f"oci:{self.layout}{which}", self.folder / "pulled", **options)

    def manifests(self) -> list[Any]:
        return [self.blob(each["digest"]) for each in self.index()]

    def index(self) -> list[Any]:
        listed: list[Any] = json.loads((self.layout / "index.json").read_bytes())["manifests"]
        return listed

    def path(self, digest: str) -> Path:
        return self.layout / "blobs" / "sha256" / digest.removeprefix("sha256:")

    def blob(self, digest: str) -> Any:
        return json.loads(self.path(digest).read_bytes())


@pytest.fixture
def pushed(tmp_path: Path) -> Pushed:
    found = Pushed(tmp_path)
    found.push()
    return found


def test_the_component_is_laid_out_as_webassembly_tools_expect(pushed: Pushed) -> None:
    component, plugin = pushed.manifests()
    assert json.loads((pushed.layout / "oci-layout").read_bytes()) == {"imageLayoutVersion": "1.0.0"}
    (layer,) = component["layers"]
    assert (component["config"]["mediaType"], layer["mediaType"]) == (WASM_CONFIG, WASM)
    assert pushed.path(layer["digest"]).read_bytes() == pushed.component
    config = pushed.blob(component["config"]["digest"])
    assert (config["architecture"], config["os"], config["layerDigests"]) == ("wasm", "wasip2", [layer["digest"]])
    assert set(config["component"]) == {"imports", "exports"}
    assert (plugin["artifactType"], [each["mediaType"] for each in plugin["layers"]]) == (PLUGIN, [BUNDLE])
    assert plugin["subject"]["digest"] == pushed.index()[0]["digest"]
    for path in (pushed.layout / "blobs" / "sha256").iterdir():
        assert digest_of(path.read_bytes()) == f"sha256:{path.name}"


@pytest.mark.parametrize("by", ["tag", "component", "package"])
def test_a_plugin_is_pulled_by_tag_or_digest_and_verified_from_the_pinned_root(pushed: Pushed, by: str) -> None:
    again = pushed.push()
    which = ":1.1.0" if by == "tag" else f"@{again[by].rpartition('@')[2]}"
    pulled = pushed.pull(which)
    assert (pulled["plugin"], pulled["version"]) == ("acme/guard", "1.1.0")
    assert pulled["chain"][0].startswith("bundle: ")
    assert pulled["chain"][-1].startswith(f"artifact: its component is the layer {digest_of(pushed.component)}")
    assert Path(pulled["file"]).name == "acme.guard-1.1.0.bundle"


def test_pushing_again_gives_the_same_component_and_other_versions_stay(pushed: Pushed) -> None:
    first = pushed.index()[0]["digest"]
    assert pushed.push()["component"].endswith(first)
    pushed.push("1.0.0", ":old")
    names = [each["annotations"].get("org.opencontainers.image.ref.name") for each in pushed.index()]
    assert sorted(name for name in names if name) == ["1.1.0", "old"]
    assert pushed.pull(":old", older=True)["version"] == "1.0.0"


def replace_component(pushed: Pushed) -> None:
    """Somebody puts another component under the tag, and lets the signed package refer to it."""
    entry, referrer = pushed.index()
    component, plugin = pushed.manifests()

    def put(body: bytes) -> tuple[str, int]:
        pushed.path(digest_of(body)).write_bytes(body)
        return digest_of(body), len(body)

    component["layers"][0]["digest"], component["layers"][0]["size"] = put(b"\0asm\x0d\0\x01\0\0\x01\0")
    entry["digest"], entry["size"] = put(json.dumps(component).encode())
    plugin["subject"]["digest"], plugin["subject"]["size"] = entry["digest"], entry["size"]
    referrer["digest"], referrer["size"] = put(json.dumps(plugin).encode())
    index = {"schemaVersion": 2, "manifests": [entry, referrer]}
    (pushed.layout / "index.json").write_text(json.dumps(index))


def change_bundle(pushed: Pushed) -> None:
    """A byte of the bundle is changed, its digest is not."""
    path = pushed.path(pushed.manifests()[1]["layers"][0]["digest"])
    path.write_bytes(path.read_bytes()[:-1] + b"\x01")


def lengthen_bundle(pushed: Pushed) -> None:
    """More comes than the manifest says."""
    path = pushed.path(pushed.manifests()[1]["layers"][0]["digest"])
    path.write_bytes(path.read_bytes() + b" " * 1000)


def drop_referrer(pushed: Pushed) -> None:
    """The component alone, as a tool that knows nothing of plugins copies it."""
    index = {"schemaVersion": 2, "manifests": pushed.index()[:1]}
    (pushed.layout / "index.json").write_text(json.dumps(index))


def drop_blob(pushed: Pushed) -> None:
    """A blob got lost on the way."""
    pushed.path(pushed.manifests()[1]["layers"][0]["digest"]).unlink()


def add_layer(pushed: Pushed) -> None:
    """The component has another layer beside it."""
    entry, referrer = pushed.index()
    component, plugin = pushed.manifests()
    component["layers"] *= 2
    body = json.dumps(component).encode()
    pushed.path(digest_of(body)).write_bytes(body)
    entry["digest"], entry["size"] = digest_of(body), len(body)
    plugin["subject"]["digest"], plugin["subject"]["size"] = entry["digest"], entry["size"]
    body = json.dumps(plugin).encode()
    pushed.path(digest_of(body)).write_bytes(body)
    referrer["digest"], referrer["size"] = digest_of(body), len(body)
    (pushed.layout / "index.json").write_text(json.dumps({"schemaVersion": 2, "manifests": [entry, referrer]}))


@pytest.mark.parametrize(
    ("attack", "expected", "said"),
    [
        (replace_component, VerificationFailed, "is not the one in the signed package"),
        (change_bundle, VerificationFailed, "a blob is not the one"),
        (lengthen_bundle, VerificationFailed, "a blob is not the one"),
        (drop_referrer, NotFound, "No signed plugin refers"),
        (drop_blob, NotFound, "lacks the blob"),
        (add_layer, ValidationFailed, "is no plugin"),
    ],
)
def test_what_a_registry_changed_is_refused_and_not_kept(
    pushed: Pushed, attack: Callable[[Pushed], None], expected: type[KeelstoneError], said: str
) -> None:
    attack(pushed)
    with pytest.raises(expected, match=said):
        pushed.pull()
    folder = pushed.folder / "pulled"
    assert not folder.exists() or list(folder.iterdir()) == []


def test_wrong_root_a_plugin_of_another_marketplace_is_refused(pushed: Pushed, tmp_path: Path) -> None:
    other = Pushed(tmp_path / "other")
    shutil.rmtree(pushed.site.home)
    shutil.copytree(other.site.home, pushed.site.home)
    with pytest.raises(VerificationFailed, match="no marketplace whose root is trusted"):
        pushed.pull()


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("registry.example/acme/guard:1.0.0", Reference("registry.example", "acme/guard", "1.0.0")),
        ("127.0.0.1:5000/guard", Reference("127.0.0.1:5000", "guard")),
        ("localhost/guard@sha256:" + "0" * 64, Reference("localhost", "guard", None, "sha256:" + "0" * 64)),
        ("oci:some/folder:1.0.0", Reference(None, "some/folder", "1.0.0")),
        ("oci:/folder", Reference(None, "/folder")),
    ],
)
def test_references_are_read(text: str, expected: Reference) -> None:
    assert read_reference(text) == expected


@pytest.mark.parametrize(
    "text", ["guard", "acme/guard:1", "registry.example/Acme", "oci:", "a.b/c:1@sha256:12", "a.b/../c"]
)
def test_what_is_no_reference_is_refused(text: str) -> None:
    with pytest.raises(ValidationFailed):
        read_reference(text)


def test_only_this_machine_is_spoken_to_without_tls() -> None:
    assert [is_loopback(host) for host in ("localhost:5000", "127.0.0.1", "127.1.2.3:80")] == [True] * 3
    assert [is_loopback(host) for host in ("registry.example", "127.0.0.1.example", "localhost.example:80")] == [
        False
    ] * 3


def signing_in(realm: str) -> tuple[RemoteStore, list[httpx.Request]]:
    """A repository that gives a manifest to who has a token from ``realm``, and what it was asked."""
    asked: list[httpx.Request] = []

    def answer(request: httpx.Request) -> httpx.Response:
        asked.append(request)
        if request.url.host == "token.example":
            return httpx.Response(200, json={"token": "short-lived"})
        if request.headers.get("authorization") == "Bearer short-lived":
            return httpx.Response(200, content=b"{}")
        challenge = f'Bearer realm="{realm}",service="registry.example",scope="repository:guard:pull"'
        return httpx.Response(401, headers={"www-authenticate": challenge})

    client = httpx.Client(transport=httpx.MockTransport(answer))
    return RemoteStore("registry.example", "guard", ("ada", "word"), client), asked


def test_a_registry_that_asks_who_one_is_gets_a_token_from_its_token_service() -> None:
    store, asked = signing_in("https://token.example/token")
    assert store.manifest("1.0.0") == b"{}"
    assert asked[1].headers["authorization"] == httpx.BasicAuth("ada", "word")._auth_header
    assert dict(asked[1].url.params) == {"service": "registry.example", "scope": "repository:guard:pull"}
    assert [request.headers.get("authorization") for request in (asked[0], asked[2])] == [None, "Bearer short-lived"]


def test_no_password_goes_to_a_token_service_without_tls() -> None:
    store, asked = signing_in("http://token.example/token")
    with pytest.raises(Forbidden):
        store.manifest("1.0.0")
    assert [request.url.host for request in asked] == ["registry.example"]
