"""Pinning a marketplace's root: the one decision of trust that a person makes."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kernel.errors import NotFound, ValidationFailed
from kernel.files import write_durably
from kernel.settings import Settings
from marketplace.connect import PINNED_ROOT, service_url
from marketplace.errors import VerificationFailed
from marketplace.transport import HttpTransport

if TYPE_CHECKING:
    from tuf.api.metadata import Root

MAX_ROOT_BYTES = 512_000


def fetch_root(settings: Settings, file: Path | None, *, first_use: bool) -> bytes:
    """The root metadata in ``file``, or from the service if ``first_use`` says so.

    Raises NotFound, ValidationFailed or BackendUnavailable.
    """
    if file is not None:
        try:
            return file.read_bytes()
        except OSError as error:
            raise NotFound(f"{file} cannot be read: {error.strerror}.", file=str(file)) from error
    url = service_url(settings)
    if not first_use or url is None:
        raise ValidationFailed(
            "Say which root to trust.",
            expected="a root file, or KEELSTONE_MARKETPLACE_URL with --first-use",
            fix="Get root.json from the marketplace's operator over another way than the marketplace itself.",
        )
    transport, body = HttpTransport(url), bytearray()
    try:
        for chunk in transport.stream("metadata/1.root.json"):
            body += chunk
            if len(body) > MAX_ROOT_BYTES:
                raise VerificationFailed("root", "the root metadata is too large.")
    finally:
        transport.close()
    return bytes(body)


def pin_root(settings: Settings, body: bytes) -> dict[str, Any]:
    """Check that ``body`` is a root signed by its own keys, and pin it. Raises VerificationFailed.

    Returns what a person compares with what the operator says.
    """
    path = settings.home / PINNED_ROOT
    root = check_root(body)
    write_durably(path, body)
    return {
        "file": str(path),
        "sha256": hashlib.sha256(body).hexdigest(),
        "version": root.version,
        "threshold": root.roles["root"].threshold,
        "keys": list(root.roles["root"].keyids),
        "expires": root.expires.isoformat(),
    }


def check_root(body: bytes) -> Root:
    """The root metadata in ``body``, if its own keys signed it. Raises VerificationFailed."""
    from tuf.api.exceptions import RepositoryError
    from tuf.api.metadata import Metadata, Root

    try:
        metadata = Metadata[Root].from_bytes(body)
        if metadata.signed.type != Root.type:
            raise VerificationFailed("root", "the file is TUF metadata of another kind.", found=metadata.signed.type)
        metadata.signed.verify_delegate(Root.type, metadata.signed_bytes, metadata.signatures)
    except RepositoryError as error:
        raise VerificationFailed("root", f"the file is not a root signed by its own keys: {error}.") from error
    return metadata.signed
