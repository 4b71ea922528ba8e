"""Making a bundle, where a marketplace can be reached: what is put in is verified, and again when it is done."""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kernel.errors import NotFound, ValidationFailed
from kernel.manifest import PluginManifest
from kernel.resolver import Requirement, resolve
from kernel.versions import parse_range, parse_version
from marketplace.advisories import ADVISORIES_TARGET
from marketplace.index import Index, Release, checked_id, index_path, read_index
from marketplace.log.checkpoint import Checkpoint
from marketplace.log.follow import LogFollower
from marketplace.log.key import KEYS_TARGET, read_log_keys
from marketplace.log.note import VerifierKey
from marketplace.log.tiles import Tile, width_at
from marketplace.mirror.bundle import ABOUT, FORMAT, BundleFile, BundleWriter
from marketplace.mirror.evidence import keys_path, paths_of
from marketplace.mirror.reading import view_bundle
from marketplace.moments import utc_text
from marketplace.namespaces import target_path
from marketplace.registry.upstreams import download
from marketplace.revocations import REVOCATIONS_TARGET
from marketplace.succession import places_of
from marketplace.transport import Transport
from marketplace.tufcache import TrustedCache

if TYPE_CHECKING:
    from tuf.ngclient import Updater


@dataclass(frozen=True, slots=True)
class Wanted:
    """A plugin, and the range of its versions (None: all that can be installed)."""

    plugin: str
    range: str | None = None


def read_wanted(text: str) -> Wanted:
    """``acme/guard`` or ``acme/guard@^1.2``. Raises ValidationFailed."""
    plugin, at, wanted = text.partition("@")
    checked_id(plugin)
    if at:
        parse_range(wanted)
    return Wanted(plugin, wanted if at else None)


class Exporter:
    """Makes bundles of one marketplace. Blocking. The arguments are those of ``MarketplaceClient``."""

    def __init__(
        self,
        transport: Transport,
        cache: Path,
        trusted_root: bytes,
        now: Callable[[], float],
        max_package: int,
        witnesses: Sequence[VerifierKey] = (),
        needed: int = 0,
    ) -> None:
        self._transport, self._root, self._now, self._max_package = transport, trusted_root, now, max_package
        self._trusted = TrustedCache(transport, cache, trusted_root, now)
        self._witnesses, self._needed = tuple(witnesses), needed

    def export(
        self, out: Path, wanted: Sequence[Wanted] = (), *, requirements: bool = False, packages: bool = True
    ) -> dict[str, Any]:
        """Write a bundle of the ``wanted`` plugins (none named: all) to ``out``, and say what is inside.

        ``requirements`` adds what they require; without ``packages`` it has the proofs alone. The file is there whole
        or not at all. Raises NotFound, ResolutionConflict, ValidationFailed, VerificationFailed, BundleCorrupt (too
        much for one) or BackendUnavailable.
        """
        if out.is_dir():
            raise ValidationFailed("A bundle is a file.", file=str(out), fix="Name a file in this folder.")
        out.parent.mkdir(parents=True, exist_ok=True)
        descriptor, temporary = tempfile.mkstemp(prefix=".", dir=out.parent)
        try:
            with os.fdopen(descriptor, "wb") as file:
                about = self._write(BundleWriter(file), wanted, requirements, packages)
                file.flush()
                os.fsync(file.fileno())
            self._check(Path(temporary), about)
            os.chmod(temporary, 0o644)
            os.replace(temporary, out)
        except BaseException:
            with suppress(FileNotFoundError):
                os.unlink(temporary)
            raise
        return {**about, "file": str(out), "size": out.stat().st_size}

    def _write(
        self, writer: BundleWriter, wanted: Sequence[Wanted], requirements: bool, packages: bool
    ) -> dict[str, Any]:
        with self._trusted.session() as updater:
            keys = self._trusted.target(updater, KEYS_TARGET) or b""
            follower = LogFollower(
                self._transport, self._trusted.folder / "log", read_log_keys(keys), self._witnesses, self._needed
            )
            checkpoint = follower.trusted()
            indexes: dict[str, Index] = {}

            def index(plugin: str) -> Index | None:
                if plugin not in indexes:
                    body = self._trusted.target(updater, index_path(checked_id(plugin)))
                    if body is None:
                        return None
                    indexes[plugin] = read_index(body)
                return indexes[plugin]

            named = wanted or [Wanted(plugin) for plugin in _all_plugins(follower)]
            chosen = _choose(named, index, requirements=requirements)
            about = {
                "format": FORMAT,
                "made": utc_text(self._now()),
                "log": follower.keys.present.name,
                "entries": checkpoint.size,
                "releases": {plugin: [r.version for r in found] for plugin, found in chosen.items()},
                "packages": packages,
            }
            writer.add(ABOUT, json.dumps(about, indent=2).encode() + b"\n")
            self._add_log(writer, follower, checkpoint)
            documents = {KEYS_TARGET, REVOCATIONS_TARGET, ADVISORIES_TARGET}
            for plugin, releases in chosen.items():
                documents |= self._documents(updater, writer, follower, checkpoint, indexes[plugin], releases)
            self._add_metadata(updater, writer, documents)
            digests = {r.digest: r.size for found in chosen.values() for r in found} if packages else {}
            for digest, size in sorted(digests.items()):
                writer.add(f"packages/{digest}", download(self._transport, digest, size))
        writer.close()
        return about

    def _documents(
        self,
        updater: Updater,
        writer: BundleWriter,
        follower: LogFollower,
        checkpoint: Checkpoint,
        index: Index,
        releases: Sequence[Release],
    ) -> set[str]:
        """The paths of a plugin's documents, after adding the proofs of its ``releases``."""
        plugin, publisher = index.plugin, index.plugin.partition("/")[0]
        for release in releases:
            follower.fetch_proof(plugin, release.version, checkpoint)
            proof, _ = follower.proof(plugin, release.version)
            writer.add(f"log/proofs/{plugin}/{release.version}.json", proof.to_bytes())
        held = self._trusted.target(updater, target_path(publisher))
        places = {*(places_of(held) if held is not None else ()), *index.places(*(each.version for each in releases))}
        for place in sorted(places) if index.mirrored is None else ():
            proof, _ = follower.entry(place, checkpoint)
            writer.add(f"log/entries/{place}.json", proof.to_bytes())
        return {index_path(plugin), target_path(publisher), keys_path(publisher), *paths_of(index)}

    def _add_metadata(self, updater: Updater, writer: BundleWriter, documents: Iterable[str]) -> None:
        for path in sorted(documents):
            body = self._trusted.target(updater, path)
            if body is not None:
                writer.add(f"targets/{path}", body)
        walker = self._trusted.walker()
        names = ["timestamp.json", "snapshot.json", "targets.json"]
        names += sorted({f"{walker.bin_of(path)}.json" for path in documents})
        for name in names:
            writer.add(f"metadata/{name}", self._trusted.cached_metadata(name) or b"")
        # Whoever imports may have pinned an older root than this machine has.
        for version in range(2, walker.versions["root"] + 1):
            body = b"".join(self._transport.stream(f"metadata/{version}.root.json"))
            writer.add(f"metadata/root_history/{version}.root.json", body)

    def _add_log(self, writer: BundleWriter, follower: LogFollower, checkpoint: Checkpoint) -> None:
        """The checkpoint, and every hash of the tree: whoever imports sees that it grew from whatever they saw last."""
        writer.add("log/checkpoint", checkpoint.to_bytes())
        level = 0
        while width_at(checkpoint.size, level, 0):
            number = 0
            while width := width_at(checkpoint.size, level, number):
                place = Tile(level, number, width)
                writer.add(f"log/{place.path}", follower.tile(place))
                number += 1
            level += 1

    def _check(self, file: Path, about: dict[str, Any]) -> None:
        """Read the bundle as whoever imports it will."""
        with BundleFile(file, self._max_package) as bundle:
            view = view_bundle(bundle, "exported", self._root, self._now(), self._witnesses, self._needed)
            view.revocations()
            view.advisories()
            for plugin, versions in about["releases"].items():
                index, _ = view.plugin(plugin, *view.keys(plugin.partition("/")[0]))
                missing = set(versions) - {release.version for release in index.releases}
                if missing:
                    raise NotFound(f"{plugin} {', '.join(sorted(missing))} did not get into the bundle.", plugin=plugin)


def _all_plugins(follower: LogFollower) -> list[str]:
    """Every plugin that the log has a release of."""
    found = follower.audit(lambda entry: False, lambda entry: entry.kind == "publish", whole=True)
    return sorted({entry.plugin for _, entry in found.claims if entry.plugin is not None})


def _choose(
    wanted: Sequence[Wanted], index: Callable[[str], Index | None], *, requirements: bool
) -> dict[str, tuple[Release, ...]]:
    """The releases to take, by plugin. Raises NotFound or ResolutionConflict."""
    chosen: dict[str, dict[str, Release]] = {}

    def manifests(plugin: str) -> list[PluginManifest]:
        found = index(plugin)
        return [] if found is None else found.readable(found.installable())

    for each in wanted:
        found = index(each.plugin)
        if found is None:
            raise NotFound(f"There is no plugin {each.plugin} in the marketplace.", plugin=each.plugin)
        fitting = [r for r in found.installable() if each.range is None or _fits(r, each.range)]
        if not fitting and each.range is not None:
            raise NotFound(
                f"No release of {each.plugin} that can be installed fits {each.range}.",
                plugin=each.plugin,
                found=", ".join(r.version for r in found.installable()) or "none",
            )
        chosen.setdefault(each.plugin, {}).update({r.version: r for r in fitting})
        for release in fitting if requirements else ():
            for manifest in resolve([Requirement(each.plugin, f"={release.version}")], manifests):
                required = index(manifest.id)
                taken = None if required is None else required.find(manifest.version)
                if taken is not None:
                    chosen.setdefault(manifest.id, {})[taken.version] = taken
    return {plugin: tuple(found.values()) for plugin, found in chosen.items()}


def _fits(release: Release, wanted: str) -> bool:
    return parse_version(release.version) in parse_range(wanted)
