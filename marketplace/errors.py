"""What the marketplace refuses, each with its own stable code."""

from __future__ import annotations

from typing import Any

from kernel.errors import Conflict, Forbidden, KeelstoneError, NotFound, Unauthenticated


class PackageCorrupt(KeelstoneError):
    """The archive is not a package in canonical form: truncated, altered or made by another tool."""

    code, status, title = "package-corrupt", 422, "Package is corrupt"


class PackageTooLarge(KeelstoneError):
    """The package, or one member of it, is larger than allowed."""

    code, status, title = "package-too-large", 413, "Package is too large"


class PackageMembersInvalid(KeelstoneError):
    """A member is missing, unknown, named twice, a link, or points outside the package."""

    code, status, title = "package-members", 422, "Package has the wrong members"


class PackageContentInvalid(KeelstoneError):
    """A member's content is not what its name promises (component, settings schema, icon, text)."""

    code, status, title = "package-content", 422, "Package content is not valid"


class ReleaseRefused(KeelstoneError):
    """The validator's rules say no; ``findings`` lists each rule broken, with its fix."""

    code, status, title = "release-refused", 422, "Release does not pass the rules"


class SignatureMissing(Unauthenticated):
    """A package or request came without the publisher's signature."""

    code, title = "signature-missing", "Signature is missing"


class SignatureInvalid(Forbidden):
    """A signature does not fit the content, the key or the threshold."""

    code, title = "signature-invalid", "Signature is not valid"


class SignerUnknown(Forbidden):
    """Signed, but not by a key of the namespace."""

    code, title = "signer-unknown", "Signed by a foreign key"


class JobNotTrusted(Forbidden):
    """A CI job's identity token, or the key that it was given, does not let it release this."""

    code, title = "job-not-trusted", "Job may not release"


class NamespaceTaken(Conflict):
    """The namespace is bound to other keys already."""

    code, title = "namespace-taken", "Namespace belongs to another publisher"


class KeySetRefused(Conflict):
    """The key set does not follow the namespace's present one: a version is missing, comes again, or has a rival."""

    code, title = "key-set-refused", "Key set does not follow the present one"


class NamespaceUnknown(NotFound):
    """Nobody has registered the namespace."""

    code, title = "namespace-unknown", "Namespace is not registered"


class NamespaceMirrored(Conflict):
    """The namespace resolves somewhere else than where something of it was to be changed: here, or at an upstream."""

    code, title = "namespace-mirrored", "Namespace resolves elsewhere"


class BundleOutdated(Conflict):
    """The bundle shows an upstream as it was before what is known of it here already."""

    code, title = "bundle-outdated", "Bundle is older than what is here"


class BundleCorrupt(KeelstoneError):
    """The file is not a bundle: truncated, altered, or with members that do not belong."""

    code, status, title = "bundle-corrupt", 422, "Bundle is corrupt"


class NamespacesClosed(Forbidden):
    """The operator registers namespaces; strangers may not."""

    code, title = "namespaces-closed", "Namespaces are not open for registration"


class VersionTaken(Conflict):
    """The version was published already with other bytes; versions never change."""

    code, title = "version-taken", "Version is published already"


class ReleaseYanked(Conflict):
    """The release was withdrawn from new installs by its publisher."""

    code, title = "release-yanked", "Release is withdrawn"


class ReleaseRevoked(Conflict):
    """The marketplace's operator ended the release everywhere: it is not installed, and quarantined where it runs."""

    code, title = "release-revoked", "Release is revoked"


class KeyMissing(NotFound):
    """No private key of the publisher on this machine."""

    code, title = "key-missing", "No signing key"


class KeyUnusable(KeelstoneError):
    """A key file is malformed or readable by others."""

    code, status, title = "key-unusable", 500, "Key cannot be used"


class DeskClosed(Forbidden):
    """The operator's pages are for the operator, on the marketplace's own machine."""

    code, title = "desk-closed", "For the marketplace's operator only"


class TooManyReports(KeelstoneError):
    """More ratings or figures were handed in than are taken in a day."""

    code, status, title = "too-many-reports", 429, "Too much was reported today"


class RegistryDamaged(KeelstoneError):
    """The registry's own data contradicts itself; the message says what to restore."""

    code, status, title = "registry-damaged", 500, "Registry data is damaged"


class VerificationFailed(KeelstoneError):
    """A link of the chain from the trusted root to the package broke; ``link`` names it."""

    code, status, title = "verification", 422, "Package could not be verified"

    def __init__(self, link: str, detail: str, *, extra: dict[str, Any] | None = None, **where: Any) -> None:
        super().__init__(f"The chain breaks at {link}: {detail}", extra={"link": link, **(extra or {})}, **where)
        self.link = link


class LogInconsistent(VerificationFailed):
    """The transparency log contradicts what it showed before: forked, shortened or rewritten."""

    code, title = "log-inconsistent", "Log contradicts itself"

    def __init__(self, detail: str, **where: Any) -> None:
        super().__init__("log", detail, **where)


class DomainNotVerified(KeelstoneError):
    """A domain does not say that a namespace is its own."""

    code, status, title = "domain-not-verified", 409, "Domain does not name the namespace"
