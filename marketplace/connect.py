"""Which marketplace a platform or command talks to, and which root it trusts.

``KEELSTONE_MARKETPLACE_URL`` names a service; otherwise the embedded registry in the data folder is
meant. The embedded registry's root is trusted by being here; a service's root is pinned once with
``keelstone marketplace trust``, which writes it into the data folder.
"""

from __future__ import annotations

from pathlib import Path

from kernel.errors import ConfigurationError
from kernel.settings import Settings
from marketplace.client import MarketplaceClient
from marketplace.errors import VerificationFailed
from marketplace.log.note import WITNESS, VerifierKey, read_vkey
from marketplace.logbook import Logbook
from marketplace.registry import Registry, RegistryReader
from marketplace.registry.registry import ROOT_FILE
from marketplace.transport import HttpTransport, RegistryTransport, Transport

PINNED_ROOT = "trusted-root.json"


def registry_folder(settings: Settings) -> Path:
    """The embedded registry's folder."""
    return settings.home / "marketplace"


def cache_folder(settings: Settings) -> Path:
    """Where verified metadata is cached."""
    return settings.home / "marketplace-cache"


def max_package_bytes(settings: Settings) -> int:
    """The largest package, in bytes."""
    return settings.max_package_mb * 1024 * 1024


def service_url(settings: Settings) -> str | None:
    """The address of the marketplace service, or None for the embedded one."""
    if settings.marketplace_url:
        return settings.marketplace_url.rstrip("/")
    return f"{settings.url.rstrip('/')}/marketplace" if settings.url else None


def trusted_root(settings: Settings) -> bytes:
    """The root metadata that is trusted: the embedded registry's own, or the pinned one of a service.

    Raises VerificationFailed, with the way to pin one, if there is none.
    """
    embedded, pinned = registry_folder(settings) / ROOT_FILE, settings.home / PINNED_ROOT
    if not settings.marketplace_url and embedded.exists():
        return embedded.read_bytes()
    if pinned.exists():
        return pinned.read_bytes()
    raise VerificationFailed(
        "root",
        "no marketplace is trusted on this machine yet.",
        file=str(pinned),
        fix="Pin a service's root with `keelstone marketplace trust`, or start the embedded one: `keelstone serve`.",
    )


def trusted_witnesses(settings: Settings) -> tuple[VerifierKey, ...]:
    """The witnesses named in the settings. Raises ConfigurationError if they cannot be what is needed of them."""
    found = tuple(read_vkey(vkey) for vkey in settings.marketplace_witnesses)
    if strangers := [each.name for each in found if each.algorithm != WITNESS]:
        raise ConfigurationError(
            f"KEELSTONE_MARKETPLACE_WITNESSES names the key of a log: {', '.join(strangers)}.",
            fix="Name witnesses, as `keelstone marketplace witness` prints them.",
        )
    if settings.marketplace_witnesses_needed > len({each.key for each in found}):
        raise ConfigurationError(
            "More witnesses are needed than are named.",
            expected=f"KEELSTONE_MARKETPLACE_WITNESSES_NEEDED of at most {len({each.key for each in found})}",
            found=str(settings.marketplace_witnesses_needed),
            fix="Name more of them in KEELSTONE_MARKETPLACE_WITNESSES.",
        )
    return found


def open_client(settings: Settings, registry: Registry | None = None) -> MarketplaceClient:
    """The client that the settings describe. ``registry`` is the embedded one, if this process has it open.

    Raises VerificationFailed if no root is trusted yet, and ConfigurationError.
    """
    witnesses = trusted_witnesses(settings)
    transport, root = road(settings, registry)
    return MarketplaceClient(
        transport,
        cache_folder(settings),
        root,
        max_package_bytes=max_package_bytes(settings),
        witnesses=witnesses,
        witnesses_needed=settings.marketplace_witnesses_needed,
    )


def open_logbook(settings: Settings) -> Logbook:
    """The log of the marketplace that the settings describe. Raises as :func:`open_client`."""
    witnesses = trusted_witnesses(settings)
    transport, root = road(settings, None)
    needed = settings.marketplace_witnesses_needed
    return Logbook(transport, cache_folder(settings), root, witnesses=witnesses, witnesses_needed=needed)


def road(settings: Settings, registry: Registry | None) -> tuple[Transport, bytes]:
    """The way to the marketplace, and the root that is trusted."""
    transport: Transport
    if settings.marketplace_url:
        transport = HttpTransport(settings.marketplace_url)
    elif registry is not None:
        transport = RegistryTransport(registry.reader)
    else:
        reader = RegistryReader.open(registry_folder(settings))
        url = service_url(settings)
        if reader is not None:
            transport = RegistryTransport(reader, owned=True)
        else:
            transport = HttpTransport(url or f"http://{settings.host}:{settings.port}/marketplace")
    root = registry.trusted_root if registry is not None and not settings.marketplace_url else trusted_root(settings)
    return transport, root
