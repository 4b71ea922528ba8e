"""Capability ``ai``: ask language models."""

from __future__ import annotations

from dataclasses import dataclass

from .host import bindings, call

_host = bindings("ai")


@dataclass(frozen=True)
class Completion:
    """What a model answered. ``tokens`` counts both ways."""

    text: str
    model: str
    tokens: int


def complete(model: str, text: str, *, system: str | None = None, max_tokens: int = 0) -> Completion:
    """What the model answers, in at most ``max_tokens`` (0: what the limits leave). Raises HostError."""
    prompt = None
    if _host is not None:
        prompt = _host.Prompt(model=model, system=system, text=text, max_tokens=max_tokens)
    answer = call(_host, "ai", "complete", prompt)
    return Completion(answer.text, answer.model, answer.tokens)
