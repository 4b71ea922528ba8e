"""A bundle as an upstream's view: the same checks as over the network, at the moment when the bundle was made."""

from __future__ import annotations

import json
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

from marketplace.errors import BundleCorrupt, LogInconsistent, VerificationFailed
from marketplace.log.audit import check_extends
from marketplace.log.checkpoint import Checkpoint, open_checkpoint, read_checkpoint, require_witnesses
from marketplace.log.note import VerifierKey
from marketplace.log.proof import read_proof
from marketplace.log.tiles import Tile
from marketplace.mirror.bundle import ABOUT, FORMAT, BundleFile
from marketplace.mirror.view import Source, UpstreamView

AHEAD = 300.0
"""Seconds that the clock of whoever made a bundle may be ahead."""


def read_about(bundle: BundleFile) -> dict[str, Any]:
    """What a bundle says of itself, unverified: ``made``, ``log``, ``releases`` by plugin. Raises BundleCorrupt."""
    try:
        said = json.loads(bundle.read(ABOUT) or b"")
        if said["format"] != FORMAT:
            raise ValueError(f"format {str(said['format'])[:20]}")
        releases = {str(plugin): [str(v) for v in versions] for plugin, versions in said["releases"].items()}
        made = datetime.fromisoformat(said["made"])
        if made.tzinfo is None:
            raise ValueError("a moment without a time zone")
        return {"made": str(said["made"]), "log": str(said["log"]), "releases": releases}
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise BundleCorrupt(
            f"The bundle does not say what it is: {error}.",
            expected=f"format {FORMAT}",
            fix="Update this platform: whoever made the bundle may be newer.",
        ) from error


def view_bundle(
    bundle: BundleFile,
    name: str,
    root: bytes,
    now: float,
    witnesses: Sequence[VerifierKey] = (),
    needed: int = 0,
) -> UpstreamView:
    """The marketplace with the pinned ``root`` as the bundle shows it. ``now`` is in epoch seconds.

    Raises VerificationFailed: another marketplace's, metadata that had expired when it was made, or that is from the
    future.
    """
    about = read_about(bundle)

    def proof(plugin: str, version: str) -> bytes | None:
        return _of_this_log(bundle.read(f"log/proofs/{plugin}/{version}.json"), checkpoint)

    source = Source(
        lambda path: bundle.read(f"metadata/{path}"),
        lambda path: bundle.read(f"targets/{path}"),
        proof,
        lambda index: _of_this_log(bundle.read(f"log/entries/{index}.json"), checkpoint),
    )
    first = UpstreamView(name, root, about["made"], source)
    checkpoint = open_checkpoint(bundle.read("log/checkpoint") or b"", first.walker.log_keys().present)
    require_witnesses(checkpoint, witnesses, needed)
    view = UpstreamView(name, root, about["made"], source, tuple(witnesses), needed, checkpoint)
    _check_not_ahead(view, now)
    check_valid(view)
    return view


def check_grown(bundle: BundleFile, view: UpstreamView, size: int, root: str) -> None:
    """Check that the log in the bundle begins with what was seen of it before. Raises LogInconsistent.

    A shorter one cannot be compared, and is for :class:`BundleOutdated` to refuse.
    """
    now = view.checkpoint
    assert now is not None
    if now.size < size:
        return

    def tile(place: Tile) -> bytes:
        return bundle.read(f"log/{place.path}") or b""

    check_extends(Checkpoint(now.origin, size, bytes.fromhex(root), now.note), now, tile)


def frozen(view: UpstreamView) -> str:
    """The link that says so wherever a chain from a bundle is shown."""
    unknown = "what was published, withdrawn or revoked since then is not known here"
    return f"bundle: {view.name} frozen at {view.at}; {unknown}"


def _of_this_log(body: bytes | None, checkpoint: Checkpoint) -> bytes | None:
    """A proof, if it is against the bundle's own checkpoint: no other history is shown beside it."""
    if body is None:
        return None
    try:
        other = read_checkpoint(read_proof(body).checkpoint)
    except ValueError as error:
        raise VerificationFailed("log", f"a proof's checkpoint cannot be read: {error}.") from error
    if (other.size, other.root) != (checkpoint.size, checkpoint.root):
        raise LogInconsistent(
            "a proof in the bundle is against another checkpoint than the bundle's.",
            expected=f"{checkpoint.size} entries, root {checkpoint.root.hex()[:16]}",
            found=f"{other.size} entries, root {other.root.hex()[:16]}",
        )
    return body


def check_valid(view: UpstreamView) -> None:
    """Raise VerificationFailed if something of what was read so far had expired when the bundle was made."""
    until = view.walker.walk.valid_until
    if until is not None and datetime.fromisoformat(view.at) > until:
        raise VerificationFailed(
            "timestamp",
            f"the bundle's metadata had expired when it was made: it was valid until {until:%Y-%m-%d %H:%M} UTC.",
            expected=f"made before {until.isoformat()}",
            found=view.at,
            fix="Export it anew where the marketplace can be reached.",
        )


def is_from(bundle: BundleFile, root: bytes) -> bool:
    """Whether the bundle's metadata begins with the pinned ``root``."""
    source = Source(
        lambda path: bundle.read(f"metadata/{path}"),
        lambda path: bundle.read(f"targets/{path}"),
        lambda plugin, version: None,
        lambda index: None,
    )
    try:
        UpstreamView("", root, "", source).walker.log_keys()
    except VerificationFailed:
        return False
    return True


def _check_not_ahead(view: UpstreamView, now: float) -> None:
    made = datetime.fromisoformat(view.at)
    if made.timestamp() > now + AHEAD:
        raise VerificationFailed(
            "clock",
            "the bundle was made in the future.",
            expected=f"{datetime.fromtimestamp(now, UTC).isoformat(timespec='seconds')} or earlier",
            found=view.at,
            fix="Set this machine's clock.",
        )
