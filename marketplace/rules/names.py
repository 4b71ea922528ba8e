"""Names that could be taken for somebody else's. Looked at once, when a plugin's first version is published."""

from __future__ import annotations

from collections.abc import Iterator

from marketplace.rules.rule import Problem, Rule, Submission

_SHORTEST = 5
"""Names below this are too short for a slip of the finger to say anything."""
_ALIKE = str.maketrans({"0": "o", "1": "l", "i": "l", "5": "s", "-": None})
_FIX = "Choose a name that nobody can take for the other, or ask the marketplace's operator to let it pass."


def alike(name: str, other: str) -> bool:
    """Whether the two differ, and by no more than what looks alike or one slip: a letter more, less,
    another, or two exchanged (optimal string alignment distance of 1)."""
    if name == other or min(len(name), len(other)) < _SHORTEST:
        return False
    return _shape(name) == _shape(other) or _one_slip(name, other)


def kept_under(name: str) -> tuple[str, ...]:
    """The keys under which a name must be kept so that those who could be taken for it find it by :func:`looked_up`.

    One slip touches two neighbouring letters at most, so it leaves one half of the name alone: whole catalogues need
    not be compared.
    """
    if len(name) < _SHORTEST:
        return ()
    half = (len(name) - 1) // 2
    return f"={_shape(name)}", f"{len(name)}<{name[:half]}", f"{len(name)}>{name[-half:]}"


def looked_up(name: str) -> Iterator[str]:
    """The keys of every name that is :func:`alike`, and of some others."""
    yield f"={_shape(name)}"
    for length in range(max(len(name) - 1, _SHORTEST), len(name) + 2):
        half = (length - 1) // 2
        yield f"{length}<{name[:half]}"
        yield f"{length}>{name[-half:]}"


def _shape(name: str) -> str:
    return name.translate(_ALIKE).replace("rn", "m").replace("vv", "w")


def _one_slip(one: str, other: str) -> bool:
    differing = (at for at, pair in enumerate(zip(one, other, strict=False)) if pair[0] != pair[1])
    begin = next(differing, min(len(one), len(other)))
    rest, others = one[begin:], other[begin:]
    if all(part[0].isdigit() for part in (rest, others) if part):
        # report-1 and report-2 are a series, not a slip.
        return False
    return (
        rest[1:] == others[1:]
        or rest[1:] == others
        or rest == others[1:]
        or (rest[:2] == others[1::-1] and rest[2:] == others[2:])
    )


def _similar(submission: Submission) -> Iterator[Problem]:
    if submission.history or submission.others is None:
        return
    manifest = submission.manifest
    for other in submission.others():
        publisher, _, name = other.partition("/")
        if publisher == manifest.publisher:
            continue
        if alike(manifest.publisher, publisher):
            yield Problem(f"the publisher {manifest.publisher} could be taken for {publisher}", _FIX)
            return
        if alike(manifest.short_name, name):
            yield Problem(f"{manifest.id} could be taken for {other}", _FIX)
            return


NAMES = (Rule("similar-name", "The name cannot be taken for somebody else's.", _similar, needs="others"),)
