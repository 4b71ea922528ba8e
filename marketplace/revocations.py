"""The revocation list: releases that the marketplace's operator has ended everywhere, at once.

The list is a TUF target, so it is as fresh and as hard to forge as the metadata itself; each revocation is also a
signed statement in the transparency log. A revocation is about a digest and is never taken back: a mended plugin is
another version.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import Any

from kernel.errors import ValidationFailed
from marketplace.errors import ReleaseRevoked
from marketplace.listed import listed_document, read_listed
from plugin_sdk.services import Revocation

REVOCATIONS_TARGET = "registry/revocations.json"
WAIT_SECONDS = 25.0
"""How long a platform may be kept waiting for news in one request."""
_HOST = re.compile(r"^[A-Za-z0-9._-]{1,64}$")


def revocations_document(revoked: Iterable[Revocation]) -> bytes:
    """The target's bytes."""
    return listed_document("revoked", revoked)


def read_revocations(document: bytes | None) -> tuple[Revocation, ...]:
    """The list in a verified document; None: nothing was ever revoked. Raises VerificationFailed."""
    return read_listed(document, "revoked", "revocations", REVOCATIONS_TARGET, _revocation)


def _revocation(said: Any) -> Revocation:
    found = Revocation(**{name: str(value) for name, value in said.items()})
    datetime.fromisoformat(found.at)
    return found


def refuse_revoked(plugin: str, digest: str, revoked: Sequence[Revocation]) -> None:
    """Raise ReleaseRevoked if the package with ``digest`` is on the list."""
    for each in revoked:
        if each.digest == digest:
            raise ReleaseRevoked(
                f"{plugin} {each.version} was revoked by the marketplace: {each.reason}",
                plugin=plugin,
                found=f"revoked on {each.at}",
                fix="Install another version. If this one runs, it is quarantined by itself.",
            )


def check_report(host: str, seconds: float) -> None:
    """Raise ValidationFailed unless ``host`` can name a platform, and ``seconds`` be how long something took."""
    if not _HOST.match(host):
        raise ValidationFailed(
            "This cannot name a platform.", expected="1 to 64 letters, digits, dots or dashes", found=host
        )
    if not 0 <= seconds < math.inf:
        raise ValidationFailed("Nothing can take so long.", expected="seconds, 0 or more", found=str(seconds))
