"""Masks personal data and secrets in a recording, so that it still shows how the guest failed.

A value is replaced by another of the same shape: as long in characters and in UTF-8, letters for
letters in the same case, digits for digits, everything else as it was. It is replaced alike wherever
it stands (payload, host calls, answers), so that a replay takes the same path; the key that the
replacements come from is thrown away with the recording's making.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from plugin_sdk.recordings import RecordedExchange, Recording

SECRET = re.compile(
    r"(password|passwd|secret|token|authorization|api_?key|cookie|credential|private_?key|signature)", re.IGNORECASE
)
_EMAIL = re.compile(r"[A-Za-z0-9._%+-]+@[A-Za-z0-9-]+(?:\.[A-Za-z0-9-]+)+")
_TOKEN = re.compile(r"(?:(?<=Bearer )|(?<=Basic ))[A-Za-z0-9._~+/=-]{8,}|\b(?:ksr?_|eyJ)[A-Za-z0-9._~+/=-]{8,}")
_URL_PASSWORD = re.compile(r"(?<=://)[^\s/:@]*:[^\s/@]+(?=@)")
LEAST_WITHIN = 3
"""Shorter values are replaced where they stand alone, and not inside longer texts."""
_MOST_VALUES = 2_000
_MOST_DEPTH = 40


class Redactor:
    """Masks recordings by field names. ``personal`` are names such as ``email``; case, ``_`` and ``-`` don't count."""

    def __init__(self, personal: Iterable[str]) -> None:
        self._personal = frozenset(_plain(name) for name in personal)

    def redact(self, recording: Recording, key: bytes, *, marked: Iterable[str] = (), tenant: str = "") -> Recording:
        """The recording with everything masked. ``marked`` are the payload's fields that are declared
        personal, ``tenant`` the id that must not show, ``key`` at least 16 random bytes."""
        found = _Found(self._personal | {_plain(name) for name in marked})
        payload = _parsed(recording.payload)
        found.look(payload, "payload")
        found.look(recording.settings, "settings")
        for number, exchange in enumerate(recording.exchanges):
            found.look(list(exchange.arguments), f"exchanges[{number}].arguments")
            found.look(exchange.answer, f"exchanges[{number}].answer")
        found.text(recording.outcome.output, "outcome.output")
        found.text(recording.outcome.detail, "outcome.detail")
        if tenant:
            found.add(tenant, "tenant")
        swap = _Swap(found.values, found.numbers, key)
        outcome = recording.outcome
        return recording.model_copy(
            update={
                "payload": _text_of(swap.value(payload)) if payload is not None else swap.text(recording.payload),
                "settings": swap.value(recording.settings),
                "tenant": swap.text(tenant) if tenant else recording.tenant,
                "exchanges": tuple(
                    RecordedExchange(
                        function=e.function,
                        arguments=tuple(swap.value(list(e.arguments))),
                        answer=swap.value(e.answer),
                        failed=e.failed,
                    )
                    for e in recording.exchanges
                ),
                "outcome": outcome.model_copy(
                    update={
                        "detail": swap.text(outcome.detail),
                        "output": None if outcome.output is None else swap.text(outcome.output),
                        "trap": None if outcome.trap is None else swap.text(outcome.trap),
                    }
                ),
                "masked": tuple(sorted(found.places)),
            }
        )


def shaped(value: str, key: bytes) -> str:
    """Another text of the same shape, the same for the same key."""
    raw = value.encode("utf-8", "surrogatepass")
    stream, counter = b"", 0
    while len(stream) < len(value):
        stream += hashlib.blake2b(raw, key=key[:64], salt=counter.to_bytes(8, "big")).digest()
        counter += 1
    return "".join(_other(char, stream[index]) for index, char in enumerate(value))


def _other(char: str, byte: int) -> str:
    if "a" <= char <= "z":
        return chr(ord("a") + byte % 26)
    if "A" <= char <= "Z":
        return chr(ord("A") + byte % 26)
    if "0" <= char <= "9":
        return chr(ord("0") + byte % 10)
    code = ord(char)
    if code < 0x80 or not char.isalnum():
        return char
    if code < 0x800:
        # Letters of the same length in UTF-8 and of the same case, none of them a sign.
        return chr(0xC0 + byte % 23) if char.isupper() else chr(0xE0 + byte % 23)
    return chr(0x4E00 + byte) if code < 0x10000 else chr(0x20000 + byte)


class _Found:
    """What has to go: values by what they are, and the places where they stood."""

    def __init__(self, personal: frozenset[str]) -> None:
        self._personal = personal
        self.values: set[str] = set()
        self.numbers: set[str] = set()
        self.places: set[str] = set()

    def add(self, value: str, place: str) -> None:
        if value and len(self.values) < _MOST_VALUES:
            self.values.add(value)
            self.places.add(place)

    def look(self, value: Any, place: str, hide: bool = False, depth: int = 0) -> None:
        if depth > _MOST_DEPTH:
            return
        if isinstance(value, str):
            if hide:
                self.add(value, place)
            else:
                self.text(value, place, depth)
        elif isinstance(value, (int, float)) and not isinstance(value, bool):
            if hide:
                self.numbers.add(json.dumps(value))
                self.places.add(place)
        elif isinstance(value, Mapping):
            # A header or a setting of a list: {"name": "authorization", "value": "..."}.
            named = value.get("name") if set(value) == {"name", "value"} else None
            for name, item in value.items():
                told = str(named) if named is not None and name == "value" else str(name)
                if named is not None and name == "name":
                    continue
                self.text(str(name), f"{place} (a key)")
                self.look(item, f"{place}.{told}"[:200], hide or self._hides(told), depth + 1)
        elif isinstance(value, (list, tuple)):
            for item in value:
                self.look(item, f"{place}[]" if not place.endswith("[]") else place, hide, depth + 1)

    def _hides(self, name: str) -> bool:
        return _plain(name) in self._personal or SECRET.search(name) is not None

    def text(self, value: str | None, place: str, depth: int = 0) -> None:
        """What a text holds: JSON of its own, or addresses and tokens anywhere."""
        if not value:
            return
        if value[0] in "{[":
            inner = _parsed(value)
            if inner is not None:
                self.look(inner, place, depth=depth + 1)
                return
        for pattern in (_EMAIL, _TOKEN, _URL_PASSWORD):
            for match in pattern.findall(value):
                self.add(match, place)


class _Swap:
    """Replaces what was found, wherever it stands."""

    def __init__(self, values: set[str], numbers: set[str], key: bytes) -> None:
        self._key = key
        self._whole = {value: shaped(value, key) for value in values}
        self._numbers = {text: _number(text, key) for text in numbers}
        within: dict[str, str] = {}
        for value, other in self._whole.items():
            if len(value) >= LEAST_WITHIN:
                for spelt in (_same, _escaped, _ascii):
                    within[spelt(value)] = spelt(other)
        for text, number in self._numbers.items():
            if len(text) > LEAST_WITHIN:
                within.setdefault(text, json.dumps(number))
        self._within = within
        # The longest first: an address goes as a whole before a name inside it.
        longest = sorted(within, key=len, reverse=True)
        self._pattern = re.compile("|".join(map(re.escape, longest))) if longest else None

    def text(self, value: str) -> str:
        whole = self._whole.get(value)
        if whole is not None:
            return whole
        if self._pattern is None:
            return value
        return self._pattern.sub(lambda m: self._within[m.group()], value)

    def value(self, value: Any) -> Any:
        if isinstance(value, str):
            return self.text(value)
        if isinstance(value, Mapping):
            return {self.text(str(k)): self.value(v) for k, v in value.items()}
        if isinstance(value, (list, tuple)):
            return [self.value(item) for item in value]
        if isinstance(value, (int, float)) and not isinstance(value, bool):
            return self._numbers.get(json.dumps(value), value)
        return value


def _number(text: str, key: bytes) -> Any:
    other = shaped(text, key)
    if "e" in text or "E" in text or not any(c.isdigit() for c in text):
        return json.loads(text)
    digits = other.lstrip("-")
    # No number begins with a nought, unless it is below one.
    if digits[0] == "0" and len(digits) > 1 and digits[1] != ".":
        other = other.replace("0", "1", 1)
    return json.loads(other)


def _parsed(text: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return None


def _text_of(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))


def _plain(name: str) -> str:
    return name.lower().replace("_", "").replace("-", "").replace(" ", "")


_same: Callable[[str], str] = str


def _escaped(value: str) -> str:
    return json.dumps(value, ensure_ascii=False)[1:-1]


def _ascii(value: str) -> str:
    return json.dumps(value)[1:-1]
