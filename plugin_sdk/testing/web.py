"""The other side of a guest's HTTP: a server on loopback that answers as told and remembers.

It is real, so that everything between the guest and it is real too: the manifest's allow-list, the
limits, the sandbox's own client. Whatever host the guest names, if its manifest allows it, the request
arrives here; ``headers["host"]`` says which it was.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from plugin_sdk.testing.tape import Answer, Tape, WebRequest


class FakeWeb:
    """A loopback server on a free port. Without instructions it answers 200 and an empty body.

    With :meth:`record` it answers what a real server once did.
    """

    def __init__(self) -> None:
        self.requests: list[WebRequest] = []
        self._answers: list[Answer] = []
        self.unrecorded: list[str] = []
        self._tape: Tape | None = None
        self._lock = threading.Lock()
        web = self

        class Handler(BaseHTTPRequestHandler):
            def _serve(self) -> None:
                length = int(self.headers.get("content-length") or 0)
                body = self.rfile.read(length).decode("utf-8", "replace")
                headers = {name.lower(): value for name, value in self.headers.items()}
                web._reply(self, WebRequest(self.command, self.path, headers, body))

            do_GET = do_HEAD = do_POST = do_PUT = do_PATCH = do_DELETE = _serve

            def log_message(self, format: str, *args: Any) -> None:
                """Say nothing: what arrived is in ``requests``."""

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
        self._thread.start()

    @property
    def host(self) -> str:
        """``host:port``, as the allow-list of the operator names it."""
        return f"127.0.0.1:{self._server.server_address[1]}"

    @property
    def url(self) -> str:
        """The address of the server's root."""
        return f"http://{self.host}/"

    def answer(self, status: int, body: str = "", headers: Mapping[str, str] | None = None, *, times: int = 1) -> None:
        """Answer the next ``times`` requests so; then it is 200 again."""
        with self._lock:
            self._answers += [Answer(status, body, headers or {})] * times

    def record(self, file: Path, *, upstream: str | None = None) -> None:
        """Answer from ``file``; if it is not there, ask the real server and write down what it answers.

        The real server is the host that the guest named, over HTTPS, or ``upstream`` (an address such
        as ``http://127.0.0.1:9000``). Request headers are not kept: no token gets into the file.
        """
        self._tape = Tape(file, upstream)

    def close(self) -> None:
        """Stop serving."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def _recorded(self, request: WebRequest) -> Answer:
        if self._tape is None:
            return Answer(200, "", {})
        found = self._tape.answer(request)
        if found is None:
            self.unrecorded.append(f"{request.method} {request.headers.get('host', '')}{request.path}")
            return Answer(502, "there is no recorded answer to this request", {})
        return found

    def _reply(self, handler: BaseHTTPRequestHandler, request: WebRequest) -> None:
        with self._lock:
            self.requests.append(request)
            answer = self._answers.pop(0) if self._answers else self._recorded(request)
        content = answer.body.encode()
        handler.send_response(answer.status)
        for name, value in answer.headers.items():
            handler.send_header(name, value)
        handler.send_header("content-length", str(len(content)))
        handler.end_headers()
        if request.method != "HEAD":
            handler.wfile.write(content)
