"""How a client reaches a marketplace: the registry in the same process or folder, or a service over HTTP.

Nothing that comes through a transport is trusted; the client checks it.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from dataclasses import asdict
from typing import TYPE_CHECKING, Any, Literal, Protocol
from urllib.parse import quote

from kernel.errors import BackendUnavailable, KeelstoneError, NotFound, ValidationFailed
from marketplace.registry.platforms import Told
from marketplace.registry.reach import Reached
from marketplace.revocations import WAIT_SECONDS

if TYPE_CHECKING:
    import httpx

    from marketplace.registry.reader import RegistryReader
    from plugin_sdk.services import SearchFilters

CHUNK = 64 * 1024
TIMEOUT_SECONDS = 20.0


class Transport(Protocol):
    """Blocking access to one marketplace. Paths are ``metadata/…``, ``targets/…``, ``packages/<digest>``, ``log/…``."""

    def stream(self, path: str) -> Iterator[bytes]:
        """The file's bytes, in pieces. Raises NotFound or BackendUnavailable, also while iterating."""
        ...

    def search(self, query: str, limit: int, filters: SearchFilters) -> list[str]:
        """Ids of the plugins that match, best first."""
        ...

    async def await_revocations(self, known: int) -> int:
        """How many releases are revoked, as soon as they are more than ``known``, or ``WAIT_SECONDS`` have passed.

        Raises BackendUnavailable.
        """
        ...

    def report_reach(self, digest: str, host: str, installed: bool, seconds: float) -> None:
        """That a platform has carried out a revocation. Raises NotFound, ValidationFailed or BackendUnavailable."""
        ...

    def hand_in(self, what: Literal["ratings", "figures"], statement: str, keys: Mapping[str, Any]) -> None:
        """A statement of a platform. Raises ValidationFailed if it is not taken, or BackendUnavailable."""
        ...

    def close(self) -> None: ...


class RegistryTransport:
    """Straight to a registry's folder. ``owned`` closes the reader with the transport."""

    def __init__(self, reader: RegistryReader, *, owned: bool = False) -> None:
        self._reader, self._owned = reader, owned

    def stream(self, path: str) -> Iterator[bytes]:
        """See :class:`Transport`."""
        kind, _, name = path.partition("/")
        if kind == "packages":
            file = self._reader.package_path(name) or self._reader.upstreams.package(name)
            body = file.read_bytes() if file else None
        elif kind == "log":
            body = self._reader.log_file(name)
        else:
            body = self._reader.metadata(name) if kind == "metadata" else self._reader.target(name)
        if body is None:
            raise NotFound(f"The marketplace has no {path}.", file=path)
        for start in range(0, len(body), CHUNK):
            yield body[start : start + CHUNK]

    def search(self, query: str, limit: int, filters: SearchFilters) -> list[str]:
        """See :class:`Transport`."""
        return [entry.id for entry in self._reader.search(query, limit, filters)]

    async def await_revocations(self, known: int) -> int:
        """See :class:`Transport`."""
        return await self._reader.revocations.wait(known, WAIT_SECONDS)

    def report_reach(self, digest: str, host: str, installed: bool, seconds: float) -> None:
        """See :class:`Transport`."""
        self._reader.revocations.note(digest, Reached(host, installed, seconds))

    def hand_in(self, what: Literal["ratings", "figures"], statement: str, keys: Mapping[str, Any]) -> None:
        """See :class:`Transport`."""
        desk = self._reader.ratings if what == "ratings" else self._reader.figures
        try:
            desk.take(Told(statement, dict(keys)), time.time())
        except KeelstoneError as error:
            raise _not_taken(error.detail, error.expected, error.found) from error

    def close(self) -> None:
        """Close the reader if it is ours."""
        if self._owned:
            self._reader.close()


class HttpTransport:
    """A marketplace service at ``base_url``. ``client`` can be given to share connections, or in tests."""

    def __init__(self, base_url: str, client: httpx.Client | None = None) -> None:
        import httpx

        self._base = base_url.rstrip("/")
        self._client = client or httpx.Client(timeout=TIMEOUT_SECONDS, follow_redirects=False)

    def stream(self, path: str) -> Iterator[bytes]:
        """See :class:`Transport`."""
        import httpx

        try:
            with self._client.stream("GET", f"{self._base}/{quote(path)}") as response:
                self._check(response, path)
                yield from response.iter_bytes(CHUNK)
        except httpx.HTTPError as error:
            raise self._unreachable(error) from error

    def search(self, query: str, limit: int, filters: SearchFilters) -> list[str]:
        """See :class:`Transport`."""
        import httpx

        asked = {k: v for k, v in asdict(filters).items() if v}
        try:
            response = self._client.get(f"{self._base}/search", params={"q": query, "limit": limit, **asked})
            self._check(response, "search")
            results: Any = response.json()["results"]
            return [str(item["id"]) for item in results][:limit]
        except httpx.HTTPError as error:
            raise self._unreachable(error) from error
        except (ValueError, KeyError, TypeError) as error:
            raise BackendUnavailable(f"{self._base} does not answer as a marketplace does.") from error

    async def await_revocations(self, known: int) -> int:
        """See :class:`Transport`. A connection of its own: it is left when the platform stops."""
        import httpx

        asked = {"known": known, "seconds": WAIT_SECONDS}
        try:
            async with httpx.AsyncClient(timeout=WAIT_SECONDS + TIMEOUT_SECONDS) as client:
                response = await client.get(f"{self._base}/revocations/wait", params=asked)
            self._check(response, "revocations")
            return int(response.json()["revoked"])
        except httpx.HTTPError as error:
            raise self._unreachable(error) from error
        except (ValueError, KeyError, TypeError) as error:
            raise BackendUnavailable(f"{self._base} does not answer as a marketplace does.") from error

    def report_reach(self, digest: str, host: str, installed: bool, seconds: float) -> None:
        """See :class:`Transport`."""
        import httpx

        told = {"host": host, "installed": installed, "seconds": seconds}
        try:
            response = self._client.post(f"{self._base}/revocations/{digest}/reach", json=told)
            self._check(response, "revocations")
        except httpx.HTTPError as error:
            raise self._unreachable(error) from error

    def hand_in(self, what: Literal["ratings", "figures"], statement: str, keys: Mapping[str, Any]) -> None:
        """See :class:`Transport`."""
        import httpx

        try:
            response = self._client.post(f"{self._base}/{what}", json={"statement": statement, "keys": dict(keys)})
            if response.status_code == 201:
                return
            problem = response.json() if 400 <= response.status_code < 500 else {}
        except httpx.HTTPError as error:
            raise self._unreachable(error) from error
        except ValueError:
            problem = {}
        if not isinstance(problem, dict) or not problem:
            raise BackendUnavailable(
                f"{self._base} takes no {what}.", expected="status 201", found=f"status {response.status_code}"
            )
        told = str(problem.get("detail", "It does not say why."))
        raise _not_taken(told, problem.get("expected"), problem.get("found"))

    def close(self) -> None:
        """Close the connections."""
        self._client.close()

    def _check(self, response: httpx.Response, path: str) -> None:
        if response.status_code == 404:
            raise NotFound(f"The marketplace has no {path}.", file=path)
        if response.status_code != 200:
            raise BackendUnavailable(
                "The marketplace does not serve its files.",
                file=path,
                expected="status 200",
                found=f"status {response.status_code}",
            )

    def _unreachable(self, error: Exception) -> BackendUnavailable:
        return BackendUnavailable(
            f"The marketplace at {self._base} does not answer: {error}.",
            fix="Check KEELSTONE_MARKETPLACE_URL and the network.",
        )


def _not_taken(why: str, expected: object, found: object) -> ValidationFailed:
    return ValidationFailed(f"The marketplace did not take it. {why}", expected=expected, found=found)
