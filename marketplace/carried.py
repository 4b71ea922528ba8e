"""A change of the marketplace's keys that goes from signer to signer as a file: no two media meet on one machine.

The file has the present root, the next one and, if the targets key changes, the targets metadata signed by the new key.
Each signer sees what changes, signs where their key is, and sends it on; the marketplace takes it once the thresholds
of both roots are met. Until then nothing has changed, and an online key that was made for it counts for nothing.
Source: TUF specification 1.0.34, section 6.1.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from securesystemslib.signer import Key
from tuf.api.exceptions import RepositoryError
from tuf.api.metadata import Metadata, MetaFile, Root, Targets

from kernel.errors import Conflict, ValidationFailed
from kernel.files import read_named
from marketplace.ceremony import ROLES, Ceremony, Rotation, one_key
from marketplace.errors import KeyMissing, SignatureInvalid
from marketplace.keys import KeyFolder, SigningKey
from marketplace.moments import utc_text
from marketplace.passphrases import Passphrases
from marketplace.tuf_repository import MetadataTable

FORMAT = 1
MAX_BYTES = 1_000_000
CARRIED = ("root", "targets", "snapshot", "timestamp")
"""Roles whose change takes several signers. (The bins' takes the targets key alone, where the marketplace is.)"""
T = TypeVar("T", Root, Targets)


@dataclass(frozen=True, slots=True)
class Wanted:
    """Signatures that are missing: ``needed`` of ``keys``, for a ``reason``."""

    reason: str
    needed: int
    keys: tuple[str, ...]

    def __str__(self) -> str:
        return f"{self.needed} of {', '.join(key[:16] for key in self.keys)} ({self.reason})"


@dataclass(frozen=True, slots=True)
class Carried:
    """A change on its way. Make it with :meth:`CarriedCeremony.propose`, read it with :func:`read_carried`."""

    role: str
    before: Metadata[Root]
    root: Metadata[Root]
    targets: Metadata[Targets] | None = None

    def to_bytes(self) -> bytes:
        """The file."""
        targets = None if self.targets is None else self.targets.to_dict()
        said = {"format": FORMAT, "role": self.role, "before": self.before.to_dict(), "root": self.root.to_dict()}
        return json.dumps({**said, "targets": targets}, indent=2).encode() + b"\n"

    def changes(self) -> dict[str, tuple[tuple[str, ...], tuple[str, ...]]]:
        """By role: the key ids that no longer count, and those that do instead."""
        found = {}
        for name in sorted(set(ROLES) & set(self.before.signed.roles)):
            old, new = self.before.signed.roles[name].keyids, self.root.signed.roles[name].keyids
            if set(old) != set(new):
                found[name] = tuple(k for k in old if k not in new), tuple(k for k in new if k not in old)
        return found

    def thresholds(self) -> dict[str, tuple[int, int]]:
        """By role: how many signatures it takes now and would take, where that changes."""
        roles = {name: (role.threshold, self.root.signed.roles[name].threshold) for name, role in self._roles()}
        return {name: both for name, both in roles.items() if both[0] != both[1]}

    def missing(self) -> list[Wanted]:
        """Whose signatures are missing; none if it can be handed in. Signatures that do not fit do not count."""
        asked = [
            ("the present root", self.before.signed, "root", self.root),
            ("the next root", self.root.signed, "root", self.root),
            ("the targets", self.root.signed, "targets", self.targets),
        ]
        found = []
        for reason, delegator, role, signed in asked:
            if signed is None:
                continue
            result = delegator.get_verification_result(role, signed.signed_bytes, signed.signatures)
            if not result.verified:
                needed = result.threshold - len(result.signed)
                found.append(Wanted(reason, needed, tuple(result.unsigned)))
        return found

    def signers(self) -> tuple[str, ...]:
        """The keys that it has signatures of, unverified."""
        more = () if self.targets is None else tuple(self.targets.signatures)
        return tuple(dict.fromkeys((*self.root.signatures, *more)))

    def summary(self) -> dict[str, Any]:
        """What a signer must see, JSON-ready."""
        return {
            "role": self.role,
            "root": self.root.signed.version,
            "expires": utc_text(self.root.signed.expires),
            "changes": {name: {"removed": gone, "added": come} for name, (gone, come) in self.changes().items()},
            "thresholds": self.thresholds(),
            "signers": self.signers(),
            "missing": [str(each) for each in self.missing()],
        }

    def sign(self, keys: Iterable[SigningKey]) -> tuple[str, ...]:
        """Add the signatures of those of ``keys`` that are asked for; their ids. Raises KeyMissing if none is."""
        roots = {*self.before.signed.roles["root"].keyids, *self.root.signed.roles["root"].keyids}
        held = self.root.signed.roles["targets"].keyids
        done = []
        for key in keys:
            if key.id in roots:
                self.root.sign(key.signer, append=True)
                done.append(key.id)
            if self.targets is not None and key.id in held:
                self.targets.sign(key.signer, append=True)
                done.append(key.id)
        if not done:
            raise KeyMissing(
                "None of the keys at hand is asked for.",
                expected="; ".join(map(str, self.missing())) or "nobody else: it can be handed in",
                fix="Name the folder that has one of them with --media.",
            )
        return tuple(done)

    def asked(self) -> set[str]:
        """The ids of all keys that may sign it."""
        names = ("root",) if self.targets is None else ("root", "targets")
        return {
            *self.before.signed.roles["root"].keyids,
            *(key for name in names for key in self.root.signed.roles[name].keyids),
        }

    def _roles(self) -> Iterable[tuple[str, Any]]:
        return ((name, role) for name, role in self.before.signed.roles.items() if name in self.root.signed.roles)


class CarriedCeremony(Ceremony):
    """The two ends of the way: what begins it, and what takes it in. Calls belong to one transaction each."""

    def propose(self, table: MetadataTable, role: str, replace: Sequence[str], public: Sequence[Key]) -> Carried:
        """The change that puts ``public`` keys in the place of those in ``replace`` (root), of the targets key, or a
        new key made here in that of an online role. Raises ValidationFailed or NotFound.
        """
        present = self._load(table, "root.json", Root)
        root = self._load(table, "root.json", Root)
        if role not in CARRIED:
            raise ValidationFailed(f"{role!r} is not changed by several signers.", expected=", ".join(CARRIED))
        expected = {"root": len(replace), "targets": 1}.get(role, 0)
        if len(public) != expected or (role == "root") != bool(replace):
            raise ValidationFailed(
                "Each key that goes needs one that comes.",
                expected=f"{expected} public keys" + (", and as many --replace" if role == "root" else ""),
                found=f"{len(public)} public keys, {len(replace)} to replace",
            )
        gone = [one_key(present.roles["root"].keyids, name) for name in replace]
        if role != "root":
            gone = list(present.roles[role].keyids)
        fresh = list(public) or [self._keys.add_online(role).public]
        held = {key for each in present.roles.values() for key in each.keyids}
        if len(set(gone)) != len(gone) or held & {key.keyid for key in fresh}:
            raise ValidationFailed("A key that comes is there already, or one that goes is named twice.")
        for key in gone:
            root.revoke_key(key, role)
        for new in fresh:
            root.add_key(new, role)
        root.version += 1
        root.expires = self._expiry("root")
        targets = None
        if role == "targets":
            targets = self._targets(table)
            targets.version += 1
            targets.expires = self._expiry("targets")
        before = Metadata[Root].from_bytes(table.read("root.json") or b"")
        return Carried(role, before, Metadata(root), None if targets is None else Metadata(targets))

    def submit(self, table: MetadataTable, carried: Carried) -> Rotation:
        """Let a change count that enough have signed. Raises Conflict (others came first), SignatureInvalid (too few
        signed) or KeyMissing (an online key that it names is not here).
        """
        present = self._load(table, "root.json", Root)
        if carried.before.signed != present:
            raise Conflict(
                "The marketplace's root has changed since this was begun.",
                expected=f"root v{present.version}",
                found=f"root v{carried.before.signed.version}",
                fix="Begin again with `keelstone marketplace ceremony propose`.",
            )
        old = self._targets(table)
        if carried.targets is not None:
            signed = carried.targets.signed
            if (signed.version, signed.delegations, signed.targets) != (old.version + 1, old.delegations, old.targets):
                raise Conflict("The targets metadata has changed since this was begun.", fix="Begin again.")
        elif "targets" in carried.changes():
            raise SignatureInvalid("The targets key changes, and nothing is signed by the new one.")
        require_signed(carried)
        root = carried.root.signed
        for name in (f"{root.version}.root.json", "root.json"):
            table.write(name, carried.root.to_bytes(), root.expires.timestamp())
        if carried.targets is not None:
            signed, (timestamp, snapshot) = carried.targets.signed, self._present(table)
            table.supersede(f"{old.version}.targets.json")
            table.write(f"{signed.version}.targets.json", carried.targets.to_bytes(), signed.expires.timestamp())
            snapshot.meta["targets.json"] = MetaFile(signed.version)
            snapshot.version += 1
            self._write_snapshot(table, snapshot, timestamp)
        else:
            self.freshen(table)
        retired, added = carried.changes()[carried.role]
        return Rotation(carried.role, retired, added, root.version)


def require_signed(carried: Carried) -> None:
    """Raise SignatureInvalid, saying whose signatures are missing, unless enough have signed."""
    if missing := carried.missing():
        raise SignatureInvalid(
            "It has not been signed by everybody who must.",
            expected="; ".join(map(str, missing)),
            found=", ".join(key[:16] for key in carried.signers()) or "nobody's signature",
            fix="They run `keelstone marketplace ceremony sign FILE` where their keys are, and send it back.",
        )


def read_carried(body: bytes) -> Carried:
    """The change in a file, on top of a root that is signed as it must be. Raises ValidationFailed."""
    try:
        if len(body) > MAX_BYTES:
            raise ValueError(f"{len(body)} bytes")
        said = json.loads(body)
        if said["format"] != FORMAT or said["role"] not in CARRIED:
            raise ValueError("of another kind")
        before, root = (_metadata(Root, said[name]) for name in ("before", "root"))
        targets = None if said["targets"] is None else _metadata(Targets, said["targets"])
        before.signed.verify_delegate("root", before.signed_bytes, before.signatures)
        carried = Carried(said["role"], before, root, targets)
        if root.signed.version != before.signed.version + 1 or said["role"] not in carried.changes():
            raise ValueError("it is not the next root, or does not change what it says")
        return carried
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError, RepositoryError) as error:
        raise ValidationFailed(
            f"This is no change of the marketplace's keys: {error}.",
            expected="a file by `keelstone marketplace ceremony propose`",
        ) from error


def read_carried_file(file: Path) -> Carried:
    """As :func:`read_carried`, from a file. Raises NotFound, too."""
    return read_carried(read_named(file))


def keys_on(media: Sequence[Path], asked: set[str], passphrases: Passphrases) -> list[SigningKey]:
    """The keys on ``media`` that are ``asked`` for; only their passphrases are needed. Raises KeyUnusable."""
    found = dict[str, SigningKey]()
    for folder in (KeyFolder(each, passphrases) for each in media):
        for name in folder.names():
            if folder.public(name).keyid in asked:
                key = folder.load(name)
                found.setdefault(key.id, key)
    return list(found.values())


def _metadata(kind: type[T], said: Mapping[str, Any]) -> Metadata[T]:
    metadata = Metadata[T].from_dict(dict(said))
    if not isinstance(metadata.signed, kind):
        raise ValueError(f"metadata of the kind {metadata.signed.type}")
    return metadata
