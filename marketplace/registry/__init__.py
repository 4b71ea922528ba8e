"""The registry: the marketplace's state, its rules of intake, and its signed metadata."""

from marketplace.registry.reader import RegistryReader
from marketplace.registry.receipts import NamespaceRecord, Receipt
from marketplace.registry.registry import Registry

__all__ = ["NamespaceRecord", "Receipt", "Registry", "RegistryReader"]
