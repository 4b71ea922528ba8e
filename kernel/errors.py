"""Errors with stable codes: what failed, where, what was expected and found, what to do.

Every error that leaves the platform is a :class:`KeelstoneError`. It renders as an RFC 9457
problem document over HTTP and as one clear paragraph on a terminal. The code is part of the
public contract: it never changes meaning and is never reused.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

if TYPE_CHECKING:
    from kernel.ports import GuestUsage, HostExchange

PROBLEM_PREFIX = "urn:keelstone:error:"


class KeelstoneError(Exception):
    """Base of all errors.

    ``detail`` says what failed. The keyword arguments name the place (``plugin``, ``hook``,
    ``tenant``, ``file``), the contradiction (``expected``, ``found``) and the way out (``fix``).
    ``extra`` carries machine-readable members for the problem document.
    """

    code: ClassVar[str] = "internal"
    status: ClassVar[int] = 500
    title: ClassVar[str] = "Internal error"

    def __init__(
        self,
        detail: str,
        *,
        plugin: str | None = None,
        hook: str | None = None,
        tenant: str | None = None,
        file: str | None = None,
        expected: object | None = None,
        found: object | None = None,
        fix: str | None = None,
        extra: dict[str, Any] | None = None,
    ) -> None:
        super().__init__(detail)
        self.detail = detail
        self.plugin = plugin
        self.hook = hook
        self.tenant = tenant
        self.file = file
        self.expected = expected
        self.found = found
        self.fix = fix
        self.extra = dict(extra or {})

    def problem(self, instance: str | None = None) -> dict[str, Any]:
        """The RFC 9457 problem document, JSON-ready; members without a value are left out."""
        body: dict[str, Any] = {
            "type": PROBLEM_PREFIX + self.code,
            "title": self.title,
            "status": self.status,
            "detail": self.detail,
            "code": self.code,
        }
        if instance:
            body["instance"] = instance
        for name in ("plugin", "hook", "tenant", "file", "expected", "found", "fix"):
            value = getattr(self, name)
            if value is not None:
                body[name] = value if isinstance(value, (str, int, float, list, dict)) else str(value)
        body.update(self.extra)
        return body

    def __str__(self) -> str:
        parts = [self.detail]
        where = [f"{n} {v}" for n in ("plugin", "hook", "tenant", "file") if (v := getattr(self, n))]
        if where:
            parts.append(f"({', '.join(where)})")
        facts = [f"{n} {v}" for n in ("expected", "found") if (v := getattr(self, n)) is not None]
        if facts:
            sentence = "; ".join(facts)
            parts.append(f"{sentence[0].upper()}{sentence[1:]}.")
        if self.fix:
            parts.append(self.fix)
        return " ".join(parts)


class ConfigurationError(KeelstoneError):
    """A setting is missing, malformed or contradicts another."""

    code, status, title = "configuration", 500, "Configuration is not usable"


class ValidationFailed(KeelstoneError):
    """Input does not have the required shape."""

    code, status, title = "validation", 422, "Input is not valid"


class NotFound(KeelstoneError):
    """The thing named does not exist, or is not the caller's to see."""

    code, status, title = "not-found", 404, "Not found"


class Conflict(KeelstoneError):
    """The change contradicts the present state."""

    code, status, title = "conflict", 409, "Conflict with the present state"


class ConcurrencyConflict(Conflict):
    """Somebody else appended to the stream first (optimistic concurrency)."""

    code, title = "concurrency", "Changed by somebody else meanwhile"


class Unauthenticated(KeelstoneError):
    """No usable credentials came with the request."""

    code, status, title = "unauthenticated", 401, "Sign-in needed"


class TokenExpired(Unauthenticated):
    """The access token was good once and is stale now."""

    code, title = "token-expired", "Token is stale"


class Forbidden(KeelstoneError):
    """The principal is known and may not do this."""

    code, status, title = "forbidden", 403, "Not allowed"


class TenantMismatch(Forbidden):
    """A request, statement or event names a tenant other than the one in hand."""

    code, title = "tenant-mismatch", "Another tenant's data"


class Rejected(KeelstoneError):
    """A filter hook's implementation refused the payload, with its reason."""

    code, status, title = "rejected", 422, "Refused by a plugin"


class ManifestError(KeelstoneError):
    """A plugin.toml is malformed, incomplete or has unknown keys."""

    code, status, title = "manifest", 422, "Manifest is not valid"


class VersionError(KeelstoneError):
    """A version or range is not SemVer."""

    code, status, title = "version", 422, "Not a version or range"


class ResolutionConflict(KeelstoneError):
    """No set of versions satisfies all requirements; the detail explains who wants what."""

    code, status, title = "resolution", 409, "Requirements contradict each other"


class LifecycleError(KeelstoneError):
    """The transition is not possible from the present state."""

    code, status, title = "lifecycle", 409, "Not possible in this state"


class ConsentRequired(KeelstoneError):
    """Activation asks for capabilities that nobody has granted yet."""

    code, status, title = "consent-required", 409, "Capabilities need consent"


class PluginUnavailable(KeelstoneError):
    """A plugin that must answer (``fail_closed``) could not."""

    code, status, title = "plugin-unavailable", 503, "A required plugin did not answer"


class PluginFailed(KeelstoneError):
    """An implementation raised, trapped or answered nonsense."""

    code, status, title = "plugin-failed", 502, "A plugin failed"
    usage: GuestUsage | None = None
    """What a guest had used that came to an answer, but to one that does not fit."""
    recording: tuple[HostExchange, ...] = ()
    output: str | None = None


class DeadlineExceeded(KeelstoneError):
    """The work did not end before its deadline."""

    code, status, title = "deadline", 504, "Took too long"


class BulkheadFull(KeelstoneError):
    """Too many calls of one implementation are already under way."""

    code, status, title = "bulkhead-full", 503, "Too many calls under way"


class BreakerOpen(KeelstoneError):
    """The implementation failed repeatedly and is rested."""

    code, status, title = "breaker-open", 503, "Rested after repeated failure"


class BudgetSpent(KeelstoneError):
    """The tenant's budget for the plugin is spent; ``used`` and ``allowed`` say how far."""

    code, status, title = "budget-spent", 429, "Budget is spent"


class PluginQuarantined(KeelstoneError):
    """The release was withdrawn from the platform: no call reaches it and nobody can switch it on."""

    code, status, title = "quarantined", 409, "Withdrawn from the platform"


class ServiceMissing(KeelstoneError):
    """A service was asked for that no installed plugin publishes."""

    code, status, title = "service-missing", 501, "No plugin provides this"


class UnknownHook(KeelstoneError):
    """A hook name that the hook contract does not have."""

    code, status, title = "unknown-hook", 422, "No such hook"


class SchemaIncompatible(KeelstoneError):
    """An event type's new schema would break readers of the old one."""

    code, status, title = "schema-incompatible", 409, "Schema change breaks readers"


class EventChainTooLong(KeelstoneError):
    """An event is too distant a consequence of what began its chain; it is parked, and the chain ends."""

    code, status, title = "event-chain", 409, "Plugins answer each other's events without end"


class BackendUnavailable(KeelstoneError):
    """A database, bus, cache or blob store does not answer."""

    code, status, title = "backend-unavailable", 503, "A backend does not answer"


def error_catalogue() -> dict[str, type[KeelstoneError]]:
    """Every error code that is loaded, with its class: the reference page and tests read it."""
    found: dict[str, type[KeelstoneError]] = {}
    queue: list[type[KeelstoneError]] = [KeelstoneError]
    while queue:
        cls = queue.pop()
        found.setdefault(cls.code, cls)
        queue.extend(cls.__subclasses__())
    return dict(sorted(found.items()))


class GuestFailure(KeelstoneError):
    """Base of what a guest's call can fail with. ``usage`` and ``recording`` are what it had used and
    been answered until then; None and empty if it never ran."""

    code, status, title = "guest-failure", 502, "A sandboxed plugin failed"
    usage: GuestUsage | None = None
    recording: tuple[HostExchange, ...] = ()
