"""Mirroring over the network: an upstream's log says what is new there, its TUF metadata and proofs that it is so.

Each change is checked from the upstream's pinned root and committed with its evidence, some plugins at a time. Killed
anywhere, the registry has whole plugins only, and the next sync reads the same entries of the log again.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kernel.errors import Conflict, KeelstoneError, NotFound, ValidationFailed
from kernel.files import write_durably
from marketplace.advisories import ADVISORIES_TARGET
from marketplace.errors import LogInconsistent, VerificationFailed
from marketplace.index import Index, checked_id, index_path, read_index
from marketplace.keys import SigningKey, check_publisher
from marketplace.log.audit import Audit
from marketplace.log.entry import Entry, sha256_of
from marketplace.log.follow import LogFollower
from marketplace.log.key import KEYS_TARGET, read_log_keys
from marketplace.log.note import read_vkey
from marketplace.mirror.evidence import Evidence, KeyProofs, keys_path, paths_of
from marketplace.mirror.view import Source, UpstreamView
from marketplace.moments import utc_text
from marketplace.namespaces import target_path
from marketplace.package import read_package
from marketplace.registry.mirrored import TakeUpstream
from marketplace.registry.tables import in_parts
from marketplace.registry.taken import Outcome, TakenPlugin, TakeTexts
from marketplace.registry.upstreams import AddUpstream, ClaimNamespace, RemoveUpstream, Seen, Upstream, download
from marketplace.revocations import REVOCATIONS_TARGET
from marketplace.succession import Succession, places_of
from marketplace.transport import Transport
from marketplace.tufcache import TrustedCache

if TYPE_CHECKING:
    from tuf.ngclient import Updater

    from marketplace.registry import Registry

AT_ONCE = 50
"""Plugins in one commit."""
EVERY_SECONDS = 900.0
"""How often a marketplace that runs looks at its upstreams (a quarter of an hour)."""


class Mirror:
    """The upstreams of an open registry. For one event loop."""

    def __init__(self, registry: Registry) -> None:
        self._registry, self._desk = registry, registry.reader.upstreams

    async def add(self, added: AddUpstream) -> Upstream:
        """Mirror another marketplace from now on. Raises as :class:`AddUpstream`, and Conflict if it is this one."""
        if added.document == self._registry.trusted_root:
            raise Conflict("A marketplace cannot be its own upstream.", found=sha256_of(added.document)[:16])
        return await self._registry.commit(added)

    async def remove(self, name: str) -> Upstream:
        """Follow an upstream no more; what was taken stays. Raises NotFound."""
        found = await asyncio.to_thread(self._desk.find, name)
        await self._registry.commit(RemoveUpstream(found.root))
        return found

    async def claim(self, publisher: str, where: str) -> None:
        """Decide where a namespace resolves: ``local``, or at an upstream. Raises NotFound or NamespaceMirrored."""
        source = where if where == "local" else (await asyncio.to_thread(self._desk.find, where)).root
        await self._registry.commit(ClaimNamespace(publisher, source))

    async def sync(
        self, name: str, *, ahead: bool = False, progress: Callable[[str], None] = lambda _: None
    ) -> Outcome:
        """Take over what is new at an upstream; with ``ahead`` its packages, too, which else come when asked for.

        ``progress`` is told each plugin. Raises NotFound, ValidationFailed (it has no address), VerificationFailed,
        LogInconsistent or BackendUnavailable; what was committed before stays.
        """
        upstream = await asyncio.to_thread(self._desk.find, name)
        loop = asyncio.get_running_loop()

        def commit(change: Any) -> Any:
            return asyncio.run_coroutine_threadsafe(self._registry.commit(change), loop).result()

        key = await self._registry.receipts_key()
        return await asyncio.to_thread(self._sync, upstream, ahead, key, commit, progress)

    async def sync_all(self, report: Callable[[str], None] = lambda problem: None) -> list[Outcome]:
        """Sync every upstream that has an address; what fails, and what was left out, goes to ``report``."""
        outcomes = []
        for each in await asyncio.to_thread(self._desk.all):
            if each.url is None:
                continue
            try:
                outcome = await self.sync(each.name)
            except KeelstoneError as error:
                report(f"The upstream {each.name} could not be mirrored: {error}")
            else:
                outcomes.append(outcome)
                for problem in [*outcome.held.values(), *outcome.problems]:
                    report(f"The upstream {each.name}: {problem}")
        return outcomes

    async def keep_following(self, report: Callable[[str], None] = lambda problem: None) -> None:
        """Sync all of them every quarter of an hour, until cancelled. Whatever they show, it goes on."""
        while True:
            try:
                await self.sync_all(report)
            except Exception as error:  # an upstream's odd answer must not end what renews the marketplace beside it
                report(f"The upstreams could not be mirrored: {type(error).__name__}: {error}")
            await asyncio.sleep(EVERY_SECONDS)

    # -------------------------------------------------------------------------- blocking

    def _sync(
        self,
        upstream: Upstream,
        ahead: bool,
        key: SigningKey,
        commit: Callable[[Any], Any],
        progress: Callable[[str], None],
    ) -> Outcome:
        if upstream.url is None:
            raise NotFound(
                f"The upstream {upstream.name} has no address: it comes in bundles.",
                fix="Import the next one with `keelstone marketplace bundle import`.",
            )
        with closing(self._desk.connect(upstream.url)) as transport:
            look = _Look(upstream, transport, self._desk.folder / upstream.root[:16], self._registry.now)
            with look.trusted.session() as updater:
                listed = self._desk.listed(upstream.root)
                follower, changed, publishers = look.follow(updater, list(listed))
                changed |= look.listed_otherwise(updater, listed)
                view = look.view(follower)
                seen = seen_of(view, "network")
                total = Outcome(upstream.name, view.at, problems=look.doubts)
                parts = [part for part, _ in in_parts(sorted(changed), AT_ONCE)] or [()]
                for part in parts:
                    taken, keys = [], {}
                    for publisher in {each.partition("/")[0] for each in part} | publishers:
                        keys[publisher] = look.keys(updater, view, follower, publisher)
                    for plugin in part:
                        progress(plugin)
                        try:
                            found = look.plugin(updater, view, follower, plugin, keys[plugin.partition("/")[0]])
                        except LogInconsistent:
                            raise
                        except VerificationFailed as error:
                            total.problems.append(f"{plugin} was left out: {error}")
                            continue
                        if found is None:
                            total.problems.append(f"It has logged {plugin}, but does not list it yet.")
                            continue
                        readme = self._bring(transport, found.index) if ahead else None
                        taken.append(TakenPlugin(found.index, found.evidence.own, readme))
                    change = TakeUpstream(
                        upstream.root,
                        seen,
                        view.state,
                        key,
                        keys,
                        taken,
                        view.revocations(),
                        view.advisories(),
                    )
                    total.add(commit(change))
                    publishers = set()
                if not total.problems:
                    look.passed(follower)
            if ahead:
                commit(TakeTexts(self._bring_all(upstream, transport)))
        return total

    def _bring_all(self, upstream: Upstream, transport: Transport) -> dict[str, str]:
        """Fetch the packages of what was taken before without them."""
        found = {}
        for plugin in self._desk.plugins(upstream.root):
            readme = self._bring(transport, self._registry.reader.index(plugin))
            if readme is not None:
                found[plugin] = readme
        return found

    def _bring(self, transport: Transport, index: Index) -> str | None:
        """Fetch the packages that are not here; what search keeps of the newest."""
        readme = None
        for release in index.installable():
            if not self._desk.has(release.digest):
                data = download(transport, release.digest, release.size)
                package = read_package(data, max_bytes=max(self._registry.max_package_bytes, 1))
                self._desk.keep(data)
                readme = readme or package.readme
        return readme


@dataclass(frozen=True, slots=True)
class _Found:
    index: Index
    evidence: Evidence


@dataclass
class _Look:
    """One look at an upstream."""

    upstream: Upstream
    transport: Transport
    folder: Path
    now: Callable[[], float]

    def __post_init__(self) -> None:
        self.trusted = TrustedCache(self.transport, self.folder, self.upstream.document, self.now)
        self._audit: Audit | None = None
        self.doubts: list[str] = []
        self.witnesses = tuple(read_vkey(each) for each in self.upstream.witnesses)

    def follow(self, updater: Updater, known: Sequence[str]) -> tuple[LogFollower, set[str], set[str]]:
        """The log's follower, the plugins about which it has something new, and the namespaces with new keys."""
        for path in (REVOCATIONS_TARGET, ADVISORIES_TARGET):
            self.trusted.target(updater, path)
        keys = self.trusted.target(updater, KEYS_TARGET) or b""
        folder, needed = self.trusted.folder / "log", self.upstream.needed
        follower = LogFollower(self.transport, folder, read_log_keys(keys), self.witnesses, needed)
        before = self._followed()
        whole = before != (list(self.upstream.only), self.upstream.seen is not None)
        self._audit = follower.audit(lambda entry: False, self._concerns, whole=whole)
        self.doubts = list(self._audit.problems)
        claims = [entry for _, entry in self._audit.claims]
        plugins = {entry.plugin for entry in claims if entry.plugin is not None}
        mine = {each.partition("/")[0] for each in known}
        return follower, plugins, {e.publisher for e in claims if e.kind in ("keys", "owner")} & mine

    def listed_otherwise(self, updater: Updater, listed: Mapping[str, str]) -> set[str]:
        """The plugins whose index is another than was taken: what is verified of a publisher is not in the log."""
        found = set()
        for plugin, digest in listed.items():
            info = updater.get_targetinfo(index_path(plugin)) if self.upstream.covers(plugin) else None
            if info is not None and info.hashes.get("sha256") != digest:
                found.add(plugin)
        return found

    def _concerns(self, entry: Entry) -> bool:
        if entry.plugin is None:
            return entry.kind in ("keys", "owner")
        # A name that no plugin can have is nobody's here, whatever the upstream takes it for.
        named = entry.kind in ("publish", "yank", "deprecate", "kill") and is_plugin_id(entry.plugin)
        return named and self.upstream.covers(entry.plugin)

    def _followed(self) -> tuple[list[str], bool] | None:
        """What was followed when the log was last read to its end here; None if it never was."""
        with suppress(FileNotFoundError, ValueError, KeyError, TypeError):
            said = json.loads((self.trusted.folder / "followed").read_bytes())
            return list(said["only"]), True
        return None

    def passed(self, follower: LogFollower) -> None:
        """Remember that everything up to here was taken."""
        if self._audit is not None:
            follower.passed(self._audit)
            write_durably(self.trusted.folder / "followed", json.dumps({"only": list(self.upstream.only)}).encode())

    def view(self, follower: LogFollower) -> UpstreamView:
        """What the upstream shows now."""
        trusted = self.trusted
        source = Source(trusted.cached_metadata, trusted.cached_target, follower.stored_proof, follower.stored_entry)
        assert self._audit is not None
        return UpstreamView(
            self.upstream.name,
            self.upstream.document,
            utc_text(self.now()),
            source,
            self.witnesses,
            self.upstream.needed,
            self._audit.checkpoint,
        )

    def keys(
        self, updater: Updater, view: UpstreamView, follower: LogFollower, publisher: str
    ) -> tuple[Succession, KeyProofs]:
        """A namespace's keys, fetched and verified."""
        behind = self.trusted.target(updater, keys_path(publisher))
        held = self.trusted.target(updater, target_path(publisher))
        if behind is None and held is not None:
            follower.fetch_entries(places_of(held))
        return view.keys(publisher)

    def plugin(
        self,
        updater: Updater,
        view: UpstreamView,
        follower: LogFollower,
        plugin: str,
        keys: tuple[Succession, KeyProofs],
    ) -> _Found | None:
        """A plugin with its evidence, fetched and verified; None if the upstream does not list it."""
        body = self.trusted.target(updater, index_path(plugin))
        if body is None:
            return None
        index = read_index(body)
        for path in paths_of(index):
            self.trusted.target(updater, path)
        if index.mirrored is None:
            follower.fetch_entries(index.places())
        for release in index.releases:
            try:
                _, checkpoint = follower.proof(plugin, release.version)
                missing = follower.keys.retired_signer(checkpoint) is not None
            except LogInconsistent:
                raise
            except VerificationFailed:  # there is none yet, or the disk damaged it
                missing = True
            if missing:
                follower.fetch_proof(plugin, release.version, None if self.upstream.needed else view.checkpoint)
        return _Found(*view.plugin(plugin, *keys))


def seen_of(view: UpstreamView, way: str) -> Seen:
    """How far this shows an upstream."""
    assert view.checkpoint is not None
    return Seen(view.walker.versions, view.checkpoint.size, view.checkpoint.root.hex(), view.at, way)


def is_plugin_id(plugin: str) -> bool:
    """Whether it can be a plugin's id here: small ASCII letters, digits and hyphens."""
    try:
        checked_id(plugin)
        check_publisher(plugin.partition("/")[0])
    except ValidationFailed:
        return False
    return True
