"""The marketplace: registry, signing, verification and search; a service of its own.

The public names load when first used: the command line must not import a database to print help.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from marketplace.client import MarketplaceClient, Verification
    from marketplace.connect import open_client, registry_folder, trusted_root
    from marketplace.package import Package, build_package, read_package
    from marketplace.publishing import publish_folder, sign_folder
    from marketplace.registry import NamespaceRecord, Receipt, Registry
    from marketplace.service import create_app

__all__ = [
    "MarketplaceClient",
    "NamespaceRecord",
    "Package",
    "Receipt",
    "Registry",
    "Verification",
    "build_package",
    "create_app",
    "open_client",
    "publish_folder",
    "read_package",
    "registry_folder",
    "sign_folder",
    "trusted_root",
]

_HOMES = {
    "client": ("MarketplaceClient", "Verification"),
    "connect": ("open_client", "registry_folder", "trusted_root"),
    "package": ("Package", "build_package", "read_package"),
    "publishing": ("publish_folder", "sign_folder"),
    "registry": ("NamespaceRecord", "Receipt", "Registry"),
    "service": ("create_app",),
}


def __getattr__(name: str) -> Any:
    for module, names in _HOMES.items():
        if name in names:
            return getattr(import_module(f"marketplace.{module}"), name)
    raise AttributeError(f"module 'marketplace' has no attribute {name!r}")
