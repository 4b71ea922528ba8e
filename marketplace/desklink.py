"""The link that lets an operator into the marketplace's pages: made by whoever has its data folder."""

from __future__ import annotations

import time

from kernel.errors import BackendUnavailable
from kernel.settings import Settings
from marketplace.datafolder import reading

FOLDERS = ("/marketplace", "")
"""Where pages are: below a platform's address, or at that of a marketplace that runs by itself."""


def make_desk_link(settings: Settings, address: str) -> str:
    """An address to open once, within ten minutes, on this machine.

    Raises NotFound if there is no marketplace in the data folder, BackendUnavailable if nobody serves it at
    ``address`` (host:port).
    """
    with reading(settings) as reader:
        base = find_pages(address)
        return f"{base}/desk/enter?link={reader.access.make_link(time.time())}"


def find_pages(address: str) -> str:
    """Where the marketplace at ``host:port`` has its pages. Raises BackendUnavailable."""
    import httpx

    for folder in FOLDERS:
        base = f"http://{address}{folder}"
        try:
            # Whose pages they are does not matter: only the registry that made a link takes it.
            if httpx.get(f"{base}/log/checkpoint", timeout=5.0).status_code == 200:
                return base
        except httpx.HTTPError:
            continue
    raise BackendUnavailable(
        f"Nobody serves a marketplace at {address}.",
        fix="Start it with `keelstone serve` or `keelstone marketplace serve`, or say where with --at.",
    )
