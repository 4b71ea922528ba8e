"""Entries: what the log says of one change. Small, and about keys, names and digests, never about people.

An entry is canonical JSON, so it can be written again from what it says and gives the same leaf.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any, Literal, get_args

from marketplace.log.tree import leaf_hash
from marketplace.signing import canonical_json

Kind = Literal[
    "publish", "yank", "deprecate", "keys", "owner", "verdict", "advisory", "kill", "handover", "jobs", "binding"
]
KINDS: tuple[str, ...] = get_args(Kind)
MAX_ENTRY_BYTES = 4_096
FORMAT = 1
_DIGEST = re.compile(r"^[0-9a-f]{64}$")


@dataclass(frozen=True, slots=True)
class Entry:
    """One change. ``publisher`` is the namespace; ``plugin`` and ``version`` are there if it is about them.

    ``digest`` is the SHA-256 of the thing: a package, a key set's document, a key, or a plugin's id. ``statement`` is
    that of the signed statement behind the change; None if the marketplace did not keep it (changes older than its
    log). ``at`` is ISO 8601 in UTC.
    """

    kind: Kind
    publisher: str
    plugin: str | None
    version: str | None
    digest: str
    statement: str | None
    at: str

    def to_dict(self) -> dict[str, Any]:
        """Plain data; what is not said is left out."""
        return {"format": FORMAT, **{name: value for name in _NAMES if (value := getattr(self, name)) is not None}}

    def to_bytes(self) -> bytes:
        """What the log holds."""
        return canonical_json(self.to_dict())

    @property
    def leaf(self) -> bytes:
        """Its leaf in the tree."""
        return leaf_hash(self.to_bytes())

    def __str__(self) -> str:
        """The entry in a few words."""
        about = " ".join(part for part in (self.plugin or self.publisher, self.version) if part)
        return f"{self.kind} {about} at {self.at}"


_NAMES = tuple(each.name for each in fields(Entry))


def read_entry(body: bytes) -> Entry:
    """The entry in ``body``. Raises ValueError if it is not one in canonical form."""
    if len(body) > MAX_ENTRY_BYTES:
        raise ValueError(f"an entry of {len(body)} bytes")
    try:
        entry = entry_from_dict(json.loads(body))
    except RecursionError as error:
        raise ValueError("an entry nested too deeply") from error
    if entry.to_bytes() != body:
        raise ValueError("the entry is not in canonical form")
    return entry


def entry_from_dict(said: Any) -> Entry:
    """The entry that plain data says. Raises ValueError."""
    try:
        format_, fields = said["format"], {name: value for name, value in said.items() if name != "format"}
        entry = Entry(**{"plugin": None, "version": None, "statement": None, **fields})
    except (TypeError, KeyError, AttributeError) as error:
        raise ValueError(f"not an entry: {error}") from error
    texts = [entry.publisher, entry.at, *(each for each in (entry.plugin, entry.version) if each is not None)]
    digests = [entry.digest, *([] if entry.statement is None else [entry.statement])]
    if format_ != FORMAT or not all(isinstance(text, str) and text for text in texts):
        raise ValueError("not an entry")
    if entry.kind not in KINDS:
        raise ValueError(f"an entry of the unknown kind {str(entry.kind)[:40]!r}")
    if not all(isinstance(digest, str) and _DIGEST.match(digest) for digest in digests):
        raise ValueError("an entry's digest is no SHA-256")
    if entry.plugin is not None and entry.plugin.partition("/")[0] != entry.publisher:
        raise ValueError("an entry's plugin is another publisher's")
    return entry


def sha256_of(document: bytes) -> str:
    """SHA-256 in hex, as entries give it."""
    return hashlib.sha256(document).hexdigest()


def statement_digest(envelope: Mapping[str, Any]) -> str:
    """The digest of a signed statement: of its canonical form, so that its way here does not matter."""
    return sha256_of(canonical_json(envelope))


def release_entry(plugin: str, version: str, digest: str, statement: str, at: str) -> Entry:
    """The entry of a published release."""
    return Entry("publish", plugin.partition("/")[0], plugin, version, digest, statement, at)


def yank_entry(plugin: str, version: str, digest: str, statement: str | None, at: str) -> Entry:
    """The entry of a release withdrawn by its publisher."""
    return Entry("yank", plugin.partition("/")[0], plugin, version, digest, statement, at)


def advisory_entry(plugin: str, advisory: str, statement: str, at: str) -> Entry:
    """The entry of an advisory about a plugin; ``version`` has its id, and its digest is the statement's."""
    return Entry("advisory", plugin.partition("/")[0], plugin, advisory, statement, statement, at)


def verdict_entry(plugin: str, version: str, digest: str, statement: str, at: str) -> Entry:
    """The entry of a reviewer's verdict on a release that was held."""
    return Entry("verdict", plugin.partition("/")[0], plugin, version, digest, statement, at)


def kill_entry(plugin: str, version: str, digest: str, statement: str, at: str) -> Entry:
    """The entry of a release that the marketplace's operator ended everywhere."""
    return Entry("kill", plugin.partition("/")[0], plugin, version, digest, statement, at)


def deprecation_entry(plugin: str, statement: str | None, at: str) -> Entry:
    """The entry of advice against a plugin, or of taking it back. Its digest is that of the plugin's id."""
    return Entry("deprecate", plugin.partition("/")[0], plugin, None, sha256_of(plugin.encode()), statement, at)


def keys_entry(publisher: str, version: int, document: bytes, at: str) -> Entry:
    """The entry of a namespace's key set. The document is signed itself, so it is its own statement."""
    digest = sha256_of(document)
    return Entry("keys", publisher, None, str(version), digest, digest, at)


def owner_entry(publisher: str, version: int, digest: str, statement: str, at: str) -> Entry:
    """The entry of a namespace that has another holder from a key set (its version, and digest) on."""
    return Entry("owner", publisher, None, str(version), digest, statement, at)


def jobs_entry(publisher: str, version: int, statement: str, at: str) -> Entry:
    """The entry of a list of the CI jobs that may release a namespace's plugins; its digest is the statement's."""
    return Entry("jobs", publisher, None, str(version), statement, statement, at)


def binding_entry(plugin: str, key: str, statement: str, at: str) -> Entry:
    """The entry of a CI job's key for a plugin; ``version`` has its id, and its digest is the statement's."""
    return Entry("binding", plugin.partition("/")[0], plugin, key, statement, statement, at)


def handover_entry(origin: str, name: str, digest: str, statement: str, at: str) -> Entry:
    """The entry of a new key of the marketplace's own. ``publisher`` is the log's origin, which no namespace can be
    called; ``version`` is the key's name, and the digest its own."""
    return Entry("handover", origin, None, name, digest, statement, at)


def entry_key(entry: Entry) -> tuple[str, str, str]:
    """What an entry is looked up by: kind, plugin or publisher, version."""
    return entry.kind, entry.plugin or entry.publisher, entry.version or ""
