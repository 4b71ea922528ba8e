"""python-tuf's door to the outside, over our transports."""

from __future__ import annotations

from collections.abc import Iterator

from tuf.api.exceptions import DownloadError, DownloadHTTPError
from tuf.ngclient import FetcherInterface

from kernel.errors import KeelstoneError, NotFound
from marketplace.transport import Transport


class TransportFetcher(FetcherInterface):
    """Fetches through a transport. TUF bounds the length of everything; nothing here is trusted."""

    def __init__(self, transport: Transport) -> None:
        self._transport = transport
        self.last = ""
        """What was asked for last: where to look when python-tuf does not say which file is wrong."""

    def _fetch(self, url: str) -> Iterator[bytes]:
        self.last = url
        # The transport fails while it is iterated, where python-tuf no longer translates errors.
        try:
            yield from self._transport.stream(url)
        except NotFound as error:
            raise DownloadHTTPError(error.detail, 404) from error
        except KeelstoneError as error:
            raise DownloadError(error.detail) from error
