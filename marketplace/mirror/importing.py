"""Taking a bundle in at an air-gapped site, whose own root signs it anew: all of it in one commit, or nothing.

Packages are stored first, under their digests, where nothing points to them. Then one transaction adds the releases
with their evidence and signs. Killed before, the site is as it was; asked again, it changes nothing.
"""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import TYPE_CHECKING

from kernel.errors import NotFound
from marketplace.errors import BundleCorrupt, BundleOutdated
from marketplace.index import Index
from marketplace.log.entry import sha256_of
from marketplace.log.note import read_vkey
from marketplace.mirror.bundle import BundleFile
from marketplace.mirror.reading import check_grown, check_valid, is_from, read_about, view_bundle
from marketplace.mirror.syncing import seen_of
from marketplace.package import read_package, whole_package
from marketplace.registry.mirrored import TakeUpstream
from marketplace.registry.taken import Outcome, TakenPlugin
from marketplace.registry.upstreams import AddUpstream, Upstream

if TYPE_CHECKING:
    from marketplace.keys import SigningKey
    from marketplace.registry import Registry


async def import_bundle(
    registry: Registry, file: Path, *, root: bytes | None = None, name: str | None = None, older: bool = False
) -> Outcome:
    """Take in what a bundle has. ``root`` pins a marketplace that is not known here yet, under ``name``.

    ``older`` lets in one that was made before what is known already: it adds what is missing, and nothing comes back.
    Raises BundleCorrupt, BundleOutdated, NotFound (nobody's that is known here), VerificationFailed, LogInconsistent
    or Conflict.
    """
    with BundleFile(file, registry.max_package_bytes) as bundle:
        key = await registry.receipts_key()
        change, added = await asyncio.to_thread(_read, registry, bundle, root, name, older, key)
    if added is not None:
        await registry.commit(added)
    return await registry.commit(change)


def _read(
    registry: Registry, bundle: BundleFile, root: bytes | None, name: str | None, older: bool, key: SigningKey
) -> tuple[TakeUpstream, AddUpstream | None]:
    """The change that the bundle asks for, verified, after storing its packages."""
    upstream, added = _whose(registry, bundle, root, name)
    witnesses = tuple(read_vkey(each) for each in upstream.witnesses)
    view = view_bundle(bundle, upstream.name, upstream.document, registry.now(), witnesses, upstream.needed)
    seen = upstream.seen
    if seen is not None:
        check_grown(bundle, view, seen.log_size, seen.log_root)
        behind = view.walker.versions["timestamp"] < seen.versions["timestamp"]
        if behind and not older:
            raise BundleOutdated(
                f"The bundle shows {upstream.name} as it was at {view.at}, before what is known here.",
                expected=f"made after {seen.at}",
                found=f"made at {view.at}",
                fix="Get a newer bundle. Or import it with --older: what is missing is added, and nothing comes back.",
            )
    keys, taken, expected = {}, [], set[str]()
    for plugin in sorted(read_about(bundle)["releases"]):
        publisher = plugin.partition("/")[0]
        if publisher not in keys:
            keys[publisher] = view.keys(publisher)
        index, evidence = view.plugin(plugin, *keys[publisher])
        expected |= {f"packages/{release.digest}" for release in index.releases}
        taken.append(TakenPlugin(index, evidence.own, _packages(registry, bundle, index)))
    strangers = [member for member in bundle.names if member.startswith("packages/") and member not in expected]
    if strangers:
        raise BundleCorrupt(f"The bundle has packages of no release in it: {', '.join(strangers[:3])}.")
    check_valid(view)
    change = TakeUpstream(
        upstream.root,
        seen_of(view, "bundle"),
        view.state,
        key,
        keys,
        taken,
        view.revocations(),
        view.advisories(),
        older,
    )
    return change, added


def _whose(
    registry: Registry, bundle: BundleFile, root: bytes | None, name: str | None
) -> tuple[Upstream, AddUpstream | None]:
    """The upstream whose pinned root the bundle's metadata begins with, and how to add it if it is new."""
    known = registry.reader.upstreams.all()
    if root is not None:
        from marketplace.pinning import check_root

        check_root(root)
        digest = sha256_of(root)
        found = next((each for each in known if each.root == digest), None)
        if found is not None:
            return found, None
        if root == registry.trusted_root:
            raise BundleCorrupt("The bundle is this marketplace's own.", fix="Import it at another one.")
        added = AddUpstream(name or f"bundle-{digest[:8]}", root, None)
        return Upstream(added.name, digest, None, (), (), 0, "", None, None, root), added
    for each in known:
        if is_from(bundle, each.document):
            return each, None
    raise NotFound(
        "The bundle is of no marketplace whose root is pinned here.",
        expected=", ".join(f"{each.name} (root sha256 {each.root[:16]})" for each in known) or "none is pinned yet",
        found=f"the log {read_about(bundle)['log']}",
        fix="Pin it with --root FILE, which its operator gave you over another way than the bundle itself.",
    )


def _packages(registry: Registry, bundle: BundleFile, index: Index) -> str | None:
    """Store those packages of a plugin that the bundle has; what search keeps of the newest."""
    readme = None
    for release in index.releases:
        data = bundle.read(f"packages/{release.digest}")
        if data is None:
            continue
        whole_package([data], release.digest, release.size, index.plugin)
        package = read_package(data, max_bytes=registry.max_package_bytes)
        registry.reader.upstreams.keep(data)
        if release.yanked is None:
            readme = readme or package.readme
    return readme
