"""The command line's way to the marketplace's REST service: a remote one, or through the platform."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Protocol

from kernel.errors import BackendUnavailable
from kernel.settings import Settings
from marketplace.transport import TIMEOUT_SECONDS
from plugin_sdk.terminal import CommandTree, PlatformConnection, RemoteError


class Door(Protocol):
    """Requests to the service; paths begin after the service's own address."""

    def request(self, method: str, path: str, **kwargs: Any) -> Any:
        """The decoded JSON answer. Raises RemoteError or BackendUnavailable."""
        ...


class _ThroughPlatform:
    def __init__(self, connection: PlatformConnection) -> None:
        self._connection = connection

    def request(self, method: str, path: str, **kwargs: Any) -> Any:
        return self._connection.request(method, "/marketplace" + path, **kwargs)


class _OverHttp:
    def __init__(self, base_url: str) -> None:
        import httpx

        self._base, self._client = base_url, httpx.Client(timeout=TIMEOUT_SECONDS)

    def request(self, method: str, path: str, **kwargs: Any) -> Any:
        import httpx

        try:
            response = self._client.request(method, self._base + path, **kwargs)
            body = response.json()
        except httpx.HTTPError as error:
            raise BackendUnavailable(
                f"The marketplace at {self._base} does not answer: {error}.",
                fix="Check KEELSTONE_MARKETPLACE_URL and the network.",
            ) from error
        except ValueError as error:
            raise BackendUnavailable(f"{self._base} does not answer as a marketplace does.") from error
        if response.is_error:
            raise RemoteError(body if isinstance(body, dict) else {"title": str(body)}, response.status_code)
        return body

    def close(self) -> None:
        self._client.close()


@contextmanager
def open_door(tree: CommandTree, settings: Settings) -> Iterator[Door]:
    """The service that KEELSTONE_MARKETPLACE_URL names, or the platform's embedded one."""
    if settings.marketplace_url:
        remote = _OverHttp(settings.marketplace_url.rstrip("/"))
        try:
            yield remote
        finally:
            remote.close()
    else:
        with tree.platform() as connection:
            yield _ThroughPlatform(connection)
