"""How a version may differ from the one before it: what a tenant consented to never grows in a patch.

Levels follow SemVer 2 (items 6 to 8), with capabilities as part of what a plugin promises; below 1.0.0 the
minor number takes the part of the major one, as caret ranges read it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from enum import IntEnum
from typing import Any

from kernel.manifest import PluginManifest
from kernel.versions import Version
from marketplace.rules.rule import Problem, Rule, Submission
from plugin_sdk.differences import powers


class Level(IntEnum):
    """What a version number says has changed."""

    PATCH = 0
    MINOR = 1
    MAJOR = 2


def base_of(manifest: PluginManifest, history: Sequence[PluginManifest]) -> PluginManifest | None:
    """The published version that ``manifest`` follows: the highest below it, a stable one if there is one."""
    lower = [each for each in history if each.semver < manifest.semver]
    stable = [each for each in lower if not each.semver.prerelease]
    return max(stable or lower, key=lambda each: each.semver, default=None)


def step(old: Version, new: Version) -> Level:
    """What the numbers alone say."""
    if new.major != old.major:
        return Level.MAJOR
    if new.minor != old.minor:
        return Level.MAJOR if new.major == 0 else Level.MINOR
    return Level.PATCH


def changes(old: PluginManifest, new: PluginManifest) -> Iterator[tuple[Level, str]]:
    """What has changed for those who run the plugin, in words, each with the least level that may carry it."""
    for word, level, before, after in (
        ("asks for", Level.MINOR, powers(old), powers(new)),
        ("implements", Level.MINOR, set(old.hooks), set(new.hooks)),
        ("observes", Level.MINOR, set(old.events.subscribes), set(new.events.subscribes)),
        ("needs", Level.MAJOR, set(old.requires.plugins), set(new.requires.plugins)),
    ):
        for what in sorted(after - before):
            yield level, f"now {word} {what}, which {old.version} did not"
    for word, before, after in (
        ("implements", set(old.hooks), set(new.hooks)),
        ("declares the event", {e.type for e in old.events.declares}, {e.type for e in new.events.declares}),
        ("has the permission", set(old.permissions), set(new.permissions)),
    ):
        for what in sorted(before - after):
            yield Level.MAJOR, f"no longer {word} {what}, which {old.version} did"


def _growth(submission: Submission) -> Iterator[Problem]:
    new = submission.manifest
    old = base_of(new, submission.history or ())
    if old is None:
        return
    below_one = new.semver.major == 0
    said = step(old.semver, new.semver)
    for level, what in changes(old, new):
        least = Level.MAJOR if below_one else level
        if said < least:
            name = ("minor" if below_one else least.name.lower()) + " version"
            fix = f"Publish it as a new {name}, so that nobody gets it as a mere fix."
            yield Problem(f"{new.version} {what}", fix)


def _order(submission: Submission) -> Iterator[Problem]:
    new = submission.manifest.semver
    line = [m.semver for m in submission.history or () if (m.semver.major, m.semver.minor) == (new.major, new.minor)]
    newest = max(line, default=None)
    if newest is not None and new < newest:
        yield Problem(
            f"{new} comes after {newest}, which is published already",
            f"Publish a version above {newest}, or a fix of an older minor version.",
        )


def _old_line(submission: Submission) -> Iterator[Problem]:
    new = submission.manifest.semver
    stable = [m.semver for m in submission.history or () if not m.semver.prerelease]
    newest = max(stable, default=None)
    if newest is not None and (new.major, new.minor) < (newest.major, newest.minor):
        yield Problem(
            f"{new} goes to those who stayed behind {newest}, where fewer people look",
            f"Publish above {newest} if you can, or wait for the reviewer.",
        )


def _settings(submission: Submission) -> Iterator[Problem]:
    new = submission.manifest
    old = base_of(new, submission.history or ())
    if old is None or submission.schema_of is None or step(old.semver, new.semver) is Level.MAJOR:
        return
    if new.semver.major == 0 and old.semver.minor != new.semver.minor:
        return
    before, after = submission.schema_of(old.version), submission.package.settings_schema
    for what in narrowed(before or {}, after or {}):
        yield Problem(
            f"its settings {what}, so what tenants have set for {old.version} may not hold any more",
            "Publish it as a new major version, or take what was set as it is.",
        )


def narrowed(before: Mapping[str, Any], after: Mapping[str, Any]) -> Iterator[str]:
    """What makes settings that held under one schema not hold under the next: looked at in the first level of names,
    where people set them."""
    known, now = _named(before), _named(after)
    for name in sorted(known.keys() - now.keys()):
        yield f"no longer have {name!r}"
    for name in sorted(set(_listed(after.get("required"))) - set(_listed(before.get("required")))):
        yield f"now must have {name!r}"
    for name in sorted(known.keys() & now.keys()):
        old, new = known[name], now[name]
        if not isinstance(old, Mapping) or not isinstance(new, Mapping):
            continue
        olds, news = set(_listed(old.get("type"))), set(_listed(new.get("type")))
        if "number" in news:
            news.add("integer")
        if news and not (olds and olds <= news):
            yield f"have another type for {name!r}"
        if "enum" in new and ("enum" not in old or any(each not in new["enum"] for each in old["enum"])):
            yield f"take less for {name!r}"


def _named(schema: Mapping[str, Any]) -> Mapping[str, Any]:
    found = schema.get("properties", {})
    return found if isinstance(found, Mapping) else {}


def _listed(said: Any) -> list[str]:
    return [str(each) for each in said] if isinstance(said, list) else [] if said is None else [str(said)]


def _reach(submission: Submission) -> Iterator[Problem]:
    new = submission.manifest
    old = base_of(new, submission.history or ())
    if old is not None:
        for power in sorted(powers(new) - powers(old)):
            yield Problem(
                f"{new.version} now asks for {power}, which {old.version} did not",
                "Ask only for what the plugin needs; whoever runs it is asked to consent.",
            )


def _first(submission: Submission) -> Iterator[Problem]:
    if not submission.history:
        yield Problem("nothing of this plugin was published before", "Wait for the reviewer.")


GROWTH = (
    Rule("version-order", "A version is above all others of its minor version.", _order, needs="history"),
    Rule(
        "version-growth",
        "New capabilities, hooks and hosts come with a minor version; what is taken away, with a major one.",
        _growth,
        needs="history",
    ),
    Rule(
        "settings-growth",
        "What tenants have set goes on to hold, unless the version is a new major one.",
        _settings,
        needs="schema_of",
    ),
    Rule(
        "old-line",
        "A fix of an older minor version is looked at by a person: nobody watches it as the newest is watched.",
        _old_line,
        mode="review",
        needs="history",
    ),
    Rule("reach-grown", "A version asks for no more than the one before.", _reach, mode="off", needs="history"),
    Rule("first-release", "It is not the first release of a plugin.", _first, mode="off", needs="history"),
)
