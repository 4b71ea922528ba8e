"""Registries in temporary folders, with a clock that stands still until told."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from marketplace.keys import SigningKey, generate_key
from marketplace.namespaces import make_key_set
from marketplace.publishing import SignedPackage
from marketplace.registry import Registry
from marketplace.testing import make_signed, write_plugin
from tests.support.sites import Site, published


class ManualClock:
    """A clock that only moves when told. Begins now: python-tuf compares with the machine's clock."""

    def __init__(self) -> None:
        self.at = time.time()

    def now(self) -> float:
        return self.at

    def advance(self, days: float) -> None:
        self.at += days * 86_400


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
def key() -> SigningKey:
    return generate_key()


OpenRegistry = Callable[..., Registry]
MakeRelease = Callable[..., SignedPackage]


@pytest.fixture
async def open_registry(tmp_path: Path, clock: ManualClock) -> AsyncIterator[OpenRegistry]:
    """Opens the registry in the test's folder, again and again if asked; closes them all."""
    opened: list[Registry] = []

    def open_one(**options: Any) -> Registry:
        registry = Registry.open(tmp_path / "registry", **{"clock": clock, **options})
        opened.append(registry)
        return registry

    yield open_one
    for registry in opened:
        await registry.close()


@pytest.fixture
async def registry(open_registry: OpenRegistry) -> Registry:
    return open_registry()


@pytest.fixture
def make_release(tmp_path: Path, key: SigningKey) -> MakeRelease:
    """A signed package: ``make_release("acme/guard", "1.0.0", readme=...)``."""

    def make(plugin: str = "acme/guard", version: str = "1.0.0", *, by: SigningKey | None = None, **text: str) -> Any:
        return make_signed(write_plugin(tmp_path / "sources", plugin, version, **text), by or key)  # type: ignore[arg-type]

    return make


@pytest.fixture
def register(key: SigningKey) -> Callable[..., Awaitable[Any]]:
    """Binds namespaces to the test's key."""

    async def bind(registry: Registry, *publishers: str) -> None:
        for publisher in publishers or ("acme",):
            await registry.register_namespace(make_key_set(publisher, [key]).document)

    return bind


@pytest.fixture
async def central(
    open_registry: OpenRegistry, register: Callable[..., Awaitable[Any]], make_release: MakeRelease
) -> Any:
    """An upstream with acme/guard 1.0.0 and 1.1.0."""
    registry = open_registry()
    await register(registry)
    for version in ("1.0.0", "1.1.0"):
        await published(registry, make_release(version=version))
    return registry


@pytest.fixture
async def site(central: Registry, tmp_path: Path, clock: ManualClock) -> AsyncIterator[Site]:
    """A marketplace of its own in front of ``central``, which it does not follow yet."""
    found = Site(tmp_path / "site", central, clock)
    yield found
    await found.registry.close()


@pytest.fixture
async def shop(registry: Registry, register: Callable[..., Awaitable[None]], make_release: Any) -> Registry:
    """A registry with acme/guard 1.0.0 and 1.1.0: three entries of its log. Several files have a shop of their own."""
    await register(registry)
    for version in ("1.0.0", "1.1.0"):
        signed = make_release(version=version)
        await registry.publish(signed.package.data, signed.envelope)
    return registry
