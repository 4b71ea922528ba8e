"""Limits, schemas, addresses and the gate of egress: decisions without any I/O."""

from __future__ import annotations

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kernel.manifest import HttpCapability, Limits
from kernel.settings import Settings
from sandbox.addresses import is_public
from sandbox.egress import Egress
from sandbox.outgoing import EgressRefused, EgressRequest
from sandbox.policy import effective_limits
from sandbox.schemas import EventSchemaRefused, check_event_schema, problem_with

# ---------------------------------------------------------------------- limits


@given(st.integers(1, 60_000), st.integers(1, 1_024), st.integers(1, 60_000), st.integers(1, 9_000))
def test_an_operator_can_only_lower_a_limit(time_ms, memory_mb, max_time_ms, max_memory_mb):
    limits = effective_limits(
        Limits(time_ms=time_ms, memory_mb=memory_mb),
        Settings(sandbox_max_time_ms=max_time_ms, sandbox_max_memory_mb=max_memory_mb),
    )
    assert limits.time_ms == min(time_ms, max_time_ms)
    assert limits.memory == min(memory_mb, max_memory_mb) << 20


# ---------------------------------------------------------------------- addresses


@pytest.mark.parametrize(
    "address",
    [
        "127.0.0.1", "127.255.0.9", "0.0.0.0", "10.1.2.3", "172.16.0.1", "192.168.1.1", "169.254.169.254", "100.64.0.1",
        "192.0.0.1", "192.0.2.1", "198.18.0.1", "198.51.100.7", "203.0.113.7", "224.0.0.1", "239.255.255.250",
        "240.0.0.1", "255.255.255.255",
        "::", "::1", "fe80::1", "fe80::1%eth0", "fc00::1", "fd12::1", "fec0::1", "ff02::1", "2001:db8::1",
        "::ffff:127.0.0.1", "::ffff:10.0.0.1", "::ffff:169.254.169.254", "::127.0.0.1", "64:ff9b::127.0.0.1",
        "64:ff9b::a00:1", "64:ff9b:1::1", "2002:7f00:1::", "2002:a9fe:a9fe::1", "2001:0:4136:e378:8000:63bf:3fff:fdd2",
        "::ffff:0:7f00:1", "", "localhost", "127.1", "2130706433",
    ],
)  # fmt: skip
def test_addresses_that_are_not_the_open_internets(address):
    assert not is_public(address)


@pytest.mark.parametrize(
    "address", ["1.1.1.1", "93.184.216.34", "2606:4700::1111", "2a00:1450::1", "64:ff9b::101:101", "::ffff:1.1.1.1"]
)
def test_addresses_of_the_open_internet(address):
    assert is_public(address)


@given(st.ip_addresses(v=4))
def test_wrapping_an_address_in_ipv6_never_opens_it(ip):
    number = int(ip)
    wrapped = [f"::ffff:{ip}", f"64:ff9b::{ip}", f"2002:{number >> 16:x}:{number & 0xFFFF:x}::1"]
    if not is_public(str(ip)):
        assert not any(is_public(w) for w in wrapped)


# ---------------------------------------------------------------------- the gate


async def nowhere(host: str, port: int) -> list[str]:
    raise AssertionError("nothing may be resolved before the gate has let it pass")


def gate(
    url: str, *hosts: str, method: str = "GET", private: tuple[str, ...] = (), settings: dict | None = None
) -> tuple:
    capability = HttpCapability(why="needed by tests", hosts=hosts, methods=("GET", "POST"))
    hop = Egress(private, resolver=nowhere)._gate(EgressRequest(method, url), capability, settings or {})
    return hop.host, hop.port, hop.private_ok


def code(*arguments: str, **more: object) -> str:
    with pytest.raises(EgressRefused) as caught:
        gate(*arguments, **more)  # type: ignore[arg-type]
    return caught.value.code


def test_hosts_are_exact_or_a_suffix():
    assert gate("https://api.example.com/x", "api.example.com") == ("api.example.com", 443, False)
    assert gate("https://API.Example.COM./x", "api.example.com") == ("api.example.com", 443, False)
    assert gate("https://a.b.example.com/", "*.example.com")[0] == "a.b.example.com"
    assert code("https://example.com/", "*.example.com") == "denied"
    assert code("https://badexample.com/", "*.example.com") == "denied"
    assert code("https://api.example.com.evil.test/", "api.example.com") == "denied"
    assert code("https://evil.test/?api.example.com", "api.example.com") == "denied"
    assert code("https://evil.test#@api.example.com/", "api.example.com") == "denied"
    assert code("https://api.example.com@evil.test/", "api.example.com") == "invalid"


def test_ports_are_part_of_the_host():
    assert gate("https://a.example.com:8443/", "a.example.com:8443")[1] == 8443
    assert code("https://a.example.com:8443/", "a.example.com") == "denied"
    assert code("https://a.example.com/", "a.example.com:8443") == "denied"


def test_only_https_leaves():
    assert code("http://a.example.com/", "a.example.com") == "denied"
    assert code("http://a.example.com/", "a.example.com:80") == "denied"
    assert gate("http://a.internal:8080/", "a.internal:8080", private=("a.internal:8080",))[2]
    for url in ("ftp://a.example.com/", "file:///etc/passwd", "gopher://a.example.com/", "//a.example.com/", "x", ""):
        assert code(url, "a.example.com") == "invalid"


def test_an_ipv6_address_is_opened_as_it_is_written_in_a_url():
    settings = {"hook": "http://[fd12::7]:8080/"}
    assert gate("http://[fd12::7]:8080/x", "setting:hook", private=("[fd12::7]:8080",), settings=settings)[2]
    assert code("http://[fd12::7]:8080/x", "setting:hook", private=("[fd12::8]:8080",), settings=settings) == "denied"


def test_methods_are_those_of_the_manifest():
    assert code("https://a.example.com/", "a.example.com", method="DELETE") == "denied"
    assert code("https://a.example.com/", "a.example.com", method="get") == "denied"


def test_a_setting_gives_host_and_port():
    hook = "https://hooks.example.com:8443/services/1"
    assert gate("https://hooks.example.com:8443/other", "setting:hook", settings={"hook": hook})[1] == 8443
    assert code("https://hooks.example.com/", "setting:hook", settings={"hook": hook}) == "denied"
    assert code("https://hooks.example.com/", "setting:hook") == "denied"


@pytest.mark.parametrize(
    "headers",
    [
        (("Host", "evil.test"),), (("connection", "upgrade"),), (("Transfer-Encoding", "chunked"),),
        (("Content-Length", "5"),), (("X-A", "a\r\nHost: evil.test"),), (("X-A", "a\n"),), (("X A", "a"),),
        (("", "a"),), (("X-A", "a\x00"),), (("X-A", "a" * 9_000),), (("X-A", "\u4e2d"),),
        (("Proxy-Authorization", "x"),),
        tuple((f"X-{n}", "a") for n in range(65)),
    ],
)  # fmt: skip
async def test_headers_that_a_guest_may_not_send(headers):
    request = EgressRequest("GET", "https://a.example.com/", headers)
    capability = HttpCapability(why="needed by tests", hosts=("a.example.com",))
    with pytest.raises(EgressRefused):
        await Egress(resolver=nowhere).send(request, capability, {}, budget=1_000, seconds=5)


async def test_a_name_without_an_address_is_unavailable():
    async def unknown(host: str, port: int) -> list[str]:
        raise OSError("no such name")

    capability = HttpCapability(why="needed by tests", hosts=("a.example.com",))
    with pytest.raises(EgressRefused) as caught:
        await Egress(resolver=unknown).send(
            EgressRequest("GET", "https://a.example.com/"), capability, {}, budget=1_000, seconds=5
        )
    assert caught.value.code == "unavailable"


@given(st.text(max_size=60))
def test_no_url_at_all_passes_but_to_the_listed_host(text):
    try:
        host, port, _ = gate(f"https://{text}", "a.example.com")
    except EgressRefused:
        return
    assert (host, port) == ("a.example.com", 443)
    assert httpx.URL(f"https://{text}").host.lower().rstrip(".") == "a.example.com"


# ---------------------------------------------------------------------- schemas


@pytest.mark.parametrize(
    "schema",
    [
        {"type": "object", "properties": {"a": {"type": "string", "pattern": "(?=a)b"}}},
        {"type": "object", "properties": {"a": {"type": "string", "pattern": "a{1000}{1000}{1000}"}}},
        {"$defs": {"a": {}}, "$ref": "#/$defs/a"},
        {"$ref": "http://evil.test/schema.json"},
        {"type": "object", "properties": {"a": {"items": {"$dynamicRef": "#x"}}}},
        {"allOf": [{"not": {"anyOf": [{"$ref": "#"}]}}]},
        {"type": "no such type"},
        {"type": "object", "properties": {"a": 7}},
    ],
)
def test_schemas_that_could_run_away_or_are_none_are_refused(schema):
    with pytest.raises(EventSchemaRefused) as caught:
        check_event_schema("lead.scored", schema, "acme/guest")
    assert caught.value.plugin == "acme/guest"


def test_a_schema_nested_without_end_is_refused():
    schema: dict = {}
    for _ in range(60):
        schema = {"not": schema}
    with pytest.raises(EventSchemaRefused):
        check_event_schema("lead.scored", schema)


def test_a_property_may_be_called_like_a_keyword():
    schema = {
        "type": "object",
        "properties": {"enum": {"type": "string"}, "$ref": {"type": "integer"}, "properties": {"type": "object"}},
        "not": {"enum": [{"$ref": 8}]},
    }
    check_event_schema("lead.scored", schema)
    assert problem_with({"enum": "x", "$ref": 7}, schema) is None
    assert problem_with({"enum": 7}, schema)
    assert problem_with({"$ref": 8}, schema)


def test_a_problem_names_its_place():
    schema = {"type": "object", "properties": {"list": {"items": {"type": "integer"}}}}
    assert problem_with({"list": [1, "x"]}, schema) == 'data.list[1]: "x" is not of type "integer"'


def test_data_nested_without_end_is_a_problem_and_not_a_crash():
    data: list = []
    for _ in range(900):
        data = [data]
    assert problem_with(data, {"type": "array", "items": {"type": "string"}})


def test_a_pattern_that_would_backtrack_for_ever_is_matched_at_once():
    schema = {"type": "object", "properties": {"name": {"type": "string", "pattern": "^(a+)+$"}}}
    check_event_schema("lead.scored", schema)
    assert problem_with({"name": "a" * 100_000}, schema) is None
    assert problem_with({"name": "a" * 100_000 + "b"}, schema)
