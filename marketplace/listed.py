"""Lists that the marketplace's metadata vouches for, each one TUF target: revocations, advisories."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from dataclasses import asdict
from typing import Any, TypeVar

from kernel.errors import KeelstoneError
from marketplace.errors import VerificationFailed
from marketplace.signing import canonical_json

T = TypeVar("T")
FORMAT = 1


def listed_document(member: str, items: Iterable[Any]) -> bytes:
    """The target's bytes; ``items`` are dataclasses."""
    return canonical_json({"format": FORMAT, member: [asdict(each) for each in items]})


def read_listed(document: bytes | None, member: str, link: str, path: str, read: Callable[[Any], T]) -> tuple[T, ...]:
    """What a verified document lists, each read by ``read``; None: there never was one. ``link`` names it in errors.

    Raises VerificationFailed.
    """
    if document is None:
        return ()
    try:
        said = json.loads(document)
        if said["format"] != FORMAT:
            raise ValueError(f"format {said['format']}")
        return tuple(read(each) for each in said[member])
    except (ValueError, KeyError, TypeError, AttributeError, KeelstoneError) as error:
        raise VerificationFailed(
            link,
            f"the list of {link} cannot be read: {error}.",
            file=path,
            fix="Update this platform: the marketplace may be newer.",
        ) from error
