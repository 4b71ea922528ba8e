"""What is handed in, looked at before anything is stored: shape, signature, rules."""

from __future__ import annotations

from dataclasses import asdict
from datetime import UTC, datetime
from typing import Any

from kernel.errors import NotFound, ValidationFailed
from kernel.ports import Clock
from kernel.versions import parse_version
from marketplace.errors import SignatureInvalid, SignatureMissing, SignerUnknown
from marketplace.keys import SigningKey
from marketplace.package import Package, read_package
from marketplace.registry.changes import Deprecate, Revoke, YankRelease
from marketplace.registry.reader import RegistryReader
from marketplace.registry.receipts import Receipt
from marketplace.signing import (
    DEPRECATION,
    KILL,
    YANK,
    Statement,
    open_statement,
    peek_statement,
    sign_statement,
    verify_release,
)
from marketplace.validator import Validation, Validator
from plugin_sdk.services import Revocation

CLOCK_SKEW = 300.0
"""Seconds that a publisher's clock may be ahead."""


class Examiner:
    """Turns packages and statements into changes that may be applied. Blocking; changes nothing."""

    def __init__(self, reader: RegistryReader, validator: Validator, clock: Clock, max_package_bytes: int) -> None:
        self._reader, self._clock, self._max_bytes = reader, clock, max_package_bytes
        self._validator, self._looking_only = validator, validator.looking_only()

    def validate(self, data: bytes) -> Validation:
        """What publishing would find, signature aside; tries no hooks. Raises what reading the package raises."""
        package = read_package(data, max_bytes=self._max_bytes)
        return self._looking_only.validate(self._reader.submission(package))

    def publish(self, data: bytes, envelope: bytes | None) -> tuple[Package, list[dict[str, Any]], Receipt | None]:
        """The package if nothing stands in its way, what else was found, and its receipt if it is here already."""
        package = read_package(data, max_bytes=self._max_bytes)
        manifest = package.manifest
        if not envelope:
            verify_release(package, None, {})
        key_set = self._reader.key_set(manifest.publisher)
        verify_release(package, envelope, key_set.keys, key_set.threshold)
        known = self._reader.receipt(manifest.id, manifest.version, package.digest)
        findings = [] if known is not None else self._validator.check(self._reader.submission(package))
        return package, [asdict(each) for each in findings], known

    def yank(self, envelope: bytes) -> YankRelease:
        """The withdrawal that a publisher's statement asks for. Raises NamespaceUnknown or a signature error."""
        statement = self._publishers_word(envelope, YANK)
        said = statement.predicate
        try:
            (digest,) = statement.subjects.values()
            return YankRelease(str(said["plugin"]), str(said["version"]), digest, str(said["reason"])[:500], envelope)
        except (KeyError, ValueError) as error:
            raise SignatureInvalid(
                "The statement does not say which release is withdrawn, and why.",
                expected="plugin, version and reason, about one package",
            ) from error

    def deprecation(self, envelope: bytes) -> Deprecate:
        """The advice that a publisher's statement gives. Raises NamespaceUnknown or a signature error."""
        said = self._publishers_word(envelope, DEPRECATION).predicate
        try:
            reason, successor, at = said["reason"], said["successor"], datetime.fromisoformat(said["at"])
            if at.tzinfo is None or at.timestamp() > self._clock.now() + CLOCK_SKEW:
                raise ValueError("a moment that has not come")
        except (KeyError, ValueError, TypeError) as error:
            raise SignatureInvalid(
                "The statement does not say what is advised against, why, and since when.",
                expected="plugin, reason, successor, and at: ISO 8601 in UTC, not in the future",
            ) from error
        moment = at.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
        told = None if reason is None else (str(reason).strip() or "no reason given")[:500]
        named = str(successor) if successor and told is not None else None
        return Deprecate(str(said["plugin"]), told, named, moment, envelope)

    def revocation(self, plugin: str, version: str, reason: str, key: SigningKey) -> Revoke:
        """The end of a release, with the registry's own statement by ``key``. Raises NotFound or ValidationFailed."""
        told = " ".join(reason.split())[:500]
        if not told:
            raise ValidationFailed("A revocation must say why.", plugin=plugin, expected="a reason")
        release = self._reader.index(plugin).find(str(parse_version(version)))
        if release is None:
            raise NotFound(f"There is no release {plugin} {version}.", plugin=plugin, found=version)
        at = datetime.fromtimestamp(self._clock.now(), UTC).isoformat(timespec="milliseconds")
        said = Revocation(release.digest, plugin, release.version, told, at.replace("+00:00", "Z"))
        predicate = {name: value for name, value in asdict(said).items() if name != "digest"}
        return Revoke(said, sign_statement(KILL, {f"{plugin}@{release.version}": release.digest}, predicate, key))

    def _publishers_word(self, envelope: bytes, kind: str) -> Statement:
        """A statement about a plugin, signed by the keys of its namespace."""
        claimed = str(peek_statement(envelope, kind).predicate.get("plugin", ""))
        key_set = self._reader.key_set(claimed.partition("/")[0])
        try:
            return open_statement(envelope, kind, key_set.keys, key_set.threshold)
        except (SignatureInvalid, SignatureMissing, SignerUnknown) as error:
            error.plugin = claimed
            raise
