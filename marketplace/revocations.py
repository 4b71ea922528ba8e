"""The revocation list: releases that the marketplace's operator has ended everywhere, at once.

The list is a TUF target, so it is as fresh and as hard to forge as the metadata itself; each revocation is also a
signed statement in the transparency log. A revocation is about a digest and is never taken back: a mended plugin is
another version.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterable, Sequence
from dataclasses import asdict
from datetime import datetime

from kernel.errors import ValidationFailed
from marketplace.errors import ReleaseRevoked, VerificationFailed
from marketplace.signing import canonical_json
from plugin_sdk.services import Revocation

REVOCATIONS_TARGET = "registry/revocations.json"
FORMAT = 1
WAIT_SECONDS = 25.0
"""How long a platform may be kept waiting for news in one request."""
_HOST = re.compile(r"^[A-Za-z0-9._-]{1,64}$")


def revocations_document(revoked: Iterable[Revocation]) -> bytes:
    """The target's bytes."""
    return canonical_json({"format": FORMAT, "revoked": [asdict(each) for each in revoked]})


def read_revocations(document: bytes | None) -> tuple[Revocation, ...]:
    """The list in a verified document; None: nothing was ever revoked. Raises VerificationFailed."""
    if document is None:
        return ()
    try:
        said = json.loads(document)
        if said["format"] != FORMAT:
            raise ValueError(f"format {said['format']}")
        found = tuple(Revocation(**{name: str(value) for name, value in each.items()}) for each in said["revoked"])
        for each in found:
            datetime.fromisoformat(each.at)
        return found
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise VerificationFailed(
            "revocations",
            f"the list of revoked releases cannot be read: {error}.",
            file=REVOCATIONS_TARGET,
            fix="Update this platform: the marketplace may be newer.",
        ) from error


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
