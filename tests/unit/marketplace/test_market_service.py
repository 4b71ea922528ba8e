"""The REST service: open reading, writing by signature, every error a problem document."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import httpx
import pytest
from fastapi import FastAPI

from kernel.errors import error_catalogue
from marketplace.keys import SigningKey, generate_key
from marketplace.namespaces import make_key_set
from marketplace.registry import Registry
from marketplace.service import create_app
from marketplace.signing import SIGNATURE_SUFFIX, sign_deprecation, sign_yank

Make = Callable[..., Any]
Bind = Callable[..., Awaitable[None]]


@pytest.fixture
async def http(registry: Registry) -> AsyncIterator[httpx.AsyncClient]:
    """Requests to the service as the platform mounts it."""
    platform = FastAPI()
    platform.mount("/marketplace", create_app(registry))
    transport = httpx.ASGITransport(app=platform)
    async with httpx.AsyncClient(transport=transport, base_url="http://test/marketplace") as client:
        yield client


def parts(signed: Any, envelope: bytes | None = None) -> dict[str, Any]:
    name = signed.package.file_name
    form: dict[str, Any] = {"package": (name, signed.package.data, "application/zip")}
    if envelope is not None or signed.envelope:
        form["signature"] = (name + SIGNATURE_SUFFIX, envelope or signed.envelope, "application/json")
    return form


def problem(response: httpx.Response, status: int, code: str) -> dict[str, Any]:
    assert response.headers["content-type"] == "application/problem+json"
    body: dict[str, Any] = response.json()
    assert (response.status_code, body["status"], body["code"]) == (status, status, code)
    assert body["type"] == f"urn:keelstone:error:{code}"
    assert body["detail"]
    return body


async def test_from_a_namespace_to_a_release_that_search_finds(
    http: httpx.AsyncClient, key: SigningKey, make_release: Make
) -> None:
    problem(await http.get("/namespaces/acme"), 404, "namespace-unknown")
    bound = await http.post("/namespaces", content=make_key_set("acme", [key]).document)
    assert (bound.status_code, bound.json()["keys"]) == (201, [key.id])
    assert (await http.get("/namespaces/acme")).json()["threshold"] == 1

    signed = make_release()
    answer = await http.post("/publish", files=parts(signed))
    assert answer.status_code == 201
    receipt = answer.json()
    assert (receipt["plugin"], receipt["state"], receipt["digest"]) == ("acme/guard", "live", signed.package.digest)
    assert (await http.post("/publish", files=parts(signed))).json() == receipt

    (found,) = (await http.get("/search", params={"q": "guard"})).json()["results"]
    assert (found["id"], found["latest"], found["keywords"]) == ("acme/guard", "1.0.0", ["safety"])
    page = (await http.get("/plugins/acme/guard")).json()
    assert [r["version"] for r in page["releases"]] == ["1.0.0"]
    release = (await http.get("/plugins/acme/guard/versions/1.0.0")).json()
    assert release["manifest"]["id"] == "acme/guard"
    assert release["readme"].startswith("# Guard")
    package = await http.get(f"/packages/{receipt['digest']}")
    assert package.content == signed.package.data
    assert "immutable" in package.headers["cache-control"]


async def test_metadata_and_targets_are_served_as_tuf_clients_ask(http: httpx.AsyncClient, registry: Registry) -> None:
    timestamp = await http.get("/metadata/timestamp.json")
    assert timestamp.content == registry.reader.metadata("timestamp.json")
    assert timestamp.headers["cache-control"] == "no-cache"
    first_root = await http.get("/metadata/1.root.json")
    assert first_root.content == registry.trusted_root
    assert "immutable" in first_root.headers["cache-control"]
    empty = {(await http.get(f"/metadata/1.bins-{n:03x}.json")).content for n in (0, 1, 0x3FF)}
    assert len(empty) == 1
    for path in ("2.root.json", "1.bins-400x.json", "9.bins-000.json", "..%2Fkeys%2Fonline%2Fbins.pem", "registry.db"):
        problem(await http.get(f"/metadata/{path}"), 404, "not-found")
    for path in ("plugins/acme/guard.json", "../../registry.db", f"plugins/acme/{'0' * 64}.guard.json"):
        assert (await http.get(f"/targets/{path}")).status_code == 404


async def test_a_package_is_served_only_if_a_release_names_it(http: httpx.AsyncClient, registry: Registry) -> None:
    digest = await registry._blobs.put(b"left by a publish that died")
    for name in (digest, "0" * 64, "nonsense", "..%2F..%2Fregistry.db"):
        assert (await http.get(f"/packages/{name}")).status_code == 404


async def test_each_bad_publish_has_its_own_problem(
    http: httpx.AsyncClient, registry: Registry, register: Bind, make_release: Make
) -> None:
    await register(registry)
    good = make_release()
    stranger = make_release(by=generate_key())
    cases = [
        ({"package": parts(good)["package"]}, 401, "signature-missing"),
        (parts(good, stranger.envelope), 403, "signer-unknown"),
        (parts(good, make_release("acme/other").envelope), 403, "signature-invalid"),
        (parts(good, b"not an envelope"), 403, "signature-invalid"),
        ({**parts(good), "package": ("p", good.package.data[:-9])}, 422, "package-corrupt"),
        (parts(make_release("globex/guard")), 404, "namespace-unknown"),
        (parts(make_release(hook="user_vanishing")), 422, "release-refused"),
        ({"signature": parts(good)["signature"]}, 422, "validation"),
    ]
    for form, status, code in cases:
        problem(await http.post("/publish", files=form), status, code)
    assert (await http.get("/search")).json() == {"results": [], "facets": None}
    await http.post("/publish", files=parts(good))
    taken = problem(await http.post("/publish", files=parts(make_release(readme="# Else\n"))), 409, "version-taken")
    assert good.package.digest in taken["expected"]


async def test_an_unknown_manifest_key_is_named(
    http: httpx.AsyncClient, registry: Registry, register: Bind, make_release: Make
) -> None:
    from marketplace.archive import read_archive, write_archive

    await register(registry)
    signed = make_release()
    members = read_archive(signed.package.data, 10**6)
    members["plugin.toml"] = b"colour = 'red'\n" + members["plugin.toml"]
    form = {**parts(signed), "package": ("p", write_archive(members))}
    body = problem(await http.post("/publish", files=form), 422, "manifest")
    assert "unknown key colour" in body["detail"]


async def test_a_body_that_declares_too_much_is_refused_unread(open_registry: Callable[..., Registry]) -> None:
    registry = open_registry(max_package_bytes=1_000)
    transport = httpx.ASGITransport(app=create_app(registry))
    async with httpx.AsyncClient(transport=transport, base_url="http://test") as http:
        problem(await http.post("/publish", content=b"x" * 200_000), 413, "package-too-large")
        problem(await http.post("/namespaces", content=b"x" * 200_000), 413, "package-too-large")


async def test_a_body_that_hides_its_length_is_cut_off(open_registry: Callable[..., Registry]) -> None:
    sent = 0

    async def endless() -> AsyncIterator[bytes]:
        nonlocal sent
        yield b'--b\r\nContent-Disposition: form-data; name="package"; filename="p"\r\n\r\n'
        while True:
            sent += 65_536
            yield b"x" * 65_536

    registry = open_registry(max_package_bytes=1_000)
    transport = httpx.ASGITransport(app=create_app(registry))
    async with httpx.AsyncClient(transport=transport, base_url="http://test") as http:
        headers = {"Content-Type": "multipart/form-data; boundary=b"}
        answer = await http.post("/publish", content=endless(), headers=headers)
    problem(answer, 413, "package-too-large")
    assert sent < 1_000_000


async def test_namespaces_are_refused_clearly(
    http: httpx.AsyncClient, registry: Registry, register: Bind, key: SigningKey
) -> None:
    await register(registry)
    other = make_key_set("acme", [generate_key()]).document
    problem(await http.post("/namespaces", content=other), 409, "namespace-taken")
    problem(await http.post("/namespaces", content=b"{}"), 403, "signature-invalid")
    tampered = json.loads(make_key_set("globex", [key]).document)
    tampered["payload"] = json.loads(make_key_set("initech", [key]).document)["payload"]
    problem(await http.post("/namespaces", json=tampered), 403, "signature-invalid")


async def test_yanking_needs_the_publishers_signature(
    http: httpx.AsyncClient, registry: Registry, register: Bind, make_release: Make, key: SigningKey
) -> None:
    await register(registry)
    signed = make_release()
    await http.post("/publish", files=parts(signed))
    theirs = sign_yank("acme/guard", "1.0.0", signed.package.digest, "spite", generate_key())
    problem(await http.post("/yank", content=theirs), 403, "signer-unknown")
    mine = sign_yank("acme/guard", "1.0.0", signed.package.digest, "it bites", key)
    answer = await http.post("/yank", content=mine)
    assert (answer.status_code, answer.json()["state"]) == (200, "yanked")
    page = (await http.get("/plugins/acme/guard")).json()
    assert page["entry"] is None
    assert page["releases"][0]["yanked"]["reason"] == "it bites"


async def test_bad_requests_are_problems_too(http: httpx.AsyncClient) -> None:
    problem(await http.get("/search", params={"limit": "many"}), 422, "validation")
    problem(await http.get("/nowhere"), 404, "not-found")
    problem(await http.delete("/search"), 405, "method-not-allowed")
    problem(await http.get("/plugins/acme/nothing"), 404, "not-found")
    problem(await http.get("/plugins/acme/nothing/versions/1.0.0"), 404, "not-found")
    problem(await http.get("/namespaces/..%2Fx"), 404, "not-found")


async def test_what_fails_inside_is_a_problem_without_its_insides(registry: Registry) -> None:
    app = create_app(registry)

    @app.get("/broken")
    def broken() -> None:
        raise RuntimeError("secret detail")

    transport = httpx.ASGITransport(app=app, raise_app_exceptions=False)
    async with httpx.AsyncClient(transport=transport, base_url="http://test") as http:
        body = problem(await http.get("/broken"), 500, "internal")
    assert "secret" not in json.dumps(body)


async def test_the_service_describes_itself(http: httpx.AsyncClient) -> None:
    document = (await http.get("/openapi.json")).json()
    assert document["openapi"].startswith("3.1")
    form = document["paths"]["/publish"]["post"]["requestBody"]["content"]["multipart/form-data"]["schema"]
    assert form["required"] == ["package", "signature"]
    assert (await http.get("/healthz")).json() == {"status": "ok"}


def test_every_error_of_the_marketplace_has_a_code_of_its_own() -> None:
    import marketplace.errors as module

    ours = {v for v in vars(module).values() if isinstance(v, type) and v.__module__ == module.__name__}
    catalogue = error_catalogue()
    assert {catalogue[cls.code] for cls in ours} == ours  # type: ignore[attr-defined]


async def test_anybody_may_ask_what_publishing_would_find(http: httpx.AsyncClient, make_release: Make) -> None:
    broken = make_release(hook="user_vanishing")
    answer = await http.post("/validate", files={"package": (broken.package.file_name, broken.package.data)})
    assert answer.status_code == 200
    assert [each["rule"] for each in answer.json()["findings"]] == ["hooks"]
    assert (await http.get("/search")).json()["results"] == []
    problem(await http.post("/validate", files={"other": ("x", b"x")}), 422, "validation")
    problem(await http.post("/validate", files={"package": ("x", b"no package")}), 422, "package-corrupt")
    assert {each["id"] for each in (await http.get("/rules")).json()} >= {"kind", "secrets", "version-growth"}


async def test_advice_against_a_plugin_needs_the_publishers_signature(
    http: httpx.AsyncClient, registry: Registry, register: Bind, make_release: Make, key: SigningKey
) -> None:
    await register(registry)
    signed = make_release()
    await registry.publish(signed.package.data, signed.envelope)
    at = "2026-01-01T00:00:00Z"
    theirs = sign_deprecation("acme/guard", "spite", None, at, generate_key())
    problem(await http.post("/deprecate", content=theirs), 403, "signer-unknown")
    mine = sign_deprecation("acme/guard", "resting", None, at, key)
    assert (await http.post("/deprecate", content=mine)).json()["reason"] == "resting"
    assert (await http.get("/plugins/acme/guard")).json()["deprecated"]["reason"] == "resting"
