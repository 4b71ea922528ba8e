"""HTTP for guests over real connections: allow-list, checked addresses, redirects, budgets, TLS."""

from __future__ import annotations

import asyncio
import datetime
import gzip
import ssl

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from sandbox_server import http, serving

from kernel.manifest import HttpCapability
from sandbox.egress import Egress
from sandbox.outgoing import EgressRefused, EgressRequest


@pytest.fixture
def lane():
    """What this page is about comes before the lanes part."""
    return "fast"


def capability(*hosts: str, methods: tuple[str, ...] = ("GET", "POST")) -> HttpCapability:
    return HttpCapability(why="needed by the tests", hosts=hosts, methods=methods)


async def loopback(host: str, port: int) -> list[str]:
    return ["127.0.0.1"]


async def send(egress: Egress, url: str, allowed: HttpCapability, **more):
    request = EgressRequest(more.pop("method", "GET"), url, more.pop("headers", ()), more.pop("body", b""))
    more = {"budget": 100_000, "seconds": 10.0} | more
    return await egress.send(request, allowed, more.pop("settings", {}), **more)


async def refused(egress: Egress, url: str, allowed: HttpCapability, **more) -> EgressRefused:
    with pytest.raises(EgressRefused) as caught:
        await send(egress, url, allowed, **more)
    return caught.value


async def test_a_private_address_is_refused_by_default():
    async with serving(lambda r: http(body=b"inside")) as server:
        url = f"http://127.0.0.1:{server.port}/"
        error = await refused(Egress(), url.replace("http:", "https:"), capability(f"127.0.0.1:{server.port}"))
        assert error.code == "denied"
        assert "private" in error.message
        assert server.connections == 0


async def test_an_operator_can_open_one_private_host_and_port():
    async with serving(lambda r: http(body=b"inside")) as server, serving(lambda r: http()) as other:
        egress = Egress((f"127.0.0.1:{server.port}",))
        allowed = capability(f"127.0.0.1:{server.port}", f"127.0.0.1:{other.port}")
        answer = await send(egress, f"http://127.0.0.1:{server.port}/a?b=c#d", allowed)
        assert (answer.status, answer.body) == (200, b"inside")
        assert server.requests[0].line == "GET /a?b=c HTTP/1.1"
        error = await refused(egress, f"http://127.0.0.1:{other.port}/", allowed)
        assert error.code == "denied"
        assert other.connections == 0


async def test_the_name_is_resolved_once_and_that_address_is_used():
    asked = []

    async def once(host: str, port: int) -> list[str]:
        asked.append((host, port))
        return ["127.0.0.1"] if len(asked) == 1 else ["127.0.0.66"]

    async with serving(lambda r: http(body=b"pinned")) as server:
        name = f"hooks.test:{server.port}"
        answer = await send(Egress((name,), resolver=once), f"http://{name}/", capability(name))
        assert answer.body == b"pinned"
        assert asked == [("hooks.test", server.port)]
        assert server.requests[0].headers["host"] == name


async def test_a_public_name_with_one_private_address_is_refused():
    async def mixed(host: str, port: int) -> list[str]:
        return ["93.184.216.34", "10.0.0.1"]

    error = await refused(Egress(resolver=mixed), "https://api.example.com/", capability("api.example.com"))
    assert error.code == "denied"
    assert "private" in error.message


async def test_a_setting_names_the_host():
    async with serving(lambda r: http("204 No Content")) as server:
        here = f"http://127.0.0.1:{server.port}/services/T1"
        egress, allowed = Egress((f"127.0.0.1:{server.port}",)), capability("setting:hook_url")
        answer = await send(
            egress, here, allowed, method="POST", body=b"hi", settings={"hook_url": here}, headers=(("X-A", "1"),)
        )
        assert answer.status == 204
        assert server.requests[0].body == b"hi"
        assert server.requests[0].headers["x-a"] == "1"
        for settings in ({}, {"hook_url": "https://elsewhere.example/"}, {"hook_url": 7}, {"hook_url": "nonsense"}):
            assert (await refused(egress, here, allowed, settings=settings)).code == "denied"
        assert server.connections == 1


async def test_a_redirect_to_a_host_outside_the_list_is_refused():
    async with serving(lambda r: http(body=b"secret")) as inner:
        target = f"http://127.0.0.1:{inner.port}/"
        async with serving(lambda r: http("302 Found", b"", f"Location: {target}")) as outer:
            private = (f"127.0.0.1:{outer.port}", f"127.0.0.1:{inner.port}")
            error = await refused(
                Egress(private), f"http://127.0.0.1:{outer.port}/", capability(f"127.0.0.1:{outer.port}")
            )
        assert error.code == "denied"
        assert inner.connections == 0


async def test_a_redirect_to_a_private_address_is_refused_though_its_name_is_listed():
    async with serving(lambda r: http(body=b"secret")) as inner:
        target = f"https://listed.test:{inner.port}/"
        async with serving(lambda r: http("307 Temporary Redirect", b"", f"Location: {target}")) as outer:
            outside, inside = f"open.test:{outer.port}", f"listed.test:{inner.port}"
            error = await refused(
                Egress((outside,), resolver=loopback), f"http://{outside}/", capability(outside, inside)
            )
        assert error.code == "denied"
        assert "private" in error.message
        assert inner.connections == 0


async def test_redirects_are_followed_and_secrets_stay_with_their_origin():
    async with serving(lambda r: http(body=b"arrived")) as second:
        there = f"second.test:{second.port}"
        async with serving(lambda r: http("303 See Other", b"", f"Location: http://{there}/done")) as first:
            here = f"first.test:{first.port}"
            answer = await send(
                Egress((here, there), resolver=loopback),
                f"http://{here}/start",
                capability(here, there),
                method="POST",
                body=b"form",
                headers=(("Authorization", "Bearer x"), ("Content-Type", "text/plain"), ("X-Kept", "yes")),
            )
            assert first.requests[0].headers["authorization"] == "Bearer x"
        assert answer.body == b"arrived"
        assert second.requests[0].line == "GET /done HTTP/1.1"
        assert second.requests[0].headers["x-kept"] == "yes"
        assert second.requests[0].body == b""
        assert {"authorization", "content-type"}.isdisjoint(second.requests[0].headers)


async def test_a_redirect_may_not_change_to_a_method_outside_the_list():
    async with serving(lambda r: http("303 See Other", b"", "Location: /next")) as server:
        here = f"127.0.0.1:{server.port}"
        error = await refused(
            Egress((here,)), f"http://{here}/", capability(here, methods=("POST",)), method="POST", body=b"x"
        )
        assert error.code == "denied"
        assert len(server.requests) == 1


async def test_endless_redirects_end():
    async with serving(lambda r: http("302 Found", b"", "Location: /again")) as server:
        here = f"127.0.0.1:{server.port}"
        error = await refused(Egress((here,)), f"http://{here}/", capability(here))
        assert "redirects" in error.message
        assert len(server.requests) == 6


async def test_an_answer_above_the_budget_is_cut_off():
    async with serving(lambda r: http(body=b"x" * 200_000)) as server:
        here = f"127.0.0.1:{server.port}"
        counted = []
        error = await refused(Egress((here,)), f"http://{here}/", capability(here), budget=10_000, count=counted.append)
        assert error.code == "limit-http"
        assert sum(counted) > 10_000


async def test_a_compressed_answer_is_opened_but_a_bomb_is_not():
    small = gzip.compress(b"hello " * 100)
    bomb = gzip.compress(bytes(50_000_000))
    async with serving(
        lambda r: http("200 OK", small if "small" in r.line else bomb, "Content-Encoding: gzip")
    ) as server:
        here = f"127.0.0.1:{server.port}"
        egress = Egress((here,))
        answer = await send(egress, f"http://{here}/small", capability(here))
        assert answer.body == b"hello " * 100
        assert "content-encoding" not in dict(answer.headers)
        assert (await refused(egress, f"http://{here}/bomb", capability(here))).code == "limit-http"


@pytest.mark.parametrize(
    ("answer", "code"),
    [
        (http("200 OK", b"x", "Content-Encoding: br"), "unavailable"),
        (http("200 OK", b"not gzip", "Content-Encoding: gzip"), "invalid"),
        (b"nonsense\r\n\r\n", "unavailable"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 50\r\n\r\nshort", "unavailable"),
    ],
)
async def test_a_damaged_answer_is_a_failure_and_not_a_crash(answer, code):
    async with serving(lambda r: answer) as server:
        here = f"127.0.0.1:{server.port}"
        assert (await refused(Egress((here,)), f"http://{here}/", capability(here))).code == code


async def test_a_silent_server_costs_no_more_than_the_time_left():
    async with serving(lambda r: b"") as server:
        here = f"127.0.0.1:{server.port}"
        error = await refused(Egress((here,)), f"http://{here}/", capability(here), seconds=0.2)
        assert error.code == "deadline"


async def test_a_closed_port_is_unavailable():
    async with serving(lambda r: http()) as server:
        here = f"127.0.0.1:{server.port}"
    assert (await refused(Egress((here,)), f"http://{here}/", capability(here))).code == "unavailable"


async def test_the_next_address_is_tried_when_one_does_not_answer():
    async def two(host: str, port: int) -> list[str]:
        return ["127.0.0.2", "127.0.0.1"]

    async with serving(lambda r: http(body=b"second")) as server:
        name = f"two.test:{server.port}"
        assert (await send(Egress((name,), resolver=two), f"http://{name}/", capability(name))).body == b"second"


async def test_nothing_of_the_environment_is_used(monkeypatch):
    async with serving(lambda r: http(body=b"direct")) as server:
        for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"):
            monkeypatch.setenv(name, "http://127.0.0.1:9")
        here = f"127.0.0.1:{server.port}"
        assert (await send(Egress((here,)), f"http://{here}/", capability(here))).body == b"direct"


# ---------------------------------------------------------------------- TLS


def _tls(tmp_path, name: str) -> tuple[ssl.SSLContext, ssl.SSLContext]:
    """A server's context with a certificate for ``name``, and a client's that trusts it."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    now = datetime.datetime.now(datetime.UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(hours=1))
        .not_valid_after(now + datetime.timedelta(hours=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(name)]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .sign(key, hashes.SHA256())
    )
    chain, secret = tmp_path / f"{name}.pem", tmp_path / f"{name}.key"
    chain.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    secret.write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    serves = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    serves.load_cert_chain(chain, secret)
    return serves, ssl.create_default_context(cafile=str(chain))


async def test_tls_checks_the_name_though_the_connection_is_to_an_address(tmp_path):
    serves, trusts = _tls(tmp_path, "api.test")
    seen = []
    serves.sni_callback = lambda _socket, name, _context: seen.append(name)
    async with serving(lambda r: http(body=b"sealed"), serves) as server:
        name = f"api.test:{server.port}"
        egress = Egress((name,), resolver=loopback, ssl_context=trusts)
        assert (await send(egress, f"https://{name}/", capability(name))).body == b"sealed"
        assert seen == ["api.test"]


async def test_tls_refuses_a_certificate_for_another_name(tmp_path):
    serves, trusts = _tls(tmp_path, "other.test")
    async with serving(lambda r: http(body=b"sealed"), serves) as server:
        name = f"api.test:{server.port}"
        egress = Egress((name,), resolver=loopback, ssl_context=trusts)
        error = await refused(egress, f"https://{name}/", capability(name))
        assert error.code == "unavailable"
        assert server.requests == []


# ---------------------------------------------------------------------- through a guest


async def test_a_guest_posts_to_the_host_in_its_setting(opened):
    async with serving(lambda r: http(body=b"thanks, \xff")) as server:
        here = f"127.0.0.1:{server.port}"
        settings = {"hook_url": f"http://{here}/hook"}
        async with opened(http_private_allow=(here,)) as box:
            result = await box.run("host", f"phttp://{here}/hook\nhello", settings=settings)
            assert result.output == "thanks, \ufffd"
            assert result.usage.http_bytes > len("hello") + len("thanks, x")
            assert server.requests[0].body == b"hello"
            assert (await box.run("host", f"phttp://{here}/hook\nhello")).output == "!denied"
        async with opened() as box:
            assert (await box.run("host", f"phttp://{here}/hook\nhello", settings=settings)).output == "!denied"
    assert server.connections == 1


async def test_a_guest_waiting_for_a_silent_server_ends_with_its_time(opened, make_manifest):
    async with serving(lambda r: b"") as server:
        here = f"127.0.0.1:{server.port}"
        async with opened(http_private_allow=(here,)) as box:
            work = box.run(
                "host",
                f"phttp://{here}/\nhello",
                settings={"hook_url": f"http://{here}/"},
                manifest=make_manifest(limits={"time_ms": 300}),
            )
            found = (await asyncio.gather(work, return_exceptions=True))[0]
            assert getattr(found, "output", "!deadline") == "!deadline"
            assert (await box.run("echo", "still here")).output == "still here"


@pytest.mark.parametrize(
    "name",
    ["X-HTTP-Method-Override", "X-Original-URL", "X-Real-IP", "HTTP2-Settings", "Transfer-Encoding", "Host", "TE"],
)
async def test_headers_that_would_undo_a_check_are_the_hosts_own(name):
    async with serving(lambda r: http()) as server:
        here = f"127.0.0.1:{server.port}"
        error = await refused(Egress((here,)), f"http://{here}/", capability(here), headers=((name, "x"),))
        assert error.code == "denied"
        assert server.connections == 0


@pytest.mark.parametrize("value", ["a\r\nx: y", "a\nb", "a\0b", " a", "a\t", "\x7f"])
async def test_values_that_servers_read_differently_are_refused(value):
    async with serving(lambda r: http()) as server:
        here = f"127.0.0.1:{server.port}"
        error = await refused(Egress((here,)), f"http://{here}/", capability(here), headers=(("x-a", value),))
        assert error.code == "invalid"
        assert server.connections == 0


async def test_a_manifest_can_name_the_headers_that_may_be_set():
    async with serving(lambda r: http()) as server:
        here = f"127.0.0.1:{server.port}"
        allowed = capability(here).model_copy(update={"headers": ("x-mine",)})
        await send(Egress((here,)), f"http://{here}/", allowed, headers=(("X-Mine", "1"),))
        assert server.requests[0].headers["x-mine"] == "1"
        error = await refused(Egress((here,)), f"http://{here}/", allowed, headers=(("X-Other", "1"),))
        assert error.code == "denied"
        assert server.connections == 1


async def test_every_hop_is_told():
    async with serving(
        lambda r: http("302 Found", b"", "Location: /next") if "next" not in r.line else http()
    ) as server:
        here = f"127.0.0.1:{server.port}"
        visited = []
        await send(Egress((here,)), f"http://{here}/", capability(here), visit=lambda *hop: visited.append(hop))
        assert visited == [("GET", "127.0.0.1"), ("GET", "127.0.0.1")]


async def test_an_answer_that_unpacks_to_nothing_is_counted_nevertheless():
    empty = gzip.compress(b"")
    # A gzip file may have an endless comment; nothing of it comes out at the other end.
    endless = empty[:3] + b"\x10" + empty[4:10] + b"c" * 300_000
    async with serving(lambda r: http("200 OK", endless, "Content-Encoding: gzip")) as server:
        here = f"127.0.0.1:{server.port}"
        assert (await refused(Egress((here,)), f"http://{here}/", capability(here))).code == "limit-http"
