"""What a plugin's hooks needed when they were tried, against others of its class and against its version before.

Fuel is counted by the sandbox and the same wherever it is counted, so these rules say the same on the author's machine
as on the marketplace's. They look at calls with small samples: what is much for those is not less for real ones.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from marketplace.rules.rule import Problem, Rule, Submission

RUNTIME_BYTES = 1 << 20
"""Components from this size have a language's runtime inside."""
NEARLY = 0.9
"""Share of the memory that the manifest declares from which little is left for anything larger than a sample."""
FUEL_GROWTH, MEMORY_GROWTH = 4, 2
"""How many times as much as the version before is worth a word."""
SMALL_FUEL, SMALL_MEMORY = 1_000_000, 1 << 20
"""What may grow from anything: too little for anybody to feel."""


@dataclass(frozen=True, slots=True)
class SizeClass:
    """What is usual for one kind of component, for each call of a hook with a sample: ``fuel`` in instructions,
    ``memory`` in bytes."""

    name: str
    fuel: int
    memory: int


# Measured with a new plugin of each language (fuel, memory): Rust 28 thousand, 0.4 MiB; AssemblyScript 108 thousand,
# 0.1 MiB; JavaScript 0.3 million, 1.4 MiB; Python 0.8 million, 12 MiB; Go 1.8 million, 3.3 MiB. Usual is up to some
# fifty times as many instructions.
COMPILED = SizeClass("compiled code", 5_000_000, 8 << 20)
RUNTIME = SizeClass("a language's runtime", 100_000_000, 48 << 20)


def class_of(component: bytes) -> SizeClass:
    """The class of a component."""
    return RUNTIME if len(component) >= RUNTIME_BYTES else COMPILED


def _class(submission: Submission) -> Iterator[Problem]:
    usual = class_of(submission.package.component)
    for hook, used in sorted(submission.trial().profile.items() if submission.trial else ()):
        if used.fuel > usual.fuel:
            yield Problem(
                f"{hook} takes {used.fuel:,} instructions for a sample, and {usual.name} usually at most "
                f"{usual.fuel:,}",
                "Look for work that is done for every call and could be done once, or when it is needed.",
            )
        if used.memory_bytes > usual.memory:
            yield Problem(
                f"{hook} takes {_mib(used.memory_bytes)} of memory for a sample, and {usual.name} usually at most "
                f"{_mib(usual.memory)}",
                "Look for data that is inside the component and could be asked for, and for what is kept too long.",
            )


def _room(submission: Submission) -> Iterator[Problem]:
    declared = submission.manifest.limits.memory_mb << 20
    for hook, used in sorted(submission.trial().profile.items() if submission.trial else ()):
        if used.memory_bytes > declared * NEARLY:
            yield Problem(
                f"{hook} takes {_mib(used.memory_bytes)} of the {_mib(declared)} of memory that it declares, for a "
                "sample",
                "Raise limits.memory_mb in plugin.toml, or keep less in memory: real payloads are larger.",
            )


def _growth(submission: Submission) -> Iterator[Problem]:
    if submission.trial is None or submission.profile_before is None:
        return
    found = submission.profile_before()
    if found is None:
        return
    version, before = found
    for hook, used in sorted(submission.trial().profile.items()):
        known = before.get(hook)
        if known is None:
            continue
        if used.fuel > max(known.fuel * FUEL_GROWTH, SMALL_FUEL):
            yield Problem(
                f"{hook} takes {used.fuel:,} instructions for a sample, and took {known.fuel:,} in {version}",
                "Say in the changelog what it does now, or look for what was not meant.",
            )
        if used.memory_bytes > max(known.memory_bytes * MEMORY_GROWTH, SMALL_MEMORY):
            yield Problem(
                f"{hook} takes {_mib(used.memory_bytes)} of memory for a sample, and took "
                f"{_mib(known.memory_bytes)} in {version}",
                "Say in the changelog what it does now, or look for what was not meant.",
            )


def _mib(size: int) -> str:
    return f"{size / (1 << 20):.1f} MiB"


PROFILE = (
    Rule(
        "profile-class",
        "Its hooks take no more instructions and memory than is usual for its class.",
        _class,
        mode="monitored",
        needs="trial",
        costly=True,
    ),
    Rule(
        "profile-room",
        "The memory that it declares is not nearly full with a sample.",
        _room,
        mode="monitored",
        needs="trial",
        costly=True,
    ),
    Rule(
        "profile-growth",
        "Its hooks do not take many times as much as in the version before.",
        _growth,
        mode="monitored",
        needs="profile_before",
        costly=True,
    ),
)
