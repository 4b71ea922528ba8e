"""An issuer of identity tokens on loopback that speaks the protocol of GitHub Actions, over TLS of its own."""

from __future__ import annotations

import ipaddress
import json
import ssl
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from joserfc import jwt
from joserfc.jwk import RSAKey

REQUEST_TOKEN = "request-token-of-the-run"


class LocalIssuer:
    """Its ``claims`` go into every token; ``answers`` replace what is served at a path: a status and a body."""

    def __init__(self, folder: Path) -> None:
        self.key = RSAKey.generate_key(2048, {"kid": "one"})
        self.authority = folder / "issuer.pem"
        self.answers: dict[str, tuple[int, bytes, dict[str, str]]] = {}
        self.asked: list[str] = []
        self.number = 0
        self.claims: dict[str, Any] = {
            "repository": "acme/guard",
            "repository_id": "1001",
            "repository_owner_id": "2002",
            "job_workflow_ref": "acme/guard/.github/workflows/release.yml@refs/heads/main",
            "environment": "release",
            "event_name": "push",
            "ref": "refs/tags/v1.0.0",
            "sha": "a" * 40,
            "run_id": "77",
        }
        issuer = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                issuer.answer(self)

            def log_message(self, format: str, *args: Any) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.socket = _secured(folder, self.authority).wrap_socket(self._server.socket, server_side=True)
        self.url = f"https://127.0.0.1:{self._server.server_address[1]}"
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)
        self._thread.start()

    def environment(self) -> dict[str, str]:
        """What a job finds in its environment. The address has a query of its own, as GitHub's has."""
        return {
            "ACTIONS_ID_TOKEN_REQUEST_URL": f"{self.url}/token?api-version=2.0",
            "ACTIONS_ID_TOKEN_REQUEST_TOKEN": REQUEST_TOKEN,
        }

    def token(self, audience: str, *, at: float | None = None, key: Any = None, **claims: Any) -> str:
        """A token; ``claims`` replace others, None leaves one out."""
        self.number += 1
        now = int(time.time() if at is None else at)
        times = {"iat": now, "nbf": now, "exp": now + 300, "jti": f"token-{self.number}"}
        said = {"iss": self.url, "aud": audience, **times, **self.claims, **claims}
        signing = key or self.key
        header = {"alg": "RS256", "kid": "one"}
        return jwt.encode(header, {name: value for name, value in said.items() if value is not None}, signing)

    def answer(self, request: BaseHTTPRequestHandler) -> None:
        """Serve one request."""
        address = urlsplit(request.path)
        self.asked.append(request.path)
        status, body, more = self.answers.get(address.path) or self._usual(address.path, address.query, request.headers)
        request.send_response(status)
        for name, value in {"Content-Type": "application/json", "Content-Length": str(len(body)), **more}.items():
            request.send_header(name, value)
        request.end_headers()
        request.wfile.write(body)

    def _usual(self, path: str, query: str, headers: Mapping[str, str]) -> tuple[int, bytes, dict[str, str]]:
        if path == "/.well-known/openid-configuration":
            said: Any = {"issuer": self.url, "jwks_uri": f"{self.url}/.well-known/jwks"}
        elif path == "/.well-known/jwks":
            said = {"keys": [{**self.key.as_dict(private=False), "use": "sig", "alg": "RS256"}]}
        elif path == "/token":
            asked = parse_qs(query)
            if headers.get("Authorization") != f"Bearer {REQUEST_TOKEN}" or asked.get("api-version") != ["2.0"]:
                return 401, b"{}", {}
            said = {"value": self.token(asked["audience"][0])}
        else:
            return 404, b"{}", {}
        return 200, json.dumps(said).encode(), {}

    def close(self) -> None:
        """Stop serving."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


@contextmanager
def local_issuer(folder: Path) -> Iterator[LocalIssuer]:
    """One that serves in the body."""
    issuer = LocalIssuer(folder)
    try:
        yield issuer
    finally:
        issuer.close()


def _secured(folder: Path, authority: Path) -> ssl.SSLContext:
    key = ec.generate_private_key(ec.SECP256R1())
    name, now = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "issuer")]), datetime.now(UTC)
    loopback = x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))])
    made = x509.CertificateBuilder().subject_name(name).issuer_name(name).public_key(key.public_key())
    made = made.serial_number(x509.random_serial_number()).add_extension(loopback, critical=False)
    made = made.add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
    dated = made.not_valid_before(now - timedelta(days=1)).not_valid_after(now + timedelta(days=1))
    certificate = dated.sign(key, hashes.SHA256())
    authority.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    private = folder / "issuer.key"
    private.write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(authority, private)
    return context
