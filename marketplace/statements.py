"""A publisher's words beside releases: withdrawals, advice, answers, advisories, domains.

Each is a signed statement, and where a namespace asks for two people, both sign it: it goes from one to the other as a
file.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kernel.errors import ValidationFailed
from kernel.files import read_named
from marketplace.keys import SigningKey, check_publisher
from marketplace.publishing import check_signers
from marketplace.signing import (
    ADVISORY,
    ANSWER,
    DEPRECATION,
    DOMAIN,
    JOBS,
    STATEMENT_PAYLOAD,
    YANK,
    add_signatures,
    peek_payload,
    signers_named,
)

KINDS: Mapping[str, tuple[str, str]] = {
    YANK: ("yank", "/yank"),
    DEPRECATION: ("deprecate", "/deprecate"),
    ANSWER: ("answer", "/ratings/answers"),
    ADVISORY: ("advisory", "/advisories"),
    DOMAIN: ("domain", "/namespaces/domain"),
    JOBS: ("jobs", "/namespaces/jobs"),
}
"""By predicate type: what people call it, and where the marketplace takes it."""


@dataclass(frozen=True, slots=True)
class Word:
    """A statement on its way: ``says`` is its predicate, ``signers`` the keys that it names, unverified."""

    kind: str
    path: str
    publisher: str
    about: str
    says: Mapping[str, Any]
    signers: tuple[str, ...]
    envelope: bytes

    @property
    def file_name(self) -> str:
        """What the file is called that carries it from one signer to the next."""
        return f"{re.sub(r'[^A-Za-z0-9.-]+', '-', self.about)}.{self.kind}.json"

    def check_signed(self, keys: Sequence[str], needed: int, file: Path) -> None:
        """Raise SignatureInvalid, saying whose signatures are missing, if fewer than ``needed`` of ``keys`` signed.

        ``file`` is where it lies, for whoever must sign it.
        """
        fix = f"Send {file} to whoever has one of these keys: `keelstone plugin statement sign {file.name}` adds their "
        fix += "signature. Then `keelstone plugin statement submit`."
        check_signers(self.envelope, self.publisher, keys, needed, what=f"What {self.publisher} says", fix=fix)


def read_word(envelope: bytes) -> Word:
    """The statement in an envelope, its signatures unverified. Raises ValidationFailed or a signature error."""
    body, signers = peek_payload(envelope), signers_named(envelope)
    try:
        kind, path = KINDS[body["predicateType"]]
        (subject,), says = [str(each["name"]) for each in body["subject"]], dict(body["predicate"])
        publisher = str(says["plugin"]).partition("/")[0]
    except (KeyError, TypeError, ValueError) as error:
        raise ValidationFailed(
            "This is no statement that a publisher hands in.", expected=", ".join(kind for kind, _ in KINDS.values())
        ) from error
    return Word(kind, path, check_publisher(publisher), subject, says, signers, envelope)


def read_word_file(file: Path) -> Word:
    """As :func:`read_word`, from a file. Raises NotFound, too."""
    return read_word(read_named(file))


def sign_word(word: Word, key: SigningKey) -> Word:
    """The same statement, signed by ``key`` as well."""
    return read_word(add_signatures(word.envelope, STATEMENT_PAYLOAD, [key]))
