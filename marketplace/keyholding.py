"""The key ceremony over the marketplace in the data folder, by whoever has it and the offline keys."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TypeVar

from securesystemslib.signer import Key

from kernel.errors import ValidationFailed
from kernel.settings import Settings
from marketplace.carried import Carried, CarriedCeremony
from marketplace.ceremony import Ceremony, RoleKeys, Rotation
from marketplace.connect import registry_folder
from marketplace.datafolder import present_folder
from marketplace.keys import KeyFolder
from marketplace.passphrases import Passphrases
from marketplace.registry.handover import HANDED, hand_over, handed_roles
from marketplace.registry.metadata import MetadataRows
from marketplace.registry.registry import SystemClock
from marketplace.registry.tables import Tables
from marketplace.rehearsal import Step, rehearse
from marketplace.tuf_repository import RepositoryKeys

T = TypeVar("T")


def status_here(settings: Settings, media: Sequence[Path] = ()) -> list[RoleKeys]:
    """Which keys each role wants, which are at hand, and what expires when. Raises NotFound."""

    def look(ceremony: Ceremony, table: MetadataRows) -> list[RoleKeys]:
        return [*ceremony.status(table), *handed_roles(table.connection, ceremony.keys)]

    return _with(settings, media, look)


def begin_here(
    settings: Settings, root_keys: Sequence[Path], targets_key: Path, passphrases: Passphrases
) -> list[Rotation]:
    """The first ceremony: three new root keys and a new targets key, each made on its own medium, take the place of
    those that the first start made. ``passphrases`` are asked for before anything is done. Raises NotFound, KeyMissing,
    ValidationFailed or Conflict.
    """
    if len(root_keys) != len(RepositoryKeys.ROOTS):
        raise ValidationFailed(
            "The root has three keys, each on a medium of its own.", expected="3 folders", found=str(len(root_keys))
        )

    def begin(ceremony: Ceremony, table: MetadataRows) -> list[Rotation]:
        (root,) = (role for role in ceremony.status(table) if role.role == "root")
        return [ceremony.rotate_root(table, root.keys, root_keys), ceremony.rotate_targets(table, targets_key)]

    asked = _asked(settings, passphrases, ("root", "targets"), (), (*root_keys, targets_key))
    return _with(settings, root_keys, begin, asked)


def rotate_here(
    settings: Settings,
    role: str,
    media: Sequence[Path],
    replace: Sequence[str],
    onto: Sequence[Path],
    passphrases: Passphrases,
) -> Rotation:
    """Replace keys of ``role``. ``replace`` and ``onto`` are for the root, one folder ``onto`` for the targets.

    ``passphrases`` are asked for before anything is done, of the keys that it takes. Raises NotFound, KeyMissing,
    KeyUnusable, ValidationFailed or Conflict.
    """

    def rotate(ceremony: Ceremony, table: MetadataRows) -> Rotation:
        if role == "root":
            return ceremony.rotate_root(table, replace, onto)
        if role in HANDED:
            return hand_over(table, ceremony, role)
        if role != "targets":
            return ceremony.rotate_online(table, role)
        if len(onto) != 1:
            raise ValidationFailed(
                "The new targets key needs one folder.", expected="--onto once", found=str(len(onto))
            )
        return ceremony.rotate_targets(table, onto[0])

    signing = () if role in HANDED else ("targets" if role == "bins" else "root",)
    return _with(settings, media, rotate, _asked(settings, passphrases, signing, media, onto))


def rehearse_here(settings: Settings, report: Callable[[Step], None]) -> list[Step]:
    """Play the worst days on a copy, see :func:`marketplace.rehearsal.rehearse`. Raises NotFound."""
    return rehearse(present_folder(settings), SystemClock(), report)


def propose_here(settings: Settings, role: str, replace: Sequence[str], public: Sequence[Key]) -> Carried:
    """Begin a change of ``role`` that goes from signer to signer. Raises NotFound or ValidationFailed."""

    def propose(ceremony: CarriedCeremony, table: MetadataRows) -> Carried:
        return ceremony.propose(table, role, replace, public)

    return _with(settings, (), propose)


def submit_here(settings: Settings, carried: Carried) -> Rotation:
    """Let a change count that enough have signed. Raises NotFound, SignatureInvalid, Conflict or KeyMissing."""
    return _with(settings, (), lambda ceremony, table: ceremony.submit(table, carried))


class _Asked:
    """What was asked for: nobody types while the marketplace's database waits."""

    def __init__(self) -> None:
        self.known: dict[Path, str] = {}
        self.fresh: dict[Path, str | None] = {}

    def of(self, path: Path) -> str:
        # A key made in this ceremony signs in it as well.
        return self.known.get(path) or self.fresh.get(path.parent) or ""

    def new(self, path: Path) -> str | None:
        return self.fresh[path.parent]


def _asked(
    settings: Settings, source: Passphrases, signing: Sequence[str], media: Sequence[Path], onto: Sequence[Path]
) -> _Asked:
    """The passphrases of the keys at hand of the roles ``signing``, and those for new keys in the folders ``onto``."""
    asked, offline = _Asked(), registry_folder(settings) / "keys" / "offline"
    wanted = {key for role in status_here(settings, media) if role.role in signing for key in role.at_hand}
    for folder in dict.fromkeys((offline, *media)):
        keys = KeyFolder(folder)
        for name in keys.names():
            if keys.sealed(name) and keys.public(name).keyid in wanted:
                asked.known[keys.path(name)] = source.of(keys.path(name))
    for folder in onto:
        asked.fresh[folder] = source.new(folder / "new.pem")
    return asked


def _with(
    settings: Settings,
    media: Sequence[Path],
    work: Callable[[CarriedCeremony, MetadataRows], T],
    passphrases: Passphrases | None = None,
) -> T:
    folder, clock = present_folder(settings), SystemClock()
    tables = Tables(folder)
    try:
        with tables.write() as connection:
            return work(
                CarriedCeremony(RepositoryKeys(folder / "keys", passphrases), clock, media),
                MetadataRows(connection, clock.now()),
            )
    finally:
        tables.close()
