"""A plugin's index: everything a platform must know of its releases, one TUF target per plugin.

``plugins/<publisher>/<name>.json`` lists each release with its digest, size, minimum kernel,
manifest, signature and yank. Packages themselves are not targets: they are fetched by the digest
that the index gives.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, fields
from datetime import UTC, datetime
from typing import Any

from kernel.errors import ManifestError, NotFound, ValidationFailed
from kernel.manifest import PluginManifest, check_plugin_id, manifest_from_dict
from kernel.versions import parse_version
from marketplace.errors import RegistryDamaged
from marketplace.signing import canonical_json
from plugin_sdk.services import MarketplaceEntry, PublishedRelease

FORMAT = 1


@dataclass(frozen=True, slots=True)
class Yank:
    """A release withdrawn from new installs: why, and when (ISO 8601, UTC)."""

    reason: str
    at: str


@dataclass(frozen=True, slots=True)
class Deprecation:
    """A plugin that should no longer be chosen: why, what to use instead (a plugin's id), and since when."""

    reason: str
    successor: str | None
    at: str

    @property
    def advice(self) -> str:
        """The reason, and what to use instead, as sentences."""
        instead = f" Use {self.successor} instead." if self.successor else ""
        return f"{self.reason.rstrip('.')}.{instead}"


@dataclass(frozen=True, slots=True)
class Mirrored:
    """Where a plugin comes from that was published elsewhere: what the upstream is called here, the SHA-256 of the root
    that is pinned of it, when this was taken from it (ISO 8601, UTC), and the target with its metadata of then."""

    upstream: str
    root: str
    at: str
    state: str


@dataclass(frozen=True, slots=True)
class Release:
    """One published version. ``kernel`` is the range of hook contracts it runs on."""

    version: str
    digest: str
    size: int
    kernel: str
    published: str
    yanked: Yank | None
    manifest: Mapping[str, Any]
    envelope: Mapping[str, Any]
    provenance: Mapping[str, Any] | None = None
    """Of a CI job's release: the marketplace's word for the job's key, and where the log has that."""

    def parsed_manifest(self) -> PluginManifest:
        """The manifest as a typed value. Raises ManifestError if this kernel cannot read it."""
        return manifest_from_dict(self.manifest)

    @property
    def published_at(self) -> datetime:
        """When it was published."""
        return datetime.fromisoformat(self.published).astimezone(UTC)


_FIELDS = tuple(each.name for each in fields(Release))


def _plain(yanked: Yank | None) -> dict[str, str] | None:
    return None if yanked is None else asdict(yanked)


def _plain_release(release: Release) -> dict[str, Any]:
    said = {**{name: getattr(release, name) for name in _FIELDS}, "yanked": _plain(release.yanked)}
    if release.provenance is None:
        del said["provenance"]
    return said


@dataclass(frozen=True, slots=True)
class Index:
    """All releases of one plugin, newest version first."""

    plugin: str
    releases: tuple[Release, ...]
    deprecated: Deprecation | None = None
    domain: str | None = None
    """The domain that speaks for its publisher, as the marketplace verified it."""
    mirrored: Mirrored | None = None
    """None: it was published here."""
    repository: str | None = None
    """One whose CI job has released a plugin of its publisher, and still may, as the marketplace saw it."""
    jobs: tuple[Mapping[str, Any], ...] = ()
    """Its publisher's lists of the CI jobs that may release it, each with its place in the log, if one ever did."""

    def published(self) -> dict[str, PublishedRelease]:
        """The installable versions, as the platform asks for them."""
        about = (self.domain, self.repository)
        return {r.version: PublishedRelease(r.digest, r.published_at, *about) for r in self.installable()}

    def places(self, *versions: str) -> tuple[int, ...]:
        """The log's indices that the provenance of some versions (or of all) needs, unverified: to fetch proofs."""
        some = [r for r in self.releases if r.provenance is not None and (not versions or r.version in versions)]
        said = [each for release in some for each in (release.provenance, *self.jobs)]
        return tuple(sorted({each["entry"] for each in said if each and type(each.get("entry")) is int}))

    def find(self, version: str) -> Release | None:
        """The release of that version, yanked or not."""
        return next((r for r in self.releases if r.version == version), None)

    def before(self, version: str) -> list[tuple[str, str]]:
        """Version and digest of each release before that version, newest first."""
        mine = parse_version(version)
        return [(each.version, each.digest) for each in self.releases if parse_version(each.version) < mine]

    def installable(self) -> tuple[Release, ...]:
        """Releases that are not yanked, newest first."""
        return tuple(r for r in self.releases if r.yanked is None)

    @staticmethod
    def readable(releases: Iterable[Release]) -> list[PluginManifest]:
        """The manifests of those releases that this kernel can read: one made for a newer kernel is no reason to
        hide the others."""
        found = []
        for release in releases:
            with suppress(ManifestError):
                found.append(release.parsed_manifest())
        return found

    def to_bytes(self) -> bytes:
        """The document, canonical."""
        listed = [_plain_release(release) for release in self.releases]
        body = {"format": FORMAT, "plugin": self.plugin, "releases": listed}
        if self.deprecated is not None:
            body["deprecated"] = asdict(self.deprecated)
        if self.domain is not None:
            body["domain"] = self.domain
        if self.repository is not None:
            body["repository"] = self.repository
        if self.jobs:
            body["jobs"] = [dict(each) for each in self.jobs]
        if self.mirrored is not None:
            body["mirrored"] = asdict(self.mirrored)
        return canonical_json(body)


def index_path(plugin: str) -> str:
    """Where the index of ``plugin`` is among the TUF targets."""
    return f"plugins/{plugin}.json"


def make_index(
    plugin: str,
    releases: list[Release],
    deprecated: Deprecation | None = None,
    domain: str | None = None,
    mirrored: Mirrored | None = None,
    jobs: Iterable[Mapping[str, Any]] = (),
    repository: str | None = None,
) -> Index:
    """The index of ``releases``, put in order."""
    newest_first = sorted(releases, key=lambda r: parse_version(r.version), reverse=True)
    return Index(plugin, tuple(newest_first), deprecated, domain, mirrored, repository, tuple(jobs))


def read_index(document: bytes) -> Index:
    """The index in a verified document. Raises RegistryDamaged if a newer marketplace wrote it."""
    try:
        body = json.loads(document)
        if body["format"] != FORMAT:
            raise ValueError(f"format {body['format']}")
        releases = tuple(
            Release(**{**r, "yanked": Yank(**r["yanked"]) if r["yanked"] else None}) for r in body["releases"]
        )
        deprecated, domain, mirrored = (body.get(name) for name in ("deprecated", "domain", "mirrored"))
        advice = Deprecation(**deprecated) if deprecated else None
        origin = Mirrored(**mirrored) if mirrored else None
        return Index(
            str(body["plugin"]),
            releases,
            advice,
            None if domain is None else str(domain),
            origin,
            body.get("repository"),
            tuple(body.get("jobs", ())),
        )
    except (ValueError, KeyError, TypeError) as error:
        raise RegistryDamaged(
            f"A plugin's index cannot be read: {error}.",
            expected=f"format {FORMAT}",
            fix="Update this platform: the marketplace may be newer.",
        ) from error


def entry_of(index: Index) -> MarketplaceEntry:
    """What search and info show: the newest stable release that is not yanked. Raises NotFound if none is left."""
    releases = index.installable()
    if not releases:
        raise NotFound(f"Every release of {index.plugin} has been withdrawn.", plugin=index.plugin)
    stable = [r for r in releases if not parse_version(r.version).prerelease]
    latest = (stable or list(releases))[0]
    manifest = latest.parsed_manifest()
    return MarketplaceEntry(
        id=index.plugin,
        name=manifest.name,
        summary=manifest.summary,
        latest=latest.version,
        versions=tuple(r.version for r in releases),
        license=manifest.license,
        publisher=manifest.publisher,
        keywords=manifest.keywords,
        capabilities=tuple(manifest.capabilities.asked()),
        deprecated=index.deprecated.reason if index.deprecated else None,
        successor=index.deprecated.successor if index.deprecated else None,
        domain=index.domain,
        repository=index.repository,
    )


def manifest_document(manifest: PluginManifest) -> dict[str, Any]:
    """The manifest as the index keeps it: plain data, defaults left out."""
    return manifest.model_dump(mode="json", exclude_defaults=True)


def checked_id(plugin: str) -> str:
    """``plugin`` if it can be a plugin's id. Raises ValidationFailed."""
    try:
        return check_plugin_id(plugin)
    except ValueError as error:
        raise ValidationFailed(str(error), found=plugin) from error
