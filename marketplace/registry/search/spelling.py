"""Corrections: the word of some title that is closest to one that nobody has.

Words that differ in few letters have a common remainder when few letters are left out of each, so the remainders of
every title's words are kept and looked up. Source: the symmetric delete algorithm (W. Garbe, SymSpell, 2012), with
the optimal string alignment distance (a transposition counts once).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import sqlalchemy as sa

from marketplace.registry.tables import in_parts

MAX_LETTERS = 24
LEAST_LETTERS = 4
LONG_LETTERS = 8
"""From this length on, two mistakes are forgiven."""


def learn(connection: sa.Connection, words: Iterable[str]) -> None:
    """Keep the remainders of words, which are there to stay."""
    wanted = [word for word in words if LEAST_LETTERS <= len(word) <= MAX_LETTERS]
    known: set[str] = set()
    for some, marks in in_parts(wanted):
        query = f"SELECT word FROM spellings WHERE remainder = word AND remainder IN ({marks})"  # noqa: S608
        known.update(connection.exec_driver_sql(query, some).scalars())
    rows = [(each, word) for word in wanted if word not in known for each in _remainders(word, _forgiven(word))]
    if rows:
        connection.exec_driver_sql("INSERT OR IGNORE INTO spellings(remainder, word) VALUES (?, ?)", rows)


def corrected(connection: sa.Connection, word: str) -> str:
    """The closest known word with the same first letter, the first by the alphabet among several; ``word`` if none
    is close enough."""
    for mistakes, remainders in tries(word):
        marks = ",".join("?" * len(remainders))
        known: list[str] = list(
            connection.exec_driver_sql(
                f"SELECT DISTINCT word FROM spellings WHERE remainder IN ({marks})",  # noqa: S608 - question marks only
                tuple(remainders),
            ).scalars()
        )
        if (found := nearest(word, known, mistakes)) is not None:
            return found
    return word


def tries(word: str) -> Iterator[tuple[int, list[str]]]:
    """How many mistakes to forgive, and the remainders to look up for it, fewest first; nothing for a word that is
    not corrected."""
    if LEAST_LETTERS <= len(word) <= MAX_LETTERS:
        for mistakes in range(1, _forgiven(word) + 1):
            yield mistakes, sorted(_remainders(word, mistakes))


def nearest(word: str, known: Iterable[str], mistakes: int) -> str | None:
    """Of known words the closest one with the same first letter, if it is as close as that."""
    near = [(_distance(word, each), each) for each in known if each[0] == word[0]]
    return min(near)[1] if near and min(near)[0] <= mistakes else None


def remainders_of(word: str) -> set[str]:
    """What is kept of a word of a title, to find it by; nothing if it is never corrected to."""
    return _remainders(word, _forgiven(word)) if LEAST_LETTERS <= len(word) <= MAX_LETTERS else set()


def _forgiven(word: str) -> int:
    return 2 if len(word) >= LONG_LETTERS else 1


def _remainders(word: str, mistakes: int) -> set[str]:
    found = latest = {word}
    for _ in range(mistakes):
        latest = {each[:at] + each[at + 1 :] for each in latest for at in range(len(each))}
        found = found | latest
    return found


def _distance(left: str, right: str) -> int:
    """How many letters were added, left out, changed or swapped with their neighbour."""
    before: list[int] = []
    row = list(range(len(right) + 1))
    for i, here in enumerate(left):
        last, row = row, [i + 1]
        for j, there in enumerate(right):
            best = min(last[j + 1] + 1, row[j] + 1, last[j] + (here != there))
            if i and j and here == right[j - 1] and left[i - 1] == there:
                best = min(best, before[j - 1] + 1)
            row.append(best)
        before = last
    return row[-1]
