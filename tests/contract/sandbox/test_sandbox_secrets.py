"""Secrets over real connections: put in for the host and the place that the manifest names, taken out of answers."""

from __future__ import annotations

import base64
import json
import os
from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sandbox_server import http, serving

from kernel.manifest import HttpCapability, SecretsCapability
from sandbox.egress import Egress
from sandbox.outgoing import EgressRefused, EgressRequest
from sandbox.secrets import SHORTEST, CallSecrets, Masker

WHY = "needed by the tests"
VALUE = "s3cr3t-value"


async def loopback(host: str, port: int) -> list[str]:
    return ["127.0.0.1"]


def secrets_of(*hosts: str, places: tuple[str, ...] = ("header",), value: str = VALUE) -> CallSecrets:
    capability = SecretsCapability.model_validate(
        {"why": WHY, "names": {"token": {"why": WHY, "hosts": hosts, "places": places}}}
    )
    return CallSecrets(capability, {"token": value}, lambda size: b"\7" * size, lambda _name: None)


async def send(url, hosts, secrets, *, method="POST", headers=(), body=b""):
    allowed = HttpCapability(why=WHY, hosts=hosts, methods=("GET", "POST"))
    request = EgressRequest(method, url, headers, body, secrets.sent)
    egress = Egress(tuple(hosts), resolver=loopback)
    return await egress.send(request, allowed, {}, budget=100_000, seconds=10.0)


async def refused(*arguments, **more) -> EgressRefused:
    with pytest.raises(EgressRefused) as caught:
        await send(*arguments, **more)
    return caught.value


async def test_the_value_takes_the_placeholders_place_in_header_and_body():
    async with serving(lambda r: http()) as server:
        here = f"api.test:{server.port}"
        secrets = secrets_of(here, places=("header", "body"))
        mark = secrets.placeholders["token"]
        headers = (("authorization", f"Bearer {mark}"), ("x-plain", "token"))
        await send(f"http://{here}/", (here,), secrets, headers=headers, body=f'{{"key": "{mark}"}}'.encode())
        (got,) = server.requests
        assert got.headers["authorization"] == f"Bearer {VALUE}"
        assert got.headers["x-plain"] == "token"
        assert json.loads(got.body) == {"key": VALUE}
        assert int(got.headers["content-length"]) == len(got.body)


async def test_basic_credentials_are_encoded_by_the_host_for_a_guest_cannot():
    async with serving(lambda r: http()) as server:
        here = f"api.test:{server.port}"
        secrets = secrets_of(here)
        headers = (("authorization", f"Basic ann:{secrets.placeholders['token']}"), ("x-other", "Basic a:b"))
        await send(f"http://{here}/", (here,), secrets, headers=headers)
        sent = server.requests[0].headers
        assert base64.b64decode(sent["authorization"].removeprefix("Basic ")) == f"ann:{VALUE}".encode()
        assert sent["x-other"] == "Basic a:b"


async def test_a_secret_is_sent_to_its_own_hosts_only():
    async with serving(lambda r: http()) as server:
        mine, other = f"api.test:{server.port}", f"other.test:{server.port}"
        secrets = secrets_of(mine)
        headers = (("x-key", secrets.placeholders["token"]),)
        error = await refused(f"http://{other}/", (mine, other), secrets, headers=headers)
        assert (error.code, "token" in error.message, VALUE in error.message) == ("denied", True, False)
        assert server.connections == 0


@pytest.mark.parametrize(("place", "allowed"), [("header", "body"), ("body", "header")])
async def test_a_secret_stands_only_where_the_manifest_says(place, allowed):
    async with serving(lambda r: http()) as server:
        here = f"api.test:{server.port}"
        secrets = secrets_of(here, places=(allowed,))
        mark = secrets.placeholders["token"]
        more = {"headers": (("x-key", mark),)} if place == "header" else {"body": mark.encode()}
        assert (await refused(f"http://{here}/", (here,), secrets, **more)).code == "denied"
        assert server.connections == 0


async def test_a_secret_never_stands_in_an_address_or_a_headers_name():
    async with serving(lambda r: http()) as server:
        here = f"api.test:{server.port}"
        secrets = secrets_of(here, places=("header", "body"))
        mark = secrets.placeholders["token"]
        for url in (f"http://{here}/?key={mark}", f"http://{here}/{quote(mark)}"):
            assert (await refused(url, (here,), secrets)).code == "denied"
        assert (await refused(f"http://{here}/", (here,), secrets, headers=((mark, "x"),))).code == "invalid"
        assert server.connections == 0


async def test_a_redirect_to_another_host_leaves_the_secret_behind():
    async with serving(lambda r: http(body=b"there")) as there:
        target = f"other.test:{there.port}"
        async with serving(lambda r: http("302 Found", b"", f"Location: http://{target}/next")) as server:
            here = f"api.test:{server.port}"
            secrets = secrets_of(here)
            headers = (("x-key", secrets.placeholders["token"]), ("x-plain", "stays"))
            answer = await send(f"http://{here}/", (here, target), secrets, method="GET", headers=headers)
            assert answer.body == b"there"
            assert "x-key" not in there.requests[0].headers
            assert there.requests[0].headers["x-plain"] == "stays"


async def test_a_redirect_that_would_take_a_body_with_a_secret_elsewhere_is_refused():
    async with serving(lambda r: http()) as there:
        target = f"other.test:{there.port}"
        async with serving(lambda r: http("307 Temporary Redirect", b"", f"Location: http://{target}/")) as server:
            here = f"api.test:{server.port}"
            secrets = secrets_of(here, places=("body",))
            body = secrets.placeholders["token"].encode()
            error = await refused(f"http://{here}/", (here, target), secrets, body=body)
            assert error.code == "denied"
            assert there.connections == 0


async def test_a_value_that_would_break_a_header_is_refused():
    async with serving(lambda r: http()) as server:
        here = f"api.test:{server.port}"
        secrets = secrets_of(here, value="abc\r\nx-injected: 1")
        headers = (("x-key", secrets.placeholders["token"]),)
        assert (await refused(f"http://{here}/", (here,), secrets, headers=headers)).code == "invalid"
        assert server.connections == 0


@given(st.text(min_size=SHORTEST, max_size=60).filter(lambda t: t.isprintable() and "secret" not in t))
def test_the_usual_ways_to_write_a_value_are_taken_out(value):
    mask = Masker({"token": value})
    data = value.encode()
    for text in (
        value,
        f"before {value} after",
        json.dumps({"echo": value}),
        json.dumps({"echo": value}, ensure_ascii=False),
        quote(value, safe=""),
        data.hex(),
    ):
        assert "[secret token]" in mask(text)
        assert value not in mask(text)


@given(st.binary(max_size=20), st.text(alphabet="abcXYZ0189+/-_", min_size=12, max_size=40), st.binary(max_size=20))
def test_a_value_within_base64_is_taken_out_whatever_is_around_it(before, value, after):
    mask = Masker({"token": value})
    coded = base64.b64encode(before + value.encode() + after).decode()
    assert "[secret token]" in mask(coded)
    assert "[secret token]" in mask(base64.urlsafe_b64encode(before + value.encode() + after).decode())


def test_a_text_that_reads_like_a_placeholder_is_only_a_text():
    capability = SecretsCapability.model_validate({"why": WHY, "names": {"token": {"why": WHY, "hosts": ["a.test"]}}})
    made = {CallSecrets(capability, {"token": VALUE}, os.urandom, print).placeholders["token"] for _ in range(20)}
    assert len(made) == 20
