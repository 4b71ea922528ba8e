"""A publisher's keys on this machine: the one that `keygen` made, further ones by name, and which of them count.

A second key of ``acme`` is kept as ``acme.NAME``. What the marketplace last said of the namespace's key sets is kept
beside the keys, so that signing, which is done offline, takes a key that counts.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from kernel.errors import KeelstoneError, ValidationFailed
from kernel.files import write_durably
from marketplace.errors import KeyMissing, KeyUnusable
from marketplace.keys import KeyFolder, SigningKey, check_publisher, publisher_keys

if TYPE_CHECKING:
    from securesystemslib.signer import SSlibKey

    from kernel.settings import Settings
    from marketplace.namespaces import KeySet
    from marketplace.passphrases import Passphrases


def key_name(publisher: str, name: str | None) -> str:
    """The name under which a key is kept. Raises ValidationFailed."""
    check_publisher(publisher)
    if name is None:
        return publisher
    if not name.isascii() or not name.replace("-", "").isalnum() or len(name) > 40:
        raise ValidationFailed(f"{name!r} cannot name a key.", expected="letters, digits and hyphens", found=name)
    return f"{publisher}.{name}"


class OwnKeys:
    """The keys of one publisher in this machine's data folder."""

    def __init__(self, settings: Settings, publisher: str, passphrases: Passphrases | None = None) -> None:
        """``passphrases`` says where those come from that keys are under; without it such keys cannot sign."""
        self._folder: KeyFolder = publisher_keys(settings.home, passphrases)
        self._publisher = check_publisher(publisher)
        self._kept: Path = settings.home / "keys" / f"{publisher}.keys.json"

    def names(self) -> list[str]:
        """The keys that are here, the publisher's first one first."""
        mine = (self._publisher, f"{self._publisher}.")
        return [name for name in self._folder.names() if name == mine[0] or name.startswith(mine[1])]

    def all(self) -> list[SigningKey]:
        """All of them. Raises KeyMissing if there is none."""
        return [self._folder.load(name) for name in self.names() or [self._publisher]]

    def load(self, name: str) -> SigningKey:
        """Any key on this machine, by the name of its file (a new owner signs with a key of their own)."""
        return self._folder.load(name)

    def public(self, name: str) -> SSlibKey:
        """The public half of a key on this machine, for which no passphrase is needed. Raises KeyMissing."""
        return self._folder.public(name)

    def present(self) -> KeySet | None:
        """The namespace's key set as the marketplace last showed it; None if it never did."""
        from marketplace.succession import read_succession

        try:
            return read_succession(self._kept.read_bytes()).newest
        except (FileNotFoundError, KeelstoneError):
            return None

    def remember(self, succession: bytes) -> None:
        """Keep what the marketplace says of the namespace's key sets."""
        write_durably(self._kept, succession)

    def signing(self) -> SigningKey:
        """The key to sign with: the first here that is in the present key set. Raises KeyMissing if none is, and
        KeyUnusable."""
        names, present = self.names() or [self._publisher], self.present()
        ids = {name: self.public(name).keyid for name in names}
        counting = [name for name, id in ids.items() if present is None or id in present.keys]
        if not counting:
            raise KeyMissing(
                f"None of the keys of {self._publisher} on this machine counts any more.",
                expected=", ".join(f"key {key[:16]}" for key in (present.keys if present else ())),
                found=", ".join(f"key {id[:16]}" for id in ids.values()),
                fix=f"See `keelstone plugin keys show {self._publisher}`: sign with a key that is listed there.",
            )
        key = self.load(counting[0])
        if key.id != ids[counting[0]]:
            file = self._folder.path(counting[0])
            raise KeyUnusable(
                "The public half that is kept beside the key is not its own.",
                file=str(file),
                expected=f"key {ids[counting[0]][:16]}",
                found=f"key {key.id[:16]}",
                fix=f"Delete {file.stem}.public.json beside it.",
            )
        return key
