"""Secrets that a guest can have sent and cannot read.

A guest gets a random text that stands for the secret in this very call. Just before a request
leaves, and only for a host and a part of the request that the manifest names, the value is put in
its place; whatever comes back has the value, and the ways it is usually written, taken out again.
The text is random so that nobody can smuggle it in: a person's name that reads like one is only a
name.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from urllib.parse import quote, quote_plus

from kernel.manifest import SecretsCapability, SecretUse

SHORTEST = 8
"""Characters of the shortest secret: taking out anything shorter would riddle every answer."""


@dataclass(frozen=True, slots=True)
class Secret:
    """One secret of the call at hand. ``used`` is told each time that it is sent."""

    name: str
    placeholder: str
    value: str
    use: SecretUse
    used: Callable[[str], None]


class Masker:
    """Takes the values of secrets (by name) out of texts."""

    def __init__(self, values: Mapping[str, str]) -> None:
        forms = [(form, f"[secret {name}]") for name, value in values.items() for form in _forms(value)]
        # The longest first, so that no part of a form is left over.
        self._forms = sorted(forms, key=lambda f: -len(f[0]))

    def __call__(self, text: str) -> str:
        for form, mask in self._forms:
            if form in text:
                text = text.replace(form, mask)
        return text


def _forms(value: str) -> set[str]:
    """The value as an echo might write it."""
    data = value.encode()
    found = {
        value,
        json.dumps(value)[1:-1],
        json.dumps(value, ensure_ascii=False)[1:-1],
        quote(value, safe=""),
        quote_plus(value),
        data.hex(),
        data.hex().upper(),
    }
    for shift in range(3):
        # Within a longer base64 text (user:password) the value begins at any of three alignments; the
        # characters that it shares with its neighbours are left out.
        coded = base64.b64encode(b"\0" * shift + data).decode().rstrip("=")
        whole = coded[(0, 2, 3)[shift] : len(coded) - (1 if (shift + len(data)) % 3 else 0)]
        found |= {whole, whole.replace("+", "-").replace("/", "_")}
    return {form for form in found if len(form) >= SHORTEST}


class CallSecrets:
    """A plugin's secrets in one call: what stands for each that was entered, and what takes them out."""

    def __init__(
        self,
        capability: SecretsCapability,
        values: Mapping[str, str],
        random: Callable[[int], bytes],
        used: Callable[[str], None],
    ) -> None:
        # A secret that an admin entered for an older version stays hidden, though it can no longer be sent.
        self.mask = Masker(values)
        self.placeholders = {
            name: f"{{{{secret:{name}:{random(16).hex()}}}}}" for name in capability.names if name in values
        }
        self.sent = tuple(
            Secret(name, mark, values[name], capability.names[name], used) for name, mark in self.placeholders.items()
        )


def basic(value: str) -> str:
    """``Basic user:password`` as RFC 7617 sends it; anything else as it is. A guest cannot encode what it
    does not know."""
    scheme, _, rest = value.partition(" ")
    if scheme.lower() != "basic" or ":" not in rest:
        return value
    return f"{scheme} {base64.b64encode(rest.encode()).decode()}"
