"""Ed25519 key pairs: publishers' signing keys and the registry's own.

A private key is a PKCS#8 PEM file of mode 0600, never printed and never sent. One that has a passphrase has its public
half beside it (``NAME.public.json``), so that nobody is asked only to see which key it is. A public key is
written as TUF and DSSE do, and its id is computed from the key itself, so that one key can never
pass for two.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kernel.errors import Conflict, ValidationFailed
from kernel.files import write_durably
from marketplace.errors import KeyMissing, KeyUnusable
from marketplace.passphrases import SEALED, seal

if TYPE_CHECKING:
    from securesystemslib.signer import CryptoSigner, SSlibKey

    from marketplace.passphrases import Passphrases

PUBLISHER = re.compile(r"^[a-z][a-z0-9-]{0,38}[a-z0-9]$")


def check_publisher(name: str) -> str:
    """``name`` if it can be a namespace (the part of a plugin id before the slash). Raises ValidationFailed."""
    if not PUBLISHER.match(name) or "--" in name:
        raise ValidationFailed(
            f"{name!r} is not a publisher's name.",
            expected="2 to 40 lower-case letters, digits and single hyphens, e.g. acme",
            found=name,
        )
    return name


@dataclass(frozen=True)
class SigningKey:
    """A private key at hand. ``id`` identifies its public half."""

    signer: CryptoSigner

    @property
    def id(self) -> str:
        """The public key's id: SHA-256 of its canonical form, in hex."""
        return self.public.keyid

    @property
    def public(self) -> SSlibKey:
        """The public half."""
        return self.signer.public_key

    def __repr__(self) -> str:
        return f"SigningKey({self.id[:16]})"


def generate_key() -> SigningKey:
    """A new key pair, in memory only."""
    from securesystemslib.signer import CryptoSigner

    return SigningKey(CryptoSigner.generate_ed25519())


def public_key(document: Any) -> SSlibKey:
    """The public key in plain data (``keytype``, ``scheme``, ``keyval``). Raises ValidationFailed.

    The id is computed here and never taken from the document.
    """
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
    from securesystemslib.signer import SSlibKey

    try:
        if document["keytype"] != "ed25519" or document["scheme"] != "ed25519" or set(document["keyval"]) != {"public"}:
            raise ValueError("not an Ed25519 key")
        return SSlibKey.from_crypto(Ed25519PublicKey.from_public_bytes(bytes.fromhex(document["keyval"]["public"])))
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise ValidationFailed(
            f"A public key is malformed: {error}.",
            expected='{"keytype": "ed25519", "scheme": "ed25519", "keyval": {"public": "<64 hex digits>"}}',
        ) from error


class KeyFolder:
    """Private keys in one folder, one PEM file each. The folder is of mode 0700.

    ``passphrases`` says where the passphrases come from of keys that have one, and whether new ones get one.
    """

    def __init__(self, folder: Path, passphrases: Passphrases | None = None) -> None:
        self._folder, self._passphrases = folder, passphrases

    def path(self, name: str) -> Path:
        """Where the key ``name`` is kept."""
        return self._folder / f"{name}.pem"

    def names(self) -> list[str]:
        """The keys there are."""
        return sorted(p.stem for p in self._folder.glob("*.pem"))

    def exists(self, name: str) -> bool:
        """Whether the key ``name`` is here."""
        return self.path(name).exists()

    def create(self, name: str) -> SigningKey:
        """Generate and store the key ``name``. Raises Conflict if there is one: keys are never overwritten."""
        passphrase = self._passphrases.new(self.path(name)) if self._passphrases is not None else None
        self._folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        key = generate_key()
        body = key.signer.private_bytes
        if passphrase is not None:
            body = _sealed(body, passphrase)
        temporary = self._folder / f".{name}.{os.getpid()}.new"
        try:
            descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
            with os.fdopen(descriptor, "wb") as file:
                file.write(body)
                file.flush()
                os.fsync(file.fileno())
            # A link fails if the name is taken, so two processes cannot both believe that they made the key.
            os.link(temporary, self.path(name))
        except FileExistsError as error:
            raise Conflict(
                f"There is a key {name!r} already.",
                file=str(self.path(name)),
                fix="Use it, or move it away first: whoever loses a key loses the namespace bound to it.",
            ) from error
        finally:
            with contextlib.suppress(FileNotFoundError):
                temporary.unlink()
        if passphrase is not None:
            write_durably(self._public_path(name), json.dumps(key.public.to_dict()).encode())
        return key

    def public(self, name: str) -> SSlibKey:
        """The public half of the stored key, without its passphrase if it has one: what is signed with it shows
        whether that is so. Raises as :meth:`load`."""
        with contextlib.suppress(FileNotFoundError, ValueError, ValidationFailed):
            return public_key(json.loads(self._public_path(name).read_bytes()))
        return self.load(name).public

    def sealed(self, name: str) -> bool:
        """Whether the stored key has a passphrase."""
        return SEALED.encode() in self.path(name).read_bytes()

    def _public_path(self, name: str) -> Path:
        return self._folder / f"{name}.public.json"

    def load(self, name: str) -> SigningKey:
        """The stored key ``name``. Raises KeyMissing, or KeyUnusable if malformed, open to others, or under a
        passphrase that is not given."""
        from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
        from securesystemslib.signer import CryptoSigner

        path = self.path(name)
        try:
            mode, pem = path.stat().st_mode & 0o777, path.read_bytes()
        except FileNotFoundError as error:
            raise KeyMissing(
                f"There is no signing key {name!r} on this machine.",
                file=str(path),
                fix=f"Make one with `keelstone plugin keygen {name}`, or set KEELSTONE_HOME to where it is.",
            ) from error
        if os.name == "posix" and mode & 0o077:
            raise KeyUnusable(
                "The private key can be read by others.",
                file=str(path),
                expected="mode 0600",
                found=f"mode {mode:04o}",
                fix=f"chmod 600 {path}",
            )
        private = self._opened(path, pem)
        if not isinstance(private, Ed25519PrivateKey):
            raise KeyUnusable("The key is not an Ed25519 key.", file=str(path), found=type(private).__name__)
        return SigningKey(CryptoSigner(private))

    def _opened(self, path: Path, pem: bytes) -> object:
        from cryptography.hazmat.primitives.serialization import load_pem_private_key

        sealed = SEALED.encode() in pem
        if sealed and self._passphrases is None:
            raise KeyUnusable(
                "The key has a passphrase, and nobody can be asked for it here.",
                file=str(path),
                fix="Use it on a terminal, or set KEELSTONE_KEY_PASSPHRASE or KEELSTONE_KEY_PASSPHRASE_FILE.",
            )
        passphrase = self._passphrases.of(path).encode() if sealed and self._passphrases is not None else b""
        try:
            return load_pem_private_key(pem, passphrase or None)
        except (ValueError, TypeError) as error:
            wrong = "The passphrase is not this key's." if passphrase else "The key has a passphrase; none was given."
            problem = wrong if sealed else "The key file is not a PEM private key."
            fix = "Use it on a terminal, or set KEELSTONE_KEY_PASSPHRASE or KEELSTONE_KEY_PASSPHRASE_FILE."
            raise KeyUnusable(problem, file=str(path), fix=fix if sealed else None) from error

    def load_or_create(self, name: str) -> SigningKey:
        """The key ``name``, made at first use."""
        if not self.exists(name):
            with contextlib.suppress(Conflict):
                return self.create(name)
        return self.load(name)


def _sealed(pem: bytes, passphrase: str) -> bytes:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
    from cryptography.hazmat.primitives.serialization import load_pem_private_key

    private = load_pem_private_key(pem, None)
    assert isinstance(private, Ed25519PrivateKey)
    return seal(private, passphrase)


def publisher_keys(home: Path, passphrases: Passphrases | None = None) -> KeyFolder:
    """The publishers' keys under the data folder ``home``, by namespace."""
    return KeyFolder(home / "keys", passphrases)
