"""The author's side of publishing: from a plugin's folder to a signed package to a receipt."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from kernel.errors import NotFound
from marketplace.archive import check_size
from marketplace.errors import PackageMembersInvalid, SignatureInvalid
from marketplace.keys import SigningKey
from marketplace.namespaces import make_key_set
from marketplace.package import DEFAULT_MAX_BYTES, Package, build_package, read_package
from marketplace.rules import Submission
from marketplace.signing import SIGNATURE_SUFFIX, join_release, sign_release, signers_named
from marketplace.validator import Validator

if TYPE_CHECKING:
    from marketplace.registry.receipts import NamespaceRecord, Receipt

_SEND = (
    "Send the package with its .sig.json to whoever has one of these keys: `keelstone plugin sign FILE` adds their "
    "signature. Then publish."
)


class Intake(Protocol):
    """Where releases are handed in: a :class:`marketplace.registry.Registry`."""

    async def register_namespace(self, document: bytes, *, by_operator: bool = False) -> NamespaceRecord: ...

    async def publish(self, package: bytes, envelope: bytes | None) -> Receipt: ...


@dataclass(frozen=True, slots=True)
class SignedPackage:
    """A package and its detached signature (a DSSE envelope)."""

    package: Package
    envelope: bytes

    def write(self, folder: Path) -> tuple[Path, Path]:
        """Write both files into ``folder``; their paths."""
        folder.mkdir(parents=True, exist_ok=True)
        file = folder / self.package.file_name
        file.write_bytes(self.package.data)
        return file, write_signature(file, self.envelope)


def signature_path(file: Path) -> Path:
    """The signature beside a package file."""
    return file.with_name(file.name + SIGNATURE_SUFFIX)


def write_signature(file: Path, envelope: bytes) -> Path:
    """Write the signature beside a package file; its path."""
    path = signature_path(file)
    path.write_bytes(envelope)
    return path


def join_signature(file: Path, signed: SignedPackage, key: SigningKey) -> bytes:
    """Write a package's signature by ``key`` beside it, keeping those of others over the same package; the envelope."""
    beside = signature_path(file)
    present = beside.read_bytes() if beside.is_file() else None
    envelope = join_release(signed.package, present, [key])
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(signed.package.data)
    write_signature(file, envelope)
    return envelope


def check_signers(
    envelope: bytes | None,
    publisher: str,
    keys: Sequence[str],
    needed: int,
    *,
    what: str | None = None,
    fix: str = _SEND,
) -> None:
    """Raise SignatureInvalid, saying whose signatures are missing, if fewer than ``needed`` of ``keys`` have signed."""
    named = signers_named(envelope) if envelope else ()
    signed, missing = [key for key in keys if key in named], [key for key in keys if key not in named]
    if envelope is None or not signed or len(signed) >= needed:
        return  # who has not signed at all is told so by the marketplace
    raise SignatureInvalid(
        f"{what or f'A release of {publisher}'} must be signed by {needed}, and only {len(signed)} signed this one.",
        expected=f"{needed - len(signed)} more of {', '.join(f'key {key[:16]}' for key in missing)}",
        found=", ".join(f"key {key[:16]}" for key in signed),
        fix=fix,
    )


def sign_package(data: bytes, key: SigningKey, *, max_bytes: int = DEFAULT_MAX_BYTES) -> SignedPackage:
    """Check a package by the marketplace's own rules and sign it. Raises what publishing would."""
    package = read_package(data, max_bytes=max_bytes)
    Validator().check(Submission(package))
    return SignedPackage(package, sign_release(package, key))


def read_component(component: Path) -> bytes:
    """The built component. Raises NotFound if it is not built."""
    try:
        return component.read_bytes()
    except FileNotFoundError as error:
        raise NotFound(
            "The plugin's component has not been built.",
            file=str(component),
            fix="Run `keelstone plugin build` first.",
        ) from error


def sign_folder(folder: Path, component: Path, key: SigningKey, *, max_bytes: int = DEFAULT_MAX_BYTES) -> SignedPackage:
    """Build and sign the package of a plugin's folder. Raises NotFound if the component is not built."""
    data = read_component(component)
    return sign_package(build_package(folder, data, max_bytes=max_bytes), key, max_bytes=max_bytes)


async def publish_folder(
    intake: Intake, folder: Path, component: Path, key: SigningKey, *, max_bytes: int = DEFAULT_MAX_BYTES
) -> Receipt:
    """Build, sign and publish the plugin in ``folder`` under ``key``, registering its namespace at first.

    Idempotent: the same folder, component and key give the same receipt. Acts for the operator.
    """
    signed = sign_folder(folder, component, key, max_bytes=max_bytes)
    key_set = make_key_set(signed.package.manifest.publisher, [key])
    await intake.register_namespace(key_set.document, by_operator=True)
    return await intake.publish(signed.package.data, signed.envelope)


def read_signed(file: Path, *, max_bytes: int = DEFAULT_MAX_BYTES) -> tuple[bytes, bytes | None]:
    """A package file and the signature beside it, if there is one. Raises NotFound or PackageTooLarge."""
    if not file.is_file():
        raise NotFound(f"There is no file {file}.", file=str(file), fix="Make one with `keelstone plugin sign`.")
    if file.name.endswith(SIGNATURE_SUFFIX):
        raise PackageMembersInvalid(
            "This is a signature, not a package.",
            file=str(file),
            fix=f"Name the package: {file.name.removesuffix(SIGNATURE_SUFFIX)}",
        )
    check_size(file.stat().st_size, max_bytes)
    beside = signature_path(file)
    return file.read_bytes(), beside.read_bytes() if beside.is_file() else None
