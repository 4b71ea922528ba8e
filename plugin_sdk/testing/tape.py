"""HTTP recorded once against a real server, and answered from a file ever after."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import httpx

from kernel.errors import ValidationFailed

_KEPT = ("content-type", "location", "retry-after", "etag", "link")
"""Answer headers that a guest may go by; the rest is the transport's, or changes each time."""


@dataclass(frozen=True, slots=True)
class WebRequest:
    """A request that arrived. ``headers`` have lower-case names."""

    method: str
    path: str
    headers: Mapping[str, str]
    body: str

    def json(self) -> Any:
        """The body as a Python value."""
        return json.loads(self.body)


@dataclass(frozen=True, slots=True)
class Answer:
    """What is answered to a request."""

    status: int
    body: str
    headers: Mapping[str, str]


class Tape:
    """The file: a list of requests with their answers. Equal requests are answered in recorded order,
    the last one again and again."""

    def __init__(self, file: Path, upstream: str | None) -> None:
        self._file = file
        self._upstream = upstream
        self._recording = not file.exists()
        self._entries: list[dict[str, Any]] = [] if self._recording else self._read()
        self._used: dict[str, int] = {}

    def answer(self, request: WebRequest) -> Answer | None:
        """The recorded answer, or the real server's; None if the file has none."""
        key = _key(request)
        if self._recording:
            made = self._ask(request)
            self._entries.append({"request": json.loads(key), "answer": asdict(made)})
            self._file.parent.mkdir(parents=True, exist_ok=True)
            self._file.write_text(json.dumps(self._entries, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
            return made
        fitting = [e["answer"] for e in self._entries if json.dumps(e["request"], sort_keys=True) == key]
        if not fitting:
            return None
        at = self._used.get(key, 0)
        self._used[key] = at + 1
        return Answer(**fitting[min(at, len(fitting) - 1)])

    def _read(self) -> list[dict[str, Any]]:
        try:
            found: list[dict[str, Any]] = json.loads(self._file.read_text(encoding="utf-8"))
            for entry in found:
                Answer(**entry["answer"])
        except (ValueError, TypeError, KeyError) as error:
            raise ValidationFailed(
                "The recorded HTTP can't be read.", file=str(self._file), fix="Delete it to record anew."
            ) from error
        return found

    def _ask(self, request: WebRequest) -> Answer:
        base = self._upstream or f"https://{request.headers['host']}"
        headers = {n: v for n, v in request.headers.items() if n not in ("host", "connection", "content-length")}
        real = httpx.request(
            request.method, f"{base.rstrip('/')}{request.path}", headers=headers, content=request.body.encode()
        )
        kept = {name: real.headers[name] for name in _KEPT if name in real.headers}
        return Answer(real.status_code, real.text, kept)


def _key(request: WebRequest) -> str:
    """What makes two requests the same."""
    host = "" if request.headers.get("host", "").startswith("127.0.0.1:") else request.headers.get("host", "")
    asked = {"method": request.method, "host": host, "path": request.path, "body": request.body}
    return json.dumps(asked, sort_keys=True)
