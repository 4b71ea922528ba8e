"""Marketplaces with an upstream, without a network between them."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from kernel.errors import BackendUnavailable
from marketplace.client import MarketplaceClient
from marketplace.log.note import VerifierKey
from marketplace.mirror.syncing import Mirror
from marketplace.registry import Registry
from marketplace.registry.log import LogRows
from marketplace.registry.tables import log_checkpoints, log_entries, log_tiles
from marketplace.registry.taken import Outcome
from marketplace.registry.upstreams import AddUpstream
from marketplace.transport import RegistryTransport, Transport

URL = "https://central.example/marketplace"


class Road:
    """The way to a marketplace, on which somebody sits: replaces, prolongs or blocks what comes by."""

    def __init__(self, registry: Registry) -> None:
        self._inner = RegistryTransport(registry.reader)
        self.replaced: dict[str, bytes] = {}
        self.endless: set[str] = set()
        self.blocked = False
        self.asked: list[str] = []

    def stream(self, path: str) -> Iterator[bytes]:
        self.asked.append(path)
        if self.blocked:
            raise BackendUnavailable("The cable is unplugged.")
        if any(path.startswith(each) for each in self.endless):
            while True:
                yield b" " * 65_536
        if path in self.replaced:
            yield self.replaced[path]
        else:
            yield from self._inner.stream(path)

    def read(self, path: str) -> bytes:
        return b"".join(self._inner.stream(path))

    def close(self) -> None:
        pass

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)


class Site:
    """A marketplace whose upstream is ``central``, reached over ``road``."""

    def __init__(self, folder: Path, central: Registry, clock: Any, **options: Any) -> None:
        self.folder, self.central, self.clock = folder, central, clock
        self.road = Road(central)
        self.open(**options)

    def open(self, **options: Any) -> None:
        """Open its registry, again if need be."""
        self.registry = Registry.open(self.folder, clock=self.clock, **options)
        self.registry.reader.upstreams.connect = self.connect
        self.mirror = Mirror(self.registry)

    def connect(self, url: str) -> Transport:
        assert url == URL
        return self.road

    async def follow(self, *only: str, local: tuple[str, ...] = (), root: bytes | None = None, **more: Any) -> None:
        document = self.central.trusted_root if root is None else root
        await self.mirror.add(AddUpstream("central", document, URL, only, local=local, **more))

    async def sync(self, *, ahead: bool = False) -> Outcome:
        return await self.mirror.sync("central", ahead=ahead)

    def client(self, cache: Path, witnesses: tuple[VerifierKey, ...] = ()) -> MarketplaceClient:
        transport = RegistryTransport(self.registry.reader)
        return MarketplaceClient(transport, cache, self.registry.trusted_root, witnesses=witnesses)


Make = Callable[..., Any]


async def published(registry: Registry, signed: Any) -> None:
    """Publish a signed package."""
    await registry.publish(signed.package.data, signed.envelope)


def fork_of(folder: Path, copy: Path, clock: Any) -> Registry:
    """A second history by somebody with the keys of the registry in ``folder``, whose log has three entries: the
    second and the third in another order."""
    shutil.copytree(folder, copy)
    fork = Registry.open(copy, clock=clock)
    with fork._tables.write() as connection:
        entries = [LogRows(connection).proof_of(index).entry for index in range(3)]
        origin = LogRows(connection).checkpoint().origin
        for table in (log_checkpoints, log_entries, log_tiles):
            connection.execute(table.delete())
        LogRows(connection).begin(origin, fork._keys.online("log"))
        LogRows(connection).append([entries[0], entries[2], entries[1]], {}, fork._keys.online("log"))
    return fork
