"""Artifacts at a registry, over HTTP as the OCI distribution specification 1.1 has it.

TLS always, but to a registry on this machine. Signing in is by a bearer token that the registry's token service gives
(anonymously, or for a name and a password), or by these themselves where the registry asks for that.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from kernel.errors import BackendUnavailable, Forbidden, NotFound, ValidationFailed
from marketplace.oci.artifact import INDEX, MANIFEST, MAX_MANIFEST, Descriptor, listed_in, write_index
from marketplace.oci.reference import is_loopback

if TYPE_CHECKING:
    import httpx

TIMEOUT_SECONDS = 60.0
_ACCEPT = f"{MANIFEST}, {INDEX}"
_CHALLENGE = re.compile(r'(\w+)="([^"]*)"')


class RemoteStore:
    """A ``Store`` that is the repository of a registry. ``sign_in`` has a name and a password, if it needs them."""

    def __init__(
        self, host: str, repository: str, sign_in: tuple[str, str] | None = None, client: httpx.Client | None = None
    ) -> None:
        import httpx

        scheme = "http" if is_loopback(host) else "https"
        self._host, self._repository, self._sign_in = host, repository, sign_in
        self._base = f"{scheme}://{host}/v2/{repository}"
        self._client = client or httpx.Client(timeout=TIMEOUT_SECONDS, follow_redirects=True)
        self._authorization: str | None = None

    def put_blob(self, descriptor: Descriptor, body: bytes) -> None:
        """See :class:`Store`."""
        if self._ask("HEAD", f"{self._base}/blobs/{descriptor.digest}", missing=True) is not None:
            return
        begun = self._ask("POST", f"{self._base}/blobs/uploads/")
        assert begun is not None
        location = begun.url.join(begun.headers.get("location", ""))
        if (location.host, location.port) != (begun.url.host, begun.url.port) and location.scheme != "https":
            raise BackendUnavailable(f"{self._host} wants the upload without TLS.", found=str(location)[:200])
        target = location.copy_merge_params({"digest": descriptor.digest})
        self._ask("PUT", str(target), content=body, headers={"Content-Type": "application/octet-stream"})

    def put_manifest(self, descriptor: Descriptor, body: bytes, *, tag: str | None, subject: Descriptor | None) -> None:
        """See :class:`Store`. Where the registry lists no referrers itself, an index under the fallback tag does."""
        headers = {"Content-Type": descriptor.media_type}
        url = f"{self._base}/manifests/{tag or descriptor.digest}"
        answer = self._ask("PUT", url, content=body, headers=headers)
        if subject is None or answer is None or answer.headers.get("oci-subject"):
            return
        if self._ask("GET", f"{self._base}/referrers/{subject.digest}", missing=True) is not None:
            return  # the registry lists it, and does not say so
        known = [each for each in self._fallback(subject.digest) if each.digest != descriptor.digest]
        index = write_index([*known, descriptor])
        url = f"{self._base}/manifests/{_fallback_tag(subject.digest)}"
        self._ask("PUT", url, content=index, headers={"Content-Type": INDEX})

    def manifest(self, reference: str) -> bytes:
        """See :class:`Store`."""
        url = f"{self._base}/manifests/{reference}"
        answer = self._ask("GET", url, headers={"Accept": _ACCEPT}, longest=MAX_MANIFEST, missing=True)
        if answer is None:
            raise NotFound(f"There is no artifact {reference} in {self._host}/{self._repository}.", found=reference)
        return answer.content

    def blob(self, descriptor: Descriptor) -> bytes:
        """See :class:`Store`."""
        url = f"{self._base}/blobs/{descriptor.digest}"
        answer = self._ask("GET", url, longest=descriptor.size, missing=True)
        if answer is None:
            raise NotFound(f"{self._host}/{self._repository} lacks the blob {descriptor.digest}.")
        return answer.content

    def referrers(self, subject: str) -> Sequence[Descriptor]:
        """See :class:`Store`."""
        headers = {"Accept": INDEX}
        answer = self._ask(
            "GET", f"{self._base}/referrers/{subject}", headers=headers, longest=MAX_MANIFEST, missing=True
        )
        return self._fallback(subject) if answer is None else listed_in(answer.content, "manifests")

    def close(self) -> None:
        """Close the connections."""
        self._client.close()

    # -------------------------------------------------------------------------- inside

    def _fallback(self, subject: str) -> list[Descriptor]:
        url = f"{self._base}/manifests/{_fallback_tag(subject)}"
        answer = self._ask("GET", url, headers={"Accept": INDEX}, longest=MAX_MANIFEST, missing=True)
        return [] if answer is None else listed_in(answer.content, "manifests")

    def _ask(
        self, method: str, url: str, *, missing: bool = False, longest: int = MAX_MANIFEST, **options: Any
    ) -> httpx.Response | None:
        """The answer, signed in if need be; None if there is nothing and that is ``missing``."""
        with self._reached():
            answer = self._send(method, url, longest, **options)
            if answer.status_code == 401:  # at first, or what was given does not reach as far
                self._authorization = self._authorize(answer.headers.get("www-authenticate", ""))
                answer = self._send(method, url, longest, **options)
        if answer.status_code == 404 and missing:
            return None
        if answer.status_code in (401, 403):
            raise Forbidden(
                f"{self._host} does not let this be done in {self._repository}.",
                found=f"status {answer.status_code}",
                fix="Set KEELSTONE_OCI_USER and KEELSTONE_OCI_PASSWORD to what the registry gave you.",
            )
        if not answer.is_success:
            raise BackendUnavailable(
                f"{self._host} does not answer as a registry does.",
                expected="OCI distribution 1.1",
                found=f"status {answer.status_code} to {method} {urlsplit(url).path[:200]}",
            )
        return answer

    def _send(self, method: str, url: str, longest: int, **options: Any) -> httpx.Response:
        import httpx

        headers = {**options.pop("headers", {})}
        if self._authorization and httpx.URL(url).host == httpx.URL(self._base).host:
            headers["Authorization"] = self._authorization
        with self._client.stream(method, url, headers=headers, **options) as answer:
            body = bytearray()
            for chunk in answer.iter_bytes():
                body += chunk
                if len(body) > longest:
                    raise ValidationFailed(
                        f"{self._host} sends more than it said.", expected=f"at most {longest:,} bytes"
                    )
        whole = httpx.Response(answer.status_code, headers=_plain(answer.headers), content=bytes(body))
        whole.request = answer.request
        return whole

    def _authorize(self, challenge: str) -> str:
        """What the registry asks for. Raises Forbidden."""
        import base64

        basic = None
        if self._sign_in is not None:
            basic = "Basic " + base64.b64encode(":".join(self._sign_in).encode()).decode()
        scheme, _, rest = challenge.partition(" ")
        if scheme.lower() == "basic" and basic is not None:
            return basic
        asked = dict(_CHALLENGE.findall(rest))
        realm = asked.pop("realm", "")
        address = urlsplit(realm)
        if scheme.lower() != "bearer" or not (address.scheme == "https" or is_loopback(address.netloc)):
            raise Forbidden(
                f"{self._host} wants to be signed in to.",
                found=challenge[:120],
                fix="Set KEELSTONE_OCI_USER and KEELSTONE_OCI_PASSWORD to what the registry gave you.",
            )
        wanted = {name: asked[name] for name in ("service", "scope") if name in asked}
        answer = self._client.get(realm, params=wanted, headers={"Authorization": basic} if basic else {})
        said: Any = answer.json() if answer.is_success else {}
        token = said.get("token") or said.get("access_token") if isinstance(said, dict) else None
        if not token:
            raise Forbidden(
                f"{self._host} gives no token for {self._repository}.", found=f"status {answer.status_code}"
            )
        return f"Bearer {token}"

    @contextmanager
    def _reached(self) -> Iterator[None]:
        import httpx

        try:
            yield
        except (httpx.HTTPError, ValueError) as error:
            raise BackendUnavailable(f"{self._host} was not reached: {error or type(error).__name__}.") from error


def _plain(headers: httpx.Headers) -> dict[str, str]:
    """Without what described the body's way here."""
    return {name: value for name, value in headers.items() if name not in ("content-encoding", "content-length")}


def _fallback_tag(subject: str) -> str:
    return subject.replace(":", "-")
