"""A marketplace with releases in one data folder, and a machine elsewhere that trusts its root."""

from __future__ import annotations

import asyncio
from pathlib import Path

from kernel.settings import Settings
from marketplace.connect import registry_folder
from marketplace.keys import generate_key
from marketplace.namespaces import make_key_set
from marketplace.pinning import pin_root
from marketplace.registry import Registry
from marketplace.testing import make_signed, write_plugin


class Released:
    """acme/guard 1.0.0 and 1.1.0, published at ``central``; ``component`` is the last one's."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.central, self.site = Settings(home=folder / "central"), Settings(home=folder / "site")

        async def publish() -> bytes:
            registry = Registry.open(registry_folder(self.central))
            key = generate_key()
            await registry.register_namespace(make_key_set("acme", [key]).document)
            for version in ("1.0.0", "1.1.0"):
                signed = make_signed(write_plugin(folder / "sources", "acme/guard", version), key)
                await registry.publish(signed.package.data, signed.envelope)
            pin_root(self.site, registry.trusted_root)
            await registry.close()
            return signed.package.component

        self.component = asyncio.run(publish())
