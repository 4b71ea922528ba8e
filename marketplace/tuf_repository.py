"""The registry's TUF repository: what it signs, with which keys, and for how long.

========== ========================= ==================================================
role       keys                      says
========== ========================= ==================================================
root       2 of 3, offline           which keys the other roles have
targets    1, offline                delegates to 1,024 hash bins, by the bins' key
bins-xxx   1, online                 hashes of the index and key-set documents in the bin
snapshot   1, online                 the version of every bin
timestamp  1, online                 the snapshot, refreshed often
========== ========================= ==================================================

Two choices keep publishing cheap and safe. All empty bins are one document, signed once and served
under 1,024 names, so a new repository costs five signatures. And bin versions are drawn from one
counter: no two different bins ever carry the same version, so nobody between us and a client can
pass one bin off as another (succinct bins share a key and do not carry their name), without the
100 kB of hashes that would otherwise have to be in every snapshot.

Embedded, the offline keys lie in a folder of their own, to be moved away when the marketplace is
opened to others. Source: TUF specification 1.0.34 and TAP 15 (succinct hash bins), by python-tuf.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Protocol, TypeVar

from securesystemslib.signer import Key
from tuf.api.metadata import (
    Delegations,
    Metadata,
    MetaFile,
    Root,
    Snapshot,
    SuccinctRoles,
    Targets,
    Timestamp,
)

from kernel.ports import Clock
from marketplace.bins import amend_bin
from marketplace.errors import KeyMissing, RegistryDamaged
from marketplace.keys import KeyFolder, SigningKey
from marketplace.passphrases import Passphrases

BIN_BITS = 10
BIN_PREFIX = "bins"
_BIN_FILE = re.compile(r"^(\d+)\.bins-[0-9a-f]{3}\.json$")
_DAY = 86_400.0
S = TypeVar("S", Root, Targets, Snapshot, Timestamp)


@dataclass(frozen=True, slots=True)
class Lifetimes:
    """How long each role's metadata stays valid, in days. Renewal comes when a third is left."""

    root: float = 730
    targets: float = 365
    bins: float = 365
    snapshot: float = 30
    timestamp: float = 7

    def of(self, role: str) -> float:
        """Seconds of life of ``role`` (a bin's name counts as ``bins``)."""
        return float(getattr(self, role.partition("-")[0])) * _DAY


class MetadataTable(Protocol):
    """Where metadata is kept. All calls of one commit belong to one transaction."""

    def read(self, name: str) -> bytes | None: ...

    def write(self, name: str, body: bytes, expires: float) -> None: ...

    def supersede(self, name: str) -> None:
        """``name`` is no longer current; keep it a while for clients that are under way."""
        ...

    def expiring(self, before: float) -> list[str]:
        """Names of current metadata that expires before the moment ``before`` (epoch seconds)."""
        ...

    def read_many(self, names: Sequence[str]) -> Mapping[str, bytes]:
        """Those of ``names`` that there are."""
        ...

    def write_many(self, written: Mapping[str, bytes], expires: float, superseding: Sequence[str]) -> None:
        """Add what is new, and supersede what it takes the place of."""
        ...

    def write_targets(self, changed: Mapping[str, bytes]) -> None:
        """Make each document the current one at its path."""
        ...


class RepositoryKeys:
    """The repository's private keys: ``online/`` works by itself, ``offline/`` can be taken away."""

    ROOTS = ("root-1", "root-2", "root-3")
    ROOT_THRESHOLD = 2

    def __init__(self, folder: Path, passphrases: Passphrases | None = None) -> None:
        self._online, self._offline = KeyFolder(folder / "online"), KeyFolder(folder / "offline", passphrases)
        self.passphrases = passphrases
        self._loaded: dict[str, SigningKey] = {}

    def create_missing(self) -> None:
        """Make what is not there yet (first start, or a first start that was cut short)."""
        for folder, names in (
            (self._offline, (*self.ROOTS, "targets")),
            (self._online, ("bins", "snapshot", "timestamp", "receipts")),
        ):
            for name in names:
                folder.load_or_create(name)

    def create_online(self, name: str) -> SigningKey:
        """The key of a role that came later than the repository, made if it is not there."""
        return self._online.load_or_create(name)

    def online(self, name: str) -> SigningKey:
        """The key of a role that signs without people. Raises KeyMissing."""
        if name not in self._loaded:
            self._loaded[name] = self._online.load(name)
        return self._loaded[name]

    def online_of(self, role: str, ids: Iterable[str]) -> SigningKey:
        """The key of ``role`` that the signed metadata names by its id; a rotation puts ``role-2`` beside ``role``.

        Metadata decides, not the file's name: a process that ran on while another one rotated follows at once, and a
        rotation that was cut short changes nothing. Raises KeyMissing.
        """
        wanted = set(ids)
        if role in self._loaded and self._loaded[role].id in wanted:
            return self._loaded[role]
        named = [name for name in self._online.names() if re.fullmatch(rf"{role}(-\d+)?", name)]
        for key in map(self._online.load, named or [role]):
            if key.id in wanted:
                self._loaded[role] = key
                return key
        raise KeyMissing(
            f"The marketplace's present {role} key is not here.",
            expected=", ".join(sorted(wanted)),
            fix="Restore keys/online from a backup."
            if role == "log"
            else f"Restore keys/online, or replace the key: `keelstone marketplace ceremony rotate {role}`.",
        )

    def offline_of(self, ids: Iterable[str], media: Sequence[Path] = ()) -> list[SigningKey]:
        """The private keys with these ids that are at hand: in ``keys/offline`` or in the folders ``media``.

        Asks for the passphrases of those that have one; where nobody can be asked, these count as away.
        """
        found = dict[str, SigningKey]()
        for key_id, (folder, name) in self._places(ids, media).items():
            if self.passphrases is not None or not folder.sealed(name):
                key = folder.load(name)
                if key.id == key_id:
                    found[key_id] = key
        return list(found.values())

    def ids_at_hand(self, ids: Iterable[str], media: Sequence[Path] = ()) -> list[str]:
        """Which keys :meth:`offline_of` would find, with nobody asked for a passphrase."""
        return list(self._places(ids, media))

    def _places(self, ids: Iterable[str], media: Sequence[Path]) -> dict[str, tuple[KeyFolder, str]]:
        wanted, found = set(ids), dict[str, tuple[KeyFolder, str]]()
        for folder in (self._offline, *(KeyFolder(each, self.passphrases) for each in media)):
            for name in folder.names():
                key_id = folder.public(name).keyid
                if key_id in wanted:
                    found.setdefault(key_id, (folder, name))
        return found

    def add_online(self, role: str) -> SigningKey:
        """A new key for ``role`` beside the ones it has had; it counts as soon as the metadata names it."""
        number = 2
        while self._online.exists(f"{role}-{number}"):
            number += 1
        return self._online.create(f"{role}-{number}")

    def offline(self, names: Iterable[str]) -> list[SigningKey]:
        """Those of ``names`` that are at hand now."""
        return [self._offline.load(name) for name in names if self._offline.exists(name)]


@dataclass(slots=True)
class Renewal:
    """What a renewal signed anew, and what it could not because the offline keys are away."""

    renewed: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)


class TufRepository:
    """Signs metadata into a :class:`MetadataTable`. Holds no state: every commit reads what it needs."""

    def __init__(self, keys: RepositoryKeys, clock: Clock, lifetimes: Lifetimes | None = None) -> None:
        self._keys, self._clock = keys, clock
        self._lifetimes = lifetimes or Lifetimes()

    @property
    def keys(self) -> RepositoryKeys:
        """The private keys that it signs with."""
        return self._keys

    def create(self, table: MetadataTable) -> None:
        """The first metadata: root, targets with its bins, snapshot, timestamp."""
        roots = self._keys.offline(self._keys.ROOTS)
        (targets_key,) = self._keys.offline(["targets"])
        online = {name: self._keys.online(name) for name in ("bins", "snapshot", "timestamp")}
        root = Root(expires=self._expiry("root"), consistent_snapshot=True)
        for key in roots:
            root.add_key(key.public, "root")
        root.roles["root"].threshold = self._keys.ROOT_THRESHOLD
        for role, key in {
            "targets": targets_key,
            "snapshot": online["snapshot"],
            "timestamp": online["timestamp"],
        }.items():
            root.add_key(key.public, role)
        self._write_root(table, root, roots)
        bins = SuccinctRoles([online["bins"].id], 1, BIN_BITS, BIN_PREFIX)
        keys: dict[str, Key] = {online["bins"].id: online["bins"].public}
        targets = Targets(expires=self._expiry("targets"), delegations=Delegations(keys, succinct_roles=bins))
        self._save(table, "1.targets.json", targets, [targets_key])
        self._save(table, "1.bins.json", Targets(expires=self._expiry("bins")), [online["bins"]])
        meta = {"targets.json": MetaFile(1)} | {f"{name}.json": MetaFile(1) for name in bins.get_roles()}
        self._write_snapshot(table, Snapshot(expires=self._expiry("snapshot"), meta=meta), Timestamp(version=1))

    def commit(self, table: MetadataTable, changed: Mapping[str, bytes]) -> int:
        """Publish target documents, by path: only their bins, the snapshot and the timestamp are signed.

        Returns the new snapshot's version. Raises RegistryDamaged if the present metadata is missing.
        """
        timestamp, snapshot = self._present(table)
        succinct = self._succinct(table, snapshot)
        by_bin: dict[str, dict[str, bytes]] = {}
        for path in sorted(changed):
            by_bin.setdefault(succinct.get_role_for_target(path), {})[path] = changed[path]
        names = {role: f"{snapshot.meta[f'{role}.json'].version}.{role}.json" for role in by_bin}
        found = table.read_many([*names.values(), *(empty_bin(name) for name in names.values())])
        key, expires = self._keys.online_of("bins", succinct.keyids), self._expiry("bins")
        written: dict[str, bytes] = {}
        for version, (role, documents) in enumerate(by_bin.items(), _next_bin_version(snapshot)):
            body = found.get(names[role]) or found.get(empty_bin(names[role]))
            written[f"{version}.{role}.json"] = amend_bin(names[role], body, documents, version, expires, key)
            snapshot.meta[f"{role}.json"] = MetaFile(version)
        table.write_many(written, expires.timestamp(), superseding=list(names.values()))
        table.write_targets(changed)
        snapshot.version += 1
        snapshot.expires = self._expiry("snapshot")
        return self._write_snapshot(table, snapshot, timestamp)

    def root_version(self, table: MetadataTable) -> int:
        """The present root's version."""
        return self._load(table, "root.json", Root).version

    def renew(self, table: MetadataTable) -> Renewal:
        """Sign anew whatever has less than a third of its life left; what cannot be is warned of."""
        result = Renewal()
        timestamp, snapshot = self._present(table)
        self._renew_root(table, result)
        changed = self._renew_targets(table, snapshot, result)
        changed |= self._renew_bins(table, snapshot, result)
        if changed or self._is_due(snapshot.expires, "snapshot"):
            snapshot.version += 1
            snapshot.expires = self._expiry("snapshot")
            self._write_snapshot(table, snapshot, timestamp)
            result.renewed += ["snapshot", "timestamp"]
        elif self._is_due(timestamp.expires, "timestamp"):
            timestamp.version += 1
            timestamp.expires = self._expiry("timestamp")
            self._save(table, "timestamp.json", timestamp, [self._online(table, "timestamp")])
            result.renewed.append("timestamp")
        return result

    # -------------------------------------------------------------------------- renewal

    def _renew_root(self, table: MetadataTable, result: Renewal) -> None:
        root = self._load(table, "root.json", Root)
        if not self._is_due(root.expires, "root"):
            return
        keys = self._keys.offline_of(root.roles["root"].keyids)
        if len(keys) < self._keys.ROOT_THRESHOLD:
            self._cannot("root", root.expires, result)
            return
        root.version += 1
        root.expires = self._expiry("root")
        self._write_root(table, root, keys)
        result.renewed.append("root")

    def _renew_targets(self, table: MetadataTable, snapshot: Snapshot, result: Renewal) -> bool:
        version = snapshot.meta["targets.json"].version
        targets = self._load(table, f"{version}.targets.json", Targets)
        if not self._is_due(targets.expires, "targets"):
            return False
        keys = self._keys.offline_of(self._load(table, "root.json", Root).roles["targets"].keyids)
        if not keys:
            self._cannot("targets", targets.expires, result)
            return False
        targets.version += 1
        targets.expires = self._expiry("targets")
        self._save(table, f"{targets.version}.targets.json", targets, keys)
        table.supersede(f"{version}.targets.json")
        snapshot.meta["targets.json"] = MetaFile(targets.version)
        result.renewed.append("targets")
        return True

    def _renew_bins(self, table: MetadataTable, snapshot: Snapshot, result: Renewal) -> bool:
        before = self._clock.now() + self._lifetimes.bins * _DAY / 3
        due = [name for name in table.expiring(before) if ".bins" in name]
        for name in due:
            version, _, role = name.removesuffix(".json").partition(".")
            if role == BIN_PREFIX:
                fresh = Targets(version=_next_bin_version(snapshot), expires=self._expiry("bins"))
                self._save(table, f"{fresh.version}.bins.json", fresh, [self._bins_key(table, snapshot)])
                table.supersede(name)
                for entry, meta in list(snapshot.meta.items()):
                    if entry != "targets.json" and meta.version == int(version):
                        snapshot.meta[entry] = MetaFile(fresh.version)
            else:
                self._write_bin(table, snapshot, role, self._load(table, name, Targets))
        result.renewed += [name.removesuffix(".json").partition(".")[2] for name in due]
        return bool(due)

    def _cannot(self, role: str, expires: datetime, result: Renewal) -> None:
        # A warning, never an error: clients refuse expired metadata, and whoever reads goes on reading.
        when = expires.date().isoformat()
        expired = expires.timestamp() <= self._clock.now()
        result.warnings.append(
            f"The marketplace's {role} metadata {'expired' if expired else 'expires'} on {when}, and its keys are not "
            "here: put them back into keys/offline for one start, then take them away again."
        )

    def _is_due(self, expires: datetime, role: str) -> bool:
        return expires.timestamp() - self._clock.now() < self._lifetimes.of(role) / 3

    # -------------------------------------------------------------------------- reading and writing

    def _present(self, table: MetadataTable) -> tuple[Timestamp, Snapshot]:
        timestamp = self._load(table, "timestamp.json", Timestamp)
        return timestamp, self._load(table, f"{timestamp.snapshot_meta.version}.snapshot.json", Snapshot)

    def _succinct(self, table: MetadataTable, snapshot: Snapshot) -> SuccinctRoles:
        targets = self._load(table, f"{snapshot.meta['targets.json'].version}.targets.json", Targets)
        if targets.delegations is None or targets.delegations.succinct_roles is None:
            raise RegistryDamaged("The targets metadata does not delegate to hash bins.")
        return targets.delegations.succinct_roles

    def _online(self, table: MetadataTable, role: str) -> SigningKey:
        return self._keys.online_of(role, self._load(table, "root.json", Root).roles[role].keyids)

    def _bins_key(self, table: MetadataTable, snapshot: Snapshot) -> SigningKey:
        return self._keys.online_of("bins", self._succinct(table, snapshot).keyids)

    def _write_bin(self, table: MetadataTable, snapshot: Snapshot, role: str, content: Targets) -> None:
        old = snapshot.meta[f"{role}.json"].version
        content.version = _next_bin_version(snapshot)
        content.expires = self._expiry("bins")
        self._save(table, f"{content.version}.{role}.json", content, [self._bins_key(table, snapshot)])
        table.supersede(f"{old}.{role}.json")
        snapshot.meta[f"{role}.json"] = MetaFile(content.version)

    def _write_root(self, table: MetadataTable, root: Root, keys: list[SigningKey]) -> None:
        if len(keys) < self._keys.ROOT_THRESHOLD:
            raise KeyMissing("Fewer than two root keys are here.", fix="Put the offline keys back.")
        self._save(table, f"{root.version}.root.json", root, keys)
        self._save(table, "root.json", root, keys)

    def _write_snapshot(self, table: MetadataTable, snapshot: Snapshot, timestamp: Timestamp) -> int:
        body = self._save(table, f"{snapshot.version}.snapshot.json", snapshot, [self._online(table, "snapshot")])
        if snapshot.version > 1:
            table.supersede(f"{timestamp.snapshot_meta.version}.snapshot.json")
            timestamp.version += 1
        hashes = {"sha256": hashlib.sha256(body).hexdigest()}
        timestamp.snapshot_meta = MetaFile(snapshot.version, len(body), hashes)
        timestamp.expires = self._expiry("timestamp")
        self._save(table, "timestamp.json", timestamp, [self._online(table, "timestamp")])
        return snapshot.version

    def _load(self, table: MetadataTable, name: str, kind: type[S]) -> S:
        return _parse(name, table.read(name), kind)

    def _save(self, table: MetadataTable, name: str, signed: S, keys: list[SigningKey]) -> bytes:
        metadata = Metadata(signed)
        for key in keys:
            metadata.sign(key.signer, append=True)
        body = metadata.to_bytes()
        table.write(name, body, signed.expires.timestamp())
        return body

    def _expiry(self, role: str) -> datetime:
        return datetime.fromtimestamp(int(self._clock.now() + self._lifetimes.of(role)), UTC)


def _next_bin_version(snapshot: Snapshot) -> int:
    return 1 + max(meta.version for name, meta in snapshot.meta.items() if name != "targets.json")


def read_metadata(name: str, read: Callable[[str], bytes | None]) -> bytes | None:
    """The metadata served under ``name``: an empty bin is stored once for all bins of its version."""
    body = read(name)
    if body is None and _BIN_FILE.match(name):
        body = read(empty_bin(name))
    return body


def empty_bin(name: str) -> str:
    """The name under which the bin ``name`` is stored while it is empty: one for all of its version."""
    return f"{name.partition('.')[0]}.{BIN_PREFIX}.json"


def _parse(name: str, body: bytes | None, kind: type[S]) -> S:
    signed = Metadata.from_bytes(body).signed if body is not None else None
    if not isinstance(signed, kind):
        raise RegistryDamaged(
            f"The registry's metadata {name} is {'missing' if signed is None else 'of another kind'}.",
            file=name,
            fix="Restore the marketplace folder from a backup.",
        )
    return signed
