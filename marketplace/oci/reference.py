"""Where an artifact is: ``registry.example/acme/guard:1.0.0`` at a registry, ``oci:FOLDER:1.0.0`` in a folder."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from kernel.errors import ValidationFailed
from marketplace.oci.artifact import Descriptor

_TAG = r"[A-Za-z0-9_][A-Za-z0-9._-]{0,127}"
_DIGEST = r"sha256:[0-9a-f]{64}"
_REMOTE = re.compile(
    r"^(?P<host>[A-Za-z0-9.-]+(?::[0-9]{1,5})?)/"
    r"(?P<repository>[a-z0-9]+(?:[._-]+[a-z0-9]+)*(?:/[a-z0-9]+(?:[._-]+[a-z0-9]+)*)*)"
    rf"(?::(?P<tag>{_TAG}))?(?:@(?P<digest>{_DIGEST}))?$"
)
_LAYOUT = re.compile(rf"^oci:(?P<folder>[^@]+?)(?::(?P<tag>{_TAG}))?(?:@(?P<digest>{_DIGEST}))?$")
_EXPECTED = "HOST/REPOSITORY[:TAG][@sha256:DIGEST], or oci:FOLDER[:TAG][@sha256:DIGEST]"


@dataclass(frozen=True, slots=True)
class Reference:
    """A registry's host and the repository there, or ``host`` None and a folder; and which artifact, if it says so."""

    host: str | None
    place: str
    tag: str | None = None
    digest: str | None = None


class Store(Protocol):
    """Where artifacts are kept. What comes out of it is unverified, but never longer than asked for."""

    def put_blob(self, descriptor: Descriptor, body: bytes) -> None:
        """Store a blob; one that is there already is left. Raises BackendUnavailable or Forbidden."""

    def put_manifest(self, descriptor: Descriptor, body: bytes, *, tag: str | None, subject: Descriptor | None) -> None:
        """Store a manifest after its blobs, and let ``tag`` name it; with a ``subject``, list it as its referrer."""

    def manifest(self, reference: str) -> bytes:
        """A manifest by tag or digest. Raises NotFound."""

    def blob(self, descriptor: Descriptor) -> bytes:
        """A blob, cut off past its size. Raises NotFound."""

    def referrers(self, subject: str) -> Sequence[Descriptor]:
        """The manifests that refer to the one with the digest ``subject``."""

    def close(self) -> None:
        """Leave it."""


def read_reference(text: str) -> Reference:
    """The reference in ``text``. Raises ValidationFailed."""
    if text.startswith("oci:"):
        found = _LAYOUT.match(text)
        if found:
            return Reference(None, found["folder"], found["tag"], found["digest"])
    elif (found := _REMOTE.match(text)) and ("." in found["host"] or ":" in found["host"] or _is_here(found["host"])):
        return Reference(found["host"], found["repository"], found["tag"], found["digest"])
    raise ValidationFailed(f"{text!r} does not name an OCI artifact.", expected=_EXPECTED, found=text)


def is_loopback(host: str) -> bool:
    """Whether a registry's host, perhaps with a port, is this machine: spoken to without TLS."""
    return _is_here(host.partition(":")[0])


def _is_here(name: str) -> bool:
    return name == "localhost" or re.fullmatch(r"127(\.[0-9]{1,3}){3}", name) is not None
