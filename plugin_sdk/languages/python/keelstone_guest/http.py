"""Capability ``http``: outgoing requests to the hosts in the manifest."""

from __future__ import annotations

import json as jsonlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from .host import bindings, call

_host = bindings("http")


@dataclass(frozen=True)
class Response:
    """An answer, whatever its status. ``headers`` have lower-case names."""

    status: int
    headers: Mapping[str, str]
    body: str

    @property
    def ok(self) -> bool:
        """True for the statuses 200 to 299."""
        return 200 <= self.status < 300

    def json(self) -> Any:
        """The body as a Python value."""
        return jsonlib.loads(self.body)


def send(
    method: str, url: str, *, headers: Mapping[str, str] | None = None, body: str | None = None, json: Any = None
) -> Response:
    """The answer to one request; ``json`` is sent as a JSON body. Raises HostError."""
    sent = dict(headers or {})
    if json is not None:
        body = jsonlib.dumps(json, ensure_ascii=False)
        sent.setdefault("content-type", "application/json")
    request = None
    if _host is not None:
        pairs = [_host.Header(name=name, value=value) for name, value in sent.items()]
        request = _host.Request(method=method.upper(), url=url, headers=pairs, body=body)
    answer = call(_host, "http", "send", request)
    return Response(answer.status, {h.name.lower(): h.value for h in answer.headers}, answer.body)


def get(url: str, *, headers: Mapping[str, str] | None = None) -> Response:
    """The answer to a GET. Raises HostError."""
    return send("GET", url, headers=headers)


def post(url: str, *, json: Any = None, body: str | None = None, headers: Mapping[str, str] | None = None) -> Response:
    """The answer to a POST. Raises HostError."""
    return send("POST", url, json=json, body=body, headers=headers)
