"""What each page shows, gathered from the registry: plain values, no HTML."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from kernel.errors import KeelstoneError, ManifestError, NotFound
from kernel.hookspecs import CONTRACT_GENERATIONS
from kernel.manifest import PluginManifest
from kernel.versions import parse_range, parse_version
from marketplace.binding import build_of
from marketplace.errors import NamespaceUnknown
from marketplace.index import Index, Release, checked_id, entry_of
from marketplace.package import Package
from marketplace.registry import RegistryReader
from marketplace.registry.figures import DAYS as DAYS_SHOWN
from marketplace.registry.figures import LEAST_PLATFORMS
from marketplace.registry.shelf import Totals, Walked
from marketplace.screenshots import Screenshot
from marketplace.storefront.asked import FACETS, MOST, SORTS, Asked
from marketplace.storefront.charts import letters
from marketplace.storefront.markup import changes_of, render_markdown, safe_link
from marketplace.storefront.packages import CACHED_PACKAGES, Packages
from marketplace.storefront.vouching import key_history, who_vouches
from plugin_sdk.asking import asked_for
from plugin_sdk.differences import Change, differences
from plugin_sdk.services import Advisory, MarketplaceEntry, SearchFilters

DAYS = 90
MOST_RATINGS = 20
COUNTED_SECONDS = 60.0


@dataclass(frozen=True, slots=True)
class Version:
    """One release as a list shows it."""

    release: Release
    manifest: PluginManifest | None
    revoked: str | None
    changes: tuple[Change, ...]
    """What it may do more, or less, than the one before."""
    runs: bool
    log_index: int | None
    advisories: tuple[Advisory, ...] = ()
    """Known weaknesses of this version."""


class Pages:
    """Gathers what pages show. Blocking; safe from several threads. ``now`` is in epoch seconds."""

    def __init__(self, reader: RegistryReader, now: Callable[[], float]) -> None:
        self._reader, self._now = reader, now
        self.packages = Packages(reader)
        self._counted: tuple[float, Totals | None] = (0.0, None)
        self._walked: OrderedDict[tuple[str, bytes], Walked] = OrderedDict()

    def _today(self) -> Any:
        return datetime.fromtimestamp(self._now(), UTC).date()

    # -------------------------------------------------------------------------- search

    def search(self, asked: Asked) -> dict[str, Any]:
        """The home page: what was found, and what it could be narrowed to."""
        most = MOST if asked.sort in ("downloads", "name") or (asked.sort == "newest" and asked.q) else asked.show + 1
        found = self._reader.search(asked.q, min(most, MOST), asked.filters)
        names, shelf = [entry.id for entry in found], self._reader.shelf
        if asked.sort == "downloads":
            lately = shelf.lately(names)
            found.sort(key=lambda entry: -lately.get(entry.id, 0))
        elif asked.sort == "name":
            found.sort(key=lambda entry: entry.name.lower())
        elif asked.sort == "newest":
            released = shelf.released(names)
            found.sort(key=lambda entry: released.get(entry.id, ""), reverse=True)
        facets = self._reader.facets(asked.q, asked.filters)
        elsewhere = 0
        if not found and not asked.all:
            elsewhere = len(self._reader.search(asked.q, MOST, Asked(q=asked.q, all=True).filters))
        unfiltered = not asked.q and not asked.narrowed
        suggestion = shelf.suggestion(asked.q) if asked.q else None
        return {
            "asked": asked,
            "found": self._cards(found[: asked.show]),
            "more": len(found) > asked.show and asked.show < MOST,
            "counted": facets.counted,
            "facets": {name: facets.values.get(name, {}) for name in FACETS},
            "facet_words": FACETS,
            "sorts": SORTS if asked.q else {**SORTS, "best": "Newest plugin"},
            "suggestion": suggestion,
            "elsewhere": elsewhere,
            "totals": self._totals() if unfiltered else None,
            "contract": CONTRACT_GENERATIONS[-1],
        }

    def _totals(self) -> Totals:
        """Of a moment ago: counting everything takes longer than the page."""
        made, totals = self._counted
        if totals is None or self._now() - made > COUNTED_SECONDS:
            totals = self._reader.shelf.totals()
            self._counted = (self._now(), totals)
        return totals

    def _cards(self, entries: Sequence[MarketplaceEntry]) -> list[dict[str, Any]]:
        """Entries as lists show them, each with what is known besides its manifest."""
        names = [entry.id for entry in entries]
        lately, released = self._reader.shelf.lately(names), self._reader.shelf.released(names)
        rated = self._reader.ratings.summaries(names)
        return [
            {
                "entry": entry,
                "downloads": lately.get(entry.id, 0),
                "released": released.get(entry.id),
                "rating": rated.get(entry.id),
            }
            for entry in entries
        ]

    # -------------------------------------------------------------------------- a plugin

    def plugin(self, publisher: str, name: str, version: str | None = None) -> dict[str, Any]:
        """A plugin's page, or that of one of its versions. Raises NotFound or ValidationFailed."""
        plugin = checked_id(f"{publisher}/{name}")
        index = self._reader.index(plugin)
        release = _chosen(index, version)
        if release is None:
            raise NotFound(f"There is no release {plugin} {version}.", plugin=plugin, fix="Choose one of its versions.")
        package = self.packages.get(release)
        manifest = package.manifest if package else _manifest(release)
        revoked = {each.digest: each for each in self._reader.revocations.all() if each.plugin == plugin}
        downloads = self._reader.shelf.downloads([plugin], self._today(), DAYS)
        versions = self._versions(index, {digest: each.reason for digest, each in revoked.items()})
        latest, walked = _chosen(index, None), self._walk(plugin, release)
        return {
            "plugin": plugin,
            "publisher": publisher,
            "short_name": name,
            "index": index,
            "release": release,
            "latest": latest,
            "is_latest": latest is not None and latest.version == release.version,
            "installable": release.yanked is None,
            "manifest": manifest,
            "asks": list(asked_for(manifest)) if manifest else [],
            "homepage": safe_link(manifest.homepage) if manifest else None,
            "screenshots": package.screenshots if package else (),
            "readme": render_markdown(package.readme, title=manifest.name) if package and manifest else None,
            "versions": versions,
            "shown": next(each for each in versions if each.release.version == release.version),
            "changes": _changes(package, release.version),
            "revoked": revoked.get(release.digest),
            # Today is not over: as the last point of a line it would look like a fall.
            "downloads": downloads[:-1],
            "fetched": sum(downloads),
            "findings": self._reader.findings(plugin, release.version),
            "costs": self._reader.costs(index, release),
            "walked": walked,
            "checks": who_vouches(walked, publisher),
            "build": None if walked.broken else build_of(release.provenance),
            "contracts": _contracts(release),
            "contract": CONTRACT_GENERATIONS[-1],
            "signer": self._signer(publisher),
            "rated": self._reader.ratings.summaries([plugin]).get(plugin),
            "ratings": self._reader.ratings.of(plugin, MOST_RATINGS),
            "figures": self._reader.figures.of(plugin, self._today()),
            "least": LEAST_PLATFORMS,
            "days": DAYS_SHOWN,
        }

    def _versions(self, index: Index, revoked: dict[str, str]) -> list[Version]:
        where, said = self._reader.shelf.log_indexes(index.plugin), self._reader.advisories.about(index.plugin)
        found: list[Version] = []
        manifests = [_manifest(release) for release in index.releases]
        for at, (release, manifest) in enumerate(zip(index.releases, manifests, strict=True)):
            before = next((each for each in manifests[at + 1 :] if each is not None), None)
            changes = tuple(differences(before, manifest)) if manifest and before else ()
            found.append(
                Version(
                    release,
                    manifest,
                    revoked.get(release.digest),
                    changes,
                    bool(_contracts(release)),
                    where.get(("publish", release.version)),
                    tuple(each for each in said if each.affects(index.plugin, release.version)),
                )
            )
        return found

    def _walk(self, plugin: str, release: Release) -> Walked:
        """The chain of a release, walked anew whenever the metadata is signed anew."""
        key = (release.digest, self._reader.metadata("timestamp.json") or b"")
        known = self._walked.get(key)
        if known is None:
            package = self.packages.whole(release)
            known = self._reader.shelf.walk(plugin, release.version, package) if package else Walked((), "no package")
            self._walked[key] = known
            while len(self._walked) > CACHED_PACKAGES:
                with suppress(KeyError):
                    self._walked.popitem(last=False)
        return known

    def _signer(self, publisher: str) -> Any:
        try:
            return self._reader.key_set(publisher)
        except NamespaceUnknown:
            return None

    def icon(self, publisher: str, name: str, version: str) -> bytes:
        """A release's icon, or letters in its place. Raises NotFound or ValidationFailed."""
        plugin, release = self._release(publisher, name, version)
        package = self.packages.get(release)
        if package is not None and package.icon is not None:
            return package.icon
        return letters(package.manifest.name if package else name, plugin)

    def screenshot(self, publisher: str, name: str, version: str, number: int) -> tuple[Screenshot, bytes]:
        """A release's screenshot, counted from 1, and its bytes. Raises NotFound or ValidationFailed."""
        plugin, release = self._release(publisher, name, version)
        found = self.packages.screenshot(release, number - 1)
        if found is None:
            raise NotFound(f"{plugin} {version} has no screenshot {number}.", plugin=plugin)
        return found

    def _release(self, publisher: str, name: str, version: str) -> tuple[str, Release]:
        plugin = checked_id(f"{publisher}/{name}")
        release = self._reader.index(plugin).find(version)
        if release is None:
            raise NotFound(f"There is no release {plugin} {version}.", plugin=plugin)
        return plugin, release

    # -------------------------------------------------------------------------- a publisher

    def publisher(self, publisher: str) -> dict[str, Any]:
        """A publisher's page. Raises NotFound."""
        key_set, history = self._reader.key_set(publisher), self._reader.key_sets(publisher)
        found = self._reader.search("", MOST, SearchFilters(publisher=publisher))
        names = [entry.id for entry in found]
        shelf = self._reader.shelf
        released, downloads = shelf.released(names), shelf.downloads(names, self._today(), DAYS)
        return {
            "publisher": publisher,
            "key_set": key_set,
            "domain": self._reader.domains.of(publisher),
            "history": key_history(*history),
            "registered": shelf.registered(publisher),
            "found": self._cards(found),
            # Today is not over: as the last point of a line it would look like a fall.
            "downloads": downloads[:-1],
            "fetched": sum(downloads),
            "newest": max(released.values(), default=None),
            "figures": [(each, self._reader.figures.of(each.id, self._today())) for each in found],
            "least": LEAST_PLATFORMS,
            "days": DAYS_SHOWN,
        }

    def publishers(self) -> dict[str, Any]:
        """Everybody who publishes here."""
        return {"publishers": self._reader.shelf.publishers()}


def _chosen(index: Index, version: str | None) -> Release | None:
    """That version; or the one to install; or, if all are withdrawn, the newest."""
    if version is not None:
        return index.find(version)
    with suppress(NotFound, ManifestError):
        return index.find(entry_of(index).latest)
    return index.releases[0]


def _manifest(release: Release) -> PluginManifest | None:
    with suppress(ManifestError):
        return release.parsed_manifest()
    return None


def _contracts(release: Release) -> list[str]:
    """The hook contracts of this platform's generation on which a release runs."""
    with suppress(KeelstoneError):
        wanted = parse_range(release.kernel)
        return [each for each in CONTRACT_GENERATIONS if parse_version(each) in wanted]
    return []


def _changes(package: Package | None, version: str) -> Any:
    text = changes_of(package.changelog, version) if package else ""
    return render_markdown(text, below=3) if text else None
