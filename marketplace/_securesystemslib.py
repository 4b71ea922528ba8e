"""securesystemslib's public names, re-exported: its package does not mark them as exports for mypy.

Imported lazily by the rest of the marketplace, because it pulls in ``cryptography``.
"""

from __future__ import annotations

from securesystemslib.dsse import Envelope
from securesystemslib.exceptions import UnverifiedSignatureError, VerificationError
from securesystemslib.signer import CryptoSigner, Signature, SSlibKey  # type: ignore[attr-defined]

__all__ = ["CryptoSigner", "Envelope", "SSlibKey", "Signature", "UnverifiedSignatureError", "VerificationError"]
