"""What is handed in, looked at before anything is stored: shape, signature, rules."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from contextlib import AbstractContextManager, suppress
from dataclasses import asdict
from datetime import UTC, datetime
from typing import Any

from kernel.errors import Forbidden, NotFound, ValidationFailed
from kernel.ports import Clock
from kernel.versions import parse_version
from marketplace.advisories import read_advisory, sign_advisory
from marketplace.binding import LIFETIME, open_proof_of_key, read_binding, sign_binding
from marketplace.dns import checked_domain
from marketplace.errors import SignatureInvalid, SignatureMissing, SignerUnknown, VersionTaken
from marketplace.index import checked_id
from marketplace.jobs import read_jobs
from marketplace.keys import SigningKey, public_key
from marketplace.moments import utc_text
from marketplace.namespaces import KeySet
from marketplace.oidc.issuers import Identity
from marketplace.package import Package, read_package
from marketplace.registry.advisories import Advise
from marketplace.registry.changes import Deprecate, Revoke, YankRelease
from marketplace.registry.jobs import Bind, KeepJobs, require_job
from marketplace.registry.reader import RegistryReader
from marketplace.registry.receipts import Receipt
from marketplace.registry.reviews import Decide
from marketplace.registry.submissions import OPEN
from marketplace.signing import (
    ADVISORY,
    ANSWER,
    DEPRECATION,
    DOMAIN,
    JOBS,
    KILL,
    VERDICT,
    YANK,
    Statement,
    canonical_json,
    open_statement,
    peek_statement,
    sign_statement,
    signers_named,
    verify_release,
)
from marketplace.validator import Finding, Validation, Validator
from plugin_sdk.services import BY_MARKETPLACE, Revocation

CLOCK_SKEW = 300.0
"""Seconds that a publisher's clock may be ahead."""
ANSWER_SECONDS = 86_400
"""An older answer is not taken, so that one that was kept cannot take the place of a newer one."""


class Examiner:
    """Turns packages and statements into changes that may be applied. Blocking; changes nothing."""

    def __init__(self, reader: RegistryReader, validator: Validator, clock: Clock, max_package_bytes: int) -> None:
        self._reader, self._clock, self._max_bytes = reader, clock, max_package_bytes
        self._validator, self._looking_only = validator, validator.looking_only()

    def validate(self, data: bytes) -> Validation:
        """What publishing would find, signature aside; tries no hooks. Raises what reading the package raises."""
        package = read_package(data, max_bytes=self._max_bytes)
        return self._looking_only.validate(self._reader.submission(package))

    def open(self, data: bytes, envelope: bytes | None) -> tuple[Package, Receipt | None]:
        """The package if it is whole and signed by its namespace's keys, and its receipt if it is here already.

        Raises what reading and verifying raise, NamespaceUnknown, and VersionTaken.
        """
        package = read_package(data, max_bytes=self._max_bytes)
        manifest = package.manifest
        if not envelope:
            verify_release(package, None, {})
        self._reader.refuse_mirrored(manifest.publisher)
        key_set = self._signers(package, envelope)
        verify_release(package, envelope, key_set.keys, key_set.release_threshold)
        return package, self._reader.receipt(manifest.id, manifest.version, package.digest)

    def _signers(self, package: Package, envelope: bytes | None) -> KeySet:
        """Who must have signed a release: the namespace's keys, or the CI job's key that did.

        A key that no longer holds counts for what was taken in while it did.
        """
        manifest, known = package.manifest, None
        present = self._reader.key_set(manifest.publisher)
        named = () if envelope is None else signers_named(envelope)
        binding = None if envelope is None or set(named) & set(present.keys) else self._reader.jobs.bound(envelope)
        if binding is None:
            return present
        with suppress(VersionTaken):  # which is said once the signature is known to be good
            known = self._reader.receipt(manifest.id, manifest.version, package.digest)
        at = utc_text(self._clock.now()) if known is None else binding.since
        return self._reader.jobs.signers(binding, manifest.id, at)

    @property
    def tries(self) -> bool:
        """Whether releases are run before they are published."""
        return self._validator.tries

    def look(self, package: Package) -> list[Finding]:
        """What the rules that run nothing find that does not turn the package away. Raises ReleaseRefused."""
        return self._looking_only.check(self._reader.submission(package)).findings

    def try_out(self, package: Package, found: Sequence[Finding]) -> Validation:
        """What was ``found``, with what the rules find that run the package, and its profile. Raises ReleaseRefused."""
        return self._validator.check(self._reader.submission(package), found)

    def one_view(self) -> AbstractContextManager[None]:
        """Whatever this thread asks in the body is answered from one view of the registry."""
        return self._reader.one_view()

    def is_known(self, package: Package) -> bool:
        """Whether the package has a receipt that says it is being looked at, or was refused."""
        known = self._reader.receipt(package.manifest.id, package.manifest.version, package.digest)
        return known is not None and known.state in (*OPEN, "refused")

    def fingerprint(self) -> str:
        """The rules as they hold now, and what is known of parts."""
        parts = self._reader.parts
        said = [(each.id, each.mode) for each in self._validator.rules()]
        return hashlib.sha256(repr((said, parts.threshold, parts.index.generation())).encode()).hexdigest()

    def may_pass_now(self, known: Receipt) -> bool:
        """Whether a package was refused by other rules than hold now."""
        return known.state == "refused" and self._reader.refused_by(known.digest) != self.fingerprint()

    def verdict(self, digest: str, *, approved: bool, reason: str, reviewer: str, key: SigningKey) -> Decide:
        """A verdict on a held release, with the registry's own statement by ``key``.

        Raises NotFound, ValidationFailed, ReleaseRefused if it breaks a rule by now, or a signature error if its
        publisher's keys are no longer those that signed.
        """
        told, by = " ".join(reason.split())[:500], " ".join(reviewer.split())[:100]
        if not by or not (told or approved):
            raise ValidationFailed("A verdict must say whose it is, and a rejection why.", found=digest)
        package, envelope = self._reader.reviews.package(digest)
        manifest = package.manifest
        known, again = self._reader.receipt(manifest.id, manifest.version, digest), None
        if approved and known is not None and known.state == "quarantined":
            # Things may have changed while it waited: the keys, and what else is published.
            key_set = self._signers(package, envelope)
            verify_release(package, envelope, key_set.keys, key_set.release_threshold)
            again = self._bound_again(envelope, key)
            # Its hooks were tried when it came, and do not change.
            self._looking_only.check(self._reader.submission(package))
        said = {
            "plugin": manifest.id,
            "version": manifest.version,
            "approved": approved,
            "reason": told,
            "reviewer": by,
        }
        statement = sign_statement(VERDICT, {f"{manifest.id}@{manifest.version}": digest}, said, key)
        return Decide(package, envelope, approved, told, by, statement, again)

    def _bound_again(self, envelope: bytes, key: SigningKey) -> Bind | None:
        """A CI job's key, given its minutes once more: its release waited for a person longer than it held."""
        binding = self._reader.jobs.bound(envelope)
        if binding is None:
            return None
        since, until = self.minutes()
        statement = sign_binding(binding.plugin, binding.key, binding.run, since, until, key)
        return Bind(read_binding(json.loads(statement)), None)

    def minutes(self) -> tuple[str, str]:
        """From when until when a CI job's key would hold that is given now (ISO 8601, UTC)."""
        now = self._clock.now()
        return utc_text(now), utc_text(int(now) + LIFETIME.total_seconds())

    def jobs(self, envelope: bytes) -> KeepJobs:
        """A publisher's list of CI jobs. Raises NamespaceUnknown, ValidationFailed or a signature error."""
        self._publishers_word(envelope, JOBS)
        read_jobs(json.loads(envelope))
        return KeepJobs(envelope)

    def job_key(
        self, identity: Identity, token: str, plugin: str, public: Any, proof: bytes, audience: str, key: SigningKey
    ) -> Bind:
        """A CI job's key for a plugin, by its verified token. Raises JobNotTrusted, ValidationFailed or a signature
        error.
        """
        since, until = self.minutes()
        theirs = public_key(public)
        open_proof_of_key(proof, theirs, token, checked_id(plugin), audience)
        statement = sign_binding(plugin, theirs, identity.run, since, until, key)
        binding = read_binding(json.loads(statement))
        self._reader.key_set(plugin.partition("/")[0])
        require_job(self._reader.jobs.present(plugin.partition("/")[0]), binding)
        return Bind(binding, (identity.token_id, identity.expires))

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
        moment = utc_text(at, "milliseconds")
        told = None if reason is None else (str(reason).strip() or "no reason given")[:500]
        named = str(successor) if successor and told is not None else None
        return Deprecate(str(said["plugin"]), told, named, moment, envelope)

    def answer(self, envelope: bytes) -> tuple[str, str, str | None, str]:
        """Plugin, rating, text and moment of a publisher's answer. Raises NamespaceUnknown or a signature error."""
        said = self._publishers_word(envelope, ANSWER).predicate
        try:
            text, at = said["text"], datetime.fromisoformat(said["at"])
            if at.tzinfo is None or abs(at.timestamp() - self._clock.now()) > ANSWER_SECONDS:
                raise ValueError("another day")
            told = None if text is None else str(text)
            return str(said["plugin"]), str(said["rating"]), told, at.astimezone(UTC).isoformat(timespec="seconds")
        except (KeyError, ValueError, TypeError) as error:
            raise SignatureInvalid(
                "The statement is no answer of today.", expected="plugin, rating, text and at: ISO 8601 in UTC"
            ) from error

    def advisory(self, envelope: bytes) -> Advise:
        """A publisher's advisory about plugins of their own. Raises NamespaceUnknown, ValidationFailed, Forbidden or a
        signature error.
        """
        statement = self._publishers_word(envelope, ADVISORY)
        publisher = str(statement.predicate["plugin"]).partition("/")[0]
        said = read_advisory(canonical_json(statement.predicate.get("osv")), by=publisher)
        others = [each.plugin for each in said.affected if each.plugin.partition("/")[0] != publisher]
        if others:
            raise Forbidden(
                f"{publisher} can only give advisories about plugins of its own.",
                found=", ".join(others),
                fix="Tell the marketplace's operator of weaknesses in other plugins.",
            )
        return Advise(said, envelope)

    def operators_advisory(self, body: bytes, key: SigningKey) -> Advise:
        """The operator's advisory, with the registry's own statement by ``key``. Raises ValidationFailed."""
        return Advise(read_advisory(body, by=BY_MARKETPLACE), sign_advisory(body, key))

    def domain(self, envelope: bytes) -> tuple[str, str]:
        """The namespace and the domain that its publisher names. Raises NamespaceUnknown, ValidationFailed or a
        signature error.
        """
        said = self._publishers_word(envelope, DOMAIN).predicate
        return str(said["plugin"]), checked_domain(str(said.get("domain", "")))

    def revocation(self, plugin: str, version: str, reason: str, key: SigningKey) -> Revoke:
        """The end of a release, with the registry's own statement by ``key``. Raises NotFound or ValidationFailed."""
        told = " ".join(reason.split())[:500]
        if not told:
            raise ValidationFailed("A revocation must say why.", plugin=plugin, expected="a reason")
        release = self._reader.index(plugin).find(str(parse_version(version)))
        if release is None:
            raise NotFound(f"There is no release {plugin} {version}.", plugin=plugin, found=version)
        said = Revocation(release.digest, plugin, release.version, told, utc_text(self._clock.now(), "milliseconds"))
        predicate = {name: value for name, value in asdict(said).items() if name != "digest"}
        return Revoke(said, sign_statement(KILL, {f"{plugin}@{release.version}": release.digest}, predicate, key))

    def _publishers_word(self, envelope: bytes, kind: str) -> Statement:
        """A statement about a plugin, signed by the keys of its namespace."""
        claimed = str(peek_statement(envelope, kind).predicate.get("plugin", ""))
        self._reader.refuse_mirrored(claimed.partition("/")[0])
        key_set = self._reader.key_set(claimed.partition("/")[0])
        try:
            return open_statement(envelope, kind, key_set.keys, key_set.release_threshold)
        except (SignatureInvalid, SignatureMissing, SignerUnknown) as error:
            error.plugin = claimed
            raise
