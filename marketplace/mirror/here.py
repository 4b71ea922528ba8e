"""Mirroring by whoever has the marketplace's data folder: its keys are what gives the right to."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from kernel.errors import ValidationFailed
from kernel.files import read_named
from kernel.settings import Settings
from marketplace.connect import (
    PINNED_ROOT,
    cache_folder,
    max_package_bytes,
    registry_folder,
    road,
    trusted_witnesses,
)
from marketplace.datafolder import change, reading
from marketplace.log.note import WITNESS, read_vkey
from marketplace.mirror.bundle import BundleFile
from marketplace.mirror.exporting import Exporter, read_wanted
from marketplace.mirror.importing import import_bundle
from marketplace.mirror.reading import is_from, read_about
from marketplace.mirror.syncing import Mirror
from marketplace.pinning import check_root
from marketplace.registry import Registry, RegistryReader
from marketplace.registry.registry import ROOT_FILE
from marketplace.registry.upstreams import AddUpstream


def add_here(
    settings: Settings,
    url: str,
    root: Path,
    name: str | None,
    only: Sequence[str],
    local: Sequence[str],
    witnesses: Sequence[str],
    needed: int,
) -> dict[str, Any]:
    """Mirror another marketplace, as plain data. Raises NotFound, ValidationFailed, VerificationFailed or Conflict."""
    address = urlsplit(url)
    if address.scheme not in ("http", "https") or not address.hostname:
        raise ValidationFailed("This is not a marketplace's address.", expected="https://...", found=url)
    if needed > len({read_vkey(each).key for each in witnesses if read_vkey(each).algorithm == WITNESS}):
        raise ValidationFailed("More witnesses are needed than are named.", found=str(needed))
    document = read_named(root)
    check_root(document)
    called = name or address.hostname.lower()
    added = AddUpstream(
        called, document, url.rstrip("/"), tuple(only), tuple(witnesses), needed=needed, local=tuple(local)
    )

    async def add(registry: Registry) -> dict[str, Any]:
        found = await Mirror(registry).add(added)
        return {**found.to_dict(), "plugins": len(registry.reader.upstreams.plugins(found.root))}

    return change(settings, add)


def sync_here(settings: Settings, name: str | None, *, ahead: bool) -> list[dict[str, Any]]:
    """Take over what is new at one upstream, or at all. Raises as ``Mirror.sync``."""

    async def sync(registry: Registry) -> list[dict[str, Any]]:
        every = [each.name for each in registry.reader.upstreams.all() if each.url is not None]
        return [asdict(await Mirror(registry).sync(each, ahead=ahead)) for each in ([name] if name else every)]

    return change(settings, sync)


def list_here(settings: Settings) -> dict[str, Any]:
    """The upstreams, and where namespaces resolve. Raises NotFound."""
    with reading(settings) as reader:
        desk = reader.upstreams
        found = [{**each.to_dict(), "plugins": len(desk.plugins(each.root))} for each in desk.all()]
        return {"upstreams": found, "namespaces": desk.claims()}


def claim_here(settings: Settings, publisher: str, where: str) -> None:
    """Decide where a namespace resolves. Raises NotFound, ValidationFailed or NamespaceMirrored."""
    change(settings, lambda registry: Mirror(registry).claim(publisher, where))


def remove_here(settings: Settings, name: str) -> dict[str, Any]:
    """Follow an upstream no more. Raises NotFound."""

    async def remove(registry: Registry) -> dict[str, Any]:
        return (await Mirror(registry).remove(name)).to_dict()

    return change(settings, remove)


def export_here(
    settings: Settings, out: Path, plugins: Sequence[str], *, requirements: bool, packages: bool
) -> dict[str, Any]:
    """Write a bundle of the marketplace that the settings name. Raises as ``Exporter.export``."""
    wanted = [read_wanted(each) for each in plugins]
    with exporter_here(settings) as exporter:
        return exporter.export(out, wanted, requirements=requirements, packages=packages)


@contextmanager
def exporter_here(settings: Settings) -> Iterator[Exporter]:
    """An exporter of the marketplace that the settings name. Raises VerificationFailed if no root is trusted."""
    transport, root = road(settings, None)
    witnesses, needed = trusted_witnesses(settings), settings.marketplace_witnesses_needed
    limit = max_package_bytes(settings)
    with closing(transport):
        yield Exporter(transport, cache_folder(settings), root, time.time, limit, witnesses, needed)


def import_here(settings: Settings, file: Path, root: Path | None, name: str | None, *, older: bool) -> dict[str, Any]:
    """Take a bundle into the registry in the data folder. Raises as ``import_bundle``."""
    document = None if root is None else read_named(root)

    async def bring(registry: Registry) -> dict[str, Any]:
        return asdict(await import_bundle(registry, file, root=document, name=name, older=older))

    return change(settings, bring)


def show_here(settings: Settings, file: Path) -> dict[str, Any]:
    """What a bundle says of itself, and whose it is, if that is trusted here. Raises BundleCorrupt."""
    with BundleFile(file, max_package_bytes(settings)) as bundle:
        about = read_about(bundle)
        whose = next((name for name, root in _roots(settings) if is_from(bundle, root)), None)
    return {**about, "file": str(file), "trusted": whose}


def _roots(settings: Settings) -> Iterator[tuple[str, bytes]]:
    """Every root that is trusted on this machine, with whose it is."""
    for whose, path in (
        ("the pinned marketplace", settings.home / PINNED_ROOT),
        ("the marketplace in this data folder", registry_folder(settings) / ROOT_FILE),
    ):
        if path.exists():
            yield whose, path.read_bytes()
    reader = RegistryReader.open(registry_folder(settings))
    if reader is not None:
        with closing(reader):
            for each in reader.upstreams.all():
                yield f"the upstream {each.name}", each.document
