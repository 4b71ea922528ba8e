"""Who vouches for a package, and what happened to a publisher's keys, in a few words each."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from marketplace.registry.shelf import Walked
from marketplace.succession import Succession


def key_history(succession: Succession, moments: Mapping[int, str]) -> list[dict[str, Any]]:
    """What happened to a namespace's keys, newest first; nothing if it still has its first ones."""
    if len(succession.steps) == 1:
        return []
    found = []
    for step in reversed(succession.steps):
        key_set = step.key_set
        what = "Keys replaced by the marketplace's operator" if step.recovered else "Keys changed"
        if key_set.owner:
            what = f"Now held by {key_set.owner}"
        if key_set.version == 1:
            what = "First keys"
        found.append({"version": key_set.version, "what": what, "at": moments.get(key_set.version)})
    return found


def who_vouches(walked: Walked, publisher: str) -> list[dict[str, str]]:
    """The three who vouch for a package, each with the gist of its links (``ARCHITECTURE``, section 7)."""
    if walked.broken:
        return []
    said = {link.partition(": ")[0].partition(" ")[0]: link.partition(": ")[2] for link in walked.links}
    root = said.get("root", "").partition(", signed by ")[2].partition(" (")[0]
    log, entry = _link(walked, "log keelstone"), _link(walked, "log entry ")
    return [
        {
            "who": "The marketplace",
            "says": f"Its root is signed by {root}; the list of releases is fresh and complete.",
        },
        {"who": publisher, "says": _publisher_says(said)},
        {
            "who": "The transparency log",
            "says": f"{entry.partition(':')[0].capitalize()} of {log.partition(': ')[2].partition(' entries')[0]}: "
            "everybody is shown the same release.",
        },
    ]


def _publisher_says(said: Mapping[str, str]) -> str:
    if "job" in said:
        return f"Let a CI job release it: {said['job']}. The job's key signed exactly these bytes."
    return f"Signed exactly these bytes, {said.get('signature', '').rpartition('by ')[2]}."


def _link(walked: Walked, begins: str) -> str:
    return next((link for link in walked.links if link.startswith(begins)), "")
