"""The key ceremony: who holds which key of the marketplace, and how each is replaced.

A root n+1 is signed by a threshold of root n's keys and by a threshold of its own, so that every client that trusts
any older root follows it. A new key is written to its medium first and counts only once the metadata that names it is
committed: cut short at any moment, the marketplace goes on with the keys it had.
Source: TUF specification 1.0.34, sections 5.3 and 6.1 (key management and rotation).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from tuf.api.metadata import Metadata, MetaFile, Root, Targets

from kernel.errors import NotFound, ValidationFailed
from marketplace.errors import KeyMissing, RegistryDamaged
from marketplace.keys import KeyFolder, SigningKey
from marketplace.moments import utc_text
from marketplace.passphrases import Passphrases
from marketplace.tuf_repository import MetadataTable, RepositoryKeys, TufRepository

ONLINE = ("bins", "snapshot", "timestamp")
ROLES = ("root", "targets", *ONLINE)


@dataclass(frozen=True, slots=True)
class RoleKeys:
    """One role: whose keys it wants, which of them are at hand, and until when its metadata is valid (ISO 8601).

    The log and receipts have no metadata of their own: their keys count until they are replaced (None)."""

    role: str
    version: int
    threshold: int
    keys: tuple[str, ...]
    at_hand: tuple[str, ...]
    expires: str | None
    days_left: float | None


@dataclass(frozen=True, slots=True)
class Rotation:
    """What a rotation changed: key ids that no longer count, those that do instead, and the root's version now."""

    role: str
    retired: tuple[str, ...]
    added: tuple[str, ...]
    root: int


class Ceremony(TufRepository):
    """Rotations over one table of metadata. Every call belongs to one transaction of the caller's.

    ``media`` are folders with offline keys, beside the registry's own ``keys/offline``.
    """

    def __init__(self, keys: RepositoryKeys, clock: Any, media: Sequence[Path] = (), **options: Any) -> None:
        super().__init__(keys, clock, **options)
        self._media = tuple(media)

    def status(self, table: MetadataTable) -> list[RoleKeys]:
        """Every role. Raises RegistryDamaged if the metadata is not all there."""
        timestamp, snapshot = self._present(table)
        root, targets = self._load(table, "root.json", Root), self._targets(table)
        succinct = self._succinct(table, snapshot)
        wanted = {name: (role.keyids, role.threshold) for name, role in root.roles.items() if name in ROLES}
        wanted["bins"] = (succinct.keyids, succinct.threshold)
        bins = [name for name in table.expiring(float("inf")) if ".bins" in name]
        oldest = min((self._load(table, name, Targets).expires for name in bins), default=targets.expires)
        newest = max((m.version for n, m in snapshot.meta.items() if n != "targets.json"), default=0)
        said = {
            "root": (root.version, root.expires),
            "targets": (targets.version, targets.expires),
            "bins": (newest, oldest),
            "snapshot": (snapshot.version, snapshot.expires),
            "timestamp": (timestamp.version, timestamp.expires),
        }
        return [self._state(role, *wanted[role], *said[role]) for role in ROLES]

    def rotate_root(self, table: MetadataTable, replace: Iterable[str], onto: Sequence[Path]) -> Rotation:
        """Put a new root key, made in each folder of ``onto``, in the place of each key id (or its beginning) in
        ``replace``. Raises KeyMissing below the threshold, ValidationFailed or Conflict.
        """
        root = self._load(table, "root.json", Root)
        retired = tuple(one_key(root.roles["root"].keyids, name) for name in replace)
        if not retired or len(set(retired)) != len(retired) or len(onto) != len(retired):
            raise ValidationFailed(
                "Each root key that goes needs a place for the one that comes.",
                expected="as many different keys to replace as folders for new ones, at least one",
                found=f"{len(set(retired))} keys, {len(onto)} folders",
            )
        if len({folder.resolve() for folder in onto}) != len(onto):
            raise ValidationFailed("Two root keys would lie in one folder: give each a medium of its own.")
        old = self._root_keys(root)
        fresh = [create_key(folder, "root", self._keys.passphrases) for folder in onto]
        for gone, key in zip(retired, fresh, strict=True):
            root.revoke_key(gone, "root")
            root.add_key(key.public, "root")
        stay = [key for key in old if key.id not in retired]
        return self._commit_root(table, root, "root", retired, old, [*stay, *fresh])

    def rotate_targets(self, table: MetadataTable, onto: Path) -> Rotation:
        """A new targets key in the folder ``onto``. Raises KeyMissing without two root keys, or Conflict."""
        root = self._load(table, "root.json", Root)
        old = self._root_keys(root)
        fresh = create_key(onto, "targets", self._keys.passphrases)
        retired = tuple(root.roles["targets"].keyids)
        for gone in retired:
            root.revoke_key(gone, "targets")
        root.add_key(fresh.public, "targets")
        rotation = self._commit_root(table, root, "targets", retired, old, old)
        self._resign_targets(table, self._targets(table), [fresh])
        return rotation

    def rotate_online(self, table: MetadataTable, role: str) -> Rotation:
        """A new key for ``snapshot`` or ``timestamp`` (needs two root keys) or ``bins`` (needs the targets key)."""
        (rotation,) = self.rotate_all(table, [role])
        return rotation

    def rotate_all(self, table: MetadataTable, roles: Sequence[str] = ONLINE) -> list[Rotation]:
        """New keys for several online roles at once, none of whose present ones need be here (a machine was lost).

        Raises KeyMissing or ValidationFailed.
        """
        if strangers := set(roles) - set(ONLINE):
            raise ValidationFailed(f"There is no online role {min(strangers)!r}.", expected=", ".join(ONLINE))
        named = [self._name_anew(table, role) for role in ("snapshot", "timestamp") if role in roles]
        if "bins" in roles:
            return [*named, self._rotate_bins(table)]
        self.freshen(table)
        return named

    def freshen(self, table: MetadataTable) -> None:
        """Sign the snapshot and the timestamp again, with the keys that the root names now."""
        timestamp, snapshot = self._present(table)
        snapshot.version += 1
        snapshot.expires = self._expiry("snapshot")
        self._write_snapshot(table, snapshot, timestamp)

    # -------------------------------------------------------------------------- insides

    def _name_anew(self, table: MetadataTable, role: str) -> Rotation:
        root = self._load(table, "root.json", Root)
        old = self._root_keys(root)
        fresh, retired = self._keys.add_online(role), tuple(root.roles[role].keyids)
        for gone in retired:
            root.revoke_key(gone, role)
        root.add_key(fresh.public, role)
        return self._commit_root(table, root, role, retired, old, old)

    def _rotate_bins(self, table: MetadataTable) -> Rotation:
        root, targets = self._load(table, "root.json", Root), self._targets(table)
        keys = self._keys.offline_of(root.roles["targets"].keyids, self._media)
        if not keys:
            raise KeyMissing("The targets key is not here.", fix="Name its folder with --media.")
        if targets.delegations is None or targets.delegations.succinct_roles is None:
            raise RegistryDamaged("The targets metadata does not delegate to hash bins.")
        succinct, fresh = targets.delegations.succinct_roles, self._keys.add_online("bins")
        retired = tuple(succinct.keyids)
        _, before = self._present(table)
        contents = {
            role: table.read(f"{before.meta[f'{role}.json'].version}.{role}.json") for role in succinct.get_roles()
        }
        for gone in retired:
            targets.revoke_key(gone)
        targets.add_key(fresh.public)
        self._resign_targets(table, targets, keys)
        timestamp, snapshot = self._present(table)
        empty = [role for role, body in contents.items() if body is None]
        for role, body in contents.items():
            if body is not None:
                content = Metadata[Targets].from_bytes(body).signed
                self._write_bin(table, snapshot, role, content)
        if empty:
            bare = Targets(version=1 + max(m.version for m in snapshot.meta.values()), expires=self._expiry("bins"))
            self._save(table, f"{bare.version}.bins.json", bare, [fresh])
            for name in {f"{snapshot.meta[f'{role}.json'].version}.bins.json" for role in empty}:
                table.supersede(name)
            snapshot.meta |= {f"{role}.json": MetaFile(bare.version) for role in empty}
        snapshot.version += 1
        self._write_snapshot(table, snapshot, timestamp)
        return Rotation("bins", retired, (fresh.id,), root.version)

    def _commit_root(
        self,
        table: MetadataTable,
        root: Root,
        role: str,
        retired: tuple[str, ...],
        old: list[SigningKey],
        new: list[SigningKey],
    ) -> Rotation:
        before = set(self._load(table, "root.json", Root).roles[role].keyids)
        root.version += 1
        root.expires = self._expiry("root")
        if len(new) < root.roles["root"].threshold:
            raise KeyMissing("Too few keys of the new root are here.", fix="Bring another medium with a root key.")
        signers = {key.id: key for key in (*old, *new)}
        self._write_root(table, root, list(signers.values()))
        return Rotation(role, retired, tuple(k for k in root.roles[role].keyids if k not in before), root.version)

    def _root_keys(self, root: Root) -> list[SigningKey]:
        role = root.roles["root"]
        keys = self._keys.offline_of(role.keyids, self._media)
        if len(keys) < role.threshold:
            raise KeyMissing(
                f"Changing the root takes {role.threshold} of its {len(role.keyids)} keys.",
                expected=", ".join(k[:16] for k in role.keyids),
                found=", ".join(k.id[:16] for k in keys) or "none of them",
                fix="Name the folders that have them with --media.",
            )
        return keys

    def _targets(self, table: MetadataTable) -> Targets:
        _, snapshot = self._present(table)
        return self._load(table, f"{snapshot.meta['targets.json'].version}.targets.json", Targets)

    def _resign_targets(self, table: MetadataTable, targets: Targets, keys: list[SigningKey]) -> None:
        timestamp, snapshot = self._present(table)
        table.supersede(f"{targets.version}.targets.json")
        targets.version += 1
        targets.expires = self._expiry("targets")
        self._save(table, f"{targets.version}.targets.json", targets, keys)
        snapshot.meta["targets.json"] = MetaFile(targets.version)
        snapshot.version += 1
        self._write_snapshot(table, snapshot, timestamp)

    def _state(self, role: str, ids: list[str], threshold: int, version: int, expires: datetime) -> RoleKeys:
        if role in ONLINE:
            try:
                here = [self._keys.online_of(role, ids).id]
            except KeyMissing:
                here = []
        else:
            here = self._keys.ids_at_hand(ids, self._media)
        days = (expires.timestamp() - self._clock.now()) / 86_400
        shown = utc_text(expires)
        return RoleKeys(role, version, threshold, tuple(ids), tuple(here), shown, round(days, 1))


def one_key(ids: Sequence[str], name: str) -> str:
    """The id among ``ids`` that begins with ``name``. Raises NotFound unless there is exactly one."""
    found = [each for each in ids if name and each.startswith(name)]
    if len(found) != 1:
        raise NotFound(f"{name!r} is not one of the root's keys.", expected=", ".join(k[:16] for k in ids), found=name)
    return found[0]


def create_key(folder: Path, kind: str, passphrases: Passphrases | None) -> SigningKey:
    """A new key of ``kind`` on the medium ``folder``, beside those that it has. Raises ValidationFailed."""
    keys, number = KeyFolder(folder, passphrases), 1
    while keys.exists(f"{kind}-{number}"):
        number += 1
    return keys.create(f"{kind}-{number}")
