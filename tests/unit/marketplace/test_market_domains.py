"""Namespaces verified by DNS: publisher and domain must both say so, and the domain must go on saying it."""

from __future__ import annotations

import socket
import threading
from collections.abc import Awaitable, Callable, Collection, Iterator
from typing import Any

import dns.message
import dns.rcode
import dns.resolver
import dns.rrset
import pytest

from kernel.errors import BackendUnavailable, ValidationFailed
from marketplace.client import MarketplaceClient
from marketplace.dns import checked_domain, look_up, record_name, record_text
from marketplace.errors import DomainNotVerified, NamespaceUnknown, SignerUnknown
from marketplace.keys import SigningKey, generate_key
from marketplace.registry import Registry
from marketplace.signing import sign_domain
from marketplace.transport import RegistryTransport

Bind = Callable[..., Awaitable[None]]
Open = Callable[..., Registry]


class NameServer:
    """A DNS server on loopback: answers TXT from ``zone``, NXDOMAIN for other names, SERVFAIL while ``broken``."""

    def __init__(self) -> None:
        self.zone: dict[str, list[str]] = {}
        self.broken = False
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._socket.bind(("127.0.0.1", 0))
        self._thread = threading.Thread(target=self._serve)
        self._thread.start()

    def resolver(self) -> dns.resolver.Resolver:
        found = dns.resolver.Resolver(configure=False)
        found.nameservers, found.port = ["127.0.0.1"], self._socket.getsockname()[1]
        return found

    def _serve(self) -> None:
        while True:
            data, asker = self._socket.recvfrom(4_096)
            if not data:
                return
            asked = dns.message.from_wire(data)
            answer = dns.message.make_response(asked)
            name = asked.question[0].name
            texts = self.zone.get(str(name).removesuffix("."))
            if self.broken:
                answer.set_rcode(dns.rcode.SERVFAIL)
            elif texts is None:
                answer.set_rcode(dns.rcode.NXDOMAIN)
            else:
                quoted = [" ".join(f'"{part}"' for part in text.split("|")) for text in texts]
                answer.answer.append(dns.rrset.from_text_list(name, 60, "IN", "TXT", quoted))
            self._socket.sendto(answer.to_wire(), asker)

    def close(self) -> None:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as ending:
            ending.sendto(b"", self._socket.getsockname())
        self._thread.join(10)
        self._socket.close()


@pytest.fixture
def names() -> Iterator[NameServer]:
    server = NameServer()
    yield server
    server.close()


@pytest.fixture
async def shop(open_registry: Open, names: NameServer, register: Bind) -> Registry:
    def ask(name: str) -> Collection[str] | None:
        return look_up(name, names.resolver())

    registry = open_registry(look_up=ask)
    await register(registry, "acme", "globex")
    return registry


def says(names: NameServer, publisher: str = "acme", domain: str = "acme.example") -> None:
    names.zone[record_name(domain)] = ["v=spf1 -all", record_text(publisher)]


def test_a_real_answer_is_read_whole_and_no_answer_is_not_the_same_as_none(names: NameServer) -> None:
    names.zone["_keelstone.acme.example"] = ["keelstone-|namespace=acme", "other"]
    found = look_up("_keelstone.acme.example", names.resolver())
    assert sorted(found or ()) == ["keelstone-namespace=acme", "other"]
    assert look_up("_keelstone.nobody.example", names.resolver()) == ()
    names.broken = True
    assert look_up("_keelstone.acme.example", names.resolver()) is None


@pytest.mark.parametrize(
    "domain",
    ["", "localhost", "127.0.0.1", "a..b", "-a.example", "ümlaut.example", "a b.example", "x" * 64 + ".example",
     "acme.example/x", "*.acme.example"],
)  # fmt: skip
def test_what_is_no_domain_is_refused(domain: str) -> None:
    with pytest.raises(ValidationFailed, match="not a domain"):
        checked_domain(domain)


def test_a_domain_has_one_form() -> None:
    assert checked_domain(" Acme.Example. ") == "acme.example"
    assert checked_domain("xn--mlaut-jva.example") == "xn--mlaut-jva.example"


async def test_a_namespace_is_verified_when_both_say_so(shop: Registry, names: NameServer, key: SigningKey) -> None:
    asked = sign_domain("acme", "acme.example", key)
    with pytest.raises(DomainNotVerified, match=r"TXT record at _keelstone.acme.example: keelstone-namespace=acme"):
        await shop.verify_domain(asked)
    assert shop.reader.domains.of("acme") is None
    says(names)
    found = await shop.verify_domain(asked)
    assert (found.publisher, found.domain) == ("acme", "acme.example")
    assert shop.reader.domains.of("acme") == found == await shop.verify_domain(asked)
    assert shop.reader.domains.of("globex") is None


async def test_the_signed_index_of_each_plugin_names_the_domain_for_as_long_as_it_holds(
    shop: Registry, names: NameServer, key: SigningKey, make_release: Any, clock: Any, tmp_path: Any
) -> None:
    for plugin in ("acme/guard", "acme/second", "globex/guard"):
        signed = make_release(plugin)
        await shop.publish(signed.package.data, signed.envelope)
    client = MarketplaceClient(RegistryTransport(shop.reader), tmp_path / "cache", shop.trusted_root, clock=clock)

    async def domains() -> list[str | None]:
        return [(await client.info(plugin)).domain for plugin in ("acme/guard", "acme/second", "globex/guard")]

    says(names)
    await shop.verify_domain(sign_domain("acme", "acme.example", key))
    assert await domains() == ["acme.example", "acme.example", None]
    verified = await client.fetch("acme/guard", "1.0.0")
    assert verified.origin is not None
    assert verified.origin.domain == "acme.example"
    assert (await client.published("acme/guard"))["1.0.0"].domain == "acme.example"
    assert [found.domain for found in shop.reader.search("guard")] == ["acme.example"] * 2 + [None], (
        "verified ones first"
    )
    late = make_release("acme/third")
    await shop.publish(late.package.data, late.envelope)
    assert (await client.info("acme/third")).domain == "acme.example"
    del names.zone[record_name("acme.example")]
    clock.advance(1.5)
    await shop.renew()
    assert await domains() == [None, None, None]


async def test_namespace_takeover_a_domain_that_says_another_name_verifies_nothing(
    shop: Registry, names: NameServer, key: SigningKey
) -> None:
    says(names, "globex")
    with pytest.raises(DomainNotVerified):
        await shop.verify_domain(sign_domain("acme", "acme.example", key))


async def test_nobody_names_a_domain_for_anothers_namespace(shop: Registry, names: NameServer, key: SigningKey) -> None:
    says(names, "acme", "evil.example")
    with pytest.raises(SignerUnknown):
        await shop.verify_domain(sign_domain("acme", "evil.example", generate_key()))
    with pytest.raises(NamespaceUnknown):
        await shop.verify_domain(sign_domain("nobody", "evil.example", key))
    assert shop.reader.domains.of("acme") is None


async def test_it_is_taken_back_when_the_domain_no_longer_says_it_and_kept_while_nobody_can_be_asked(
    shop: Registry, names: NameServer, key: SigningKey, clock: Any
) -> None:
    says(names)
    await shop.verify_domain(sign_domain("acme", "acme.example", key))
    clock.advance(1.5)
    names.broken = True
    await shop.renew()
    assert shop.reader.domains.of("acme") is not None
    with pytest.raises(BackendUnavailable, match="could not be looked up"):
        await shop.verify_domain(sign_domain("acme", "acme.example", key))
    names.broken = False
    await shop.renew()
    assert shop.reader.domains.of("acme") is not None
    del names.zone[record_name("acme.example")]
    await shop.renew()
    assert shop.reader.domains.of("acme") is not None, "it was looked up a moment ago"
    clock.advance(1.5)
    await shop.renew()
    assert shop.reader.domains.of("acme") is None
