"""The verified metadata on this machine: python-tuf keeps it current, and nobody else uses it meanwhile.

python-tuf's ``Updater`` wants one refresh an object and one process a folder; both are seen to here.
"""

from __future__ import annotations

import hashlib
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import quote

from kernel.errors import BackendUnavailable
from marketplace.errors import VerificationFailed
from marketplace.filelock import locked
from marketplace.log.key import KEYS_TARGET
from marketplace.revocations import REVOCATIONS_TARGET
from marketplace.transport import Transport

if TYPE_CHECKING:
    from tuf.ngclient import Updater

    from marketplace.chain import ChainWalker
    from marketplace.fetcher import TransportFetcher

_TAMPERED = "Somebody may be tampering with the connection or the marketplace. Install nothing; tell its operator."
_EXPIRED = "The marketplace must sign it anew: tell its operator, and check this machine's clock."
_ROLE = re.compile(r"\b(timestamp|snapshot|targets|root|bins-[0-9a-f]{3})\b")


class TrustedCache:
    """What one machine knows of one marketplace, below the root that it pinned.

    ``folder`` is shared by whoever follows a marketplace here; several processes take turns.
    """

    def __init__(self, transport: Transport, folder: Path, trusted_root: bytes) -> None:
        # A cache belongs to one root: after pinning another one, nothing old is taken for granted.
        self.folder = folder / hashlib.sha256(trusted_root).hexdigest()[:16]
        self._transport, self._root = transport, trusted_root
        self._lock = threading.Lock()

    @contextmanager
    def exclusive(self) -> Iterator[None]:
        """One user of the cache at a time, in this process and among processes."""
        self.folder.mkdir(parents=True, exist_ok=True)
        with self._lock, locked(self.folder / "lock"):
            yield

    @contextmanager
    def session(self) -> Iterator[Updater]:
        """A refreshed updater, alone on the cache. TUF's refusals become VerificationFailed."""
        from tuf.ngclient import Updater

        from marketplace.fetcher import TransportFetcher

        fetcher = TransportFetcher(self._transport)
        with self.exclusive(), _translated(fetcher):
            for name in ("metadata", "targets"):
                (self.folder / name).mkdir(exist_ok=True)
            updater = Updater(
                metadata_dir=str(self.folder / "metadata"),
                metadata_base_url="metadata/",
                target_dir=str(self.folder / "targets"),
                target_base_url="targets/",
                fetcher=fetcher,
                bootstrap=self._root,
            )
            updater.refresh()
            yield updater

    def target(self, updater: Updater, path: str) -> bytes | None:
        """The target document at ``path``, fetched if it is not here; None if the marketplace has none."""
        from tuf.api.exceptions import DownloadLengthMismatchError, LengthOrHashMismatchError

        info = updater.get_targetinfo(path)
        if info is None:
            return None
        try:
            return Path(updater.find_cached_target(info) or updater.download_target(info)).read_bytes()
        except (LengthOrHashMismatchError, DownloadLengthMismatchError) as error:
            kinds = {KEYS_TARGET: "log", REVOCATIONS_TARGET: "revocations"}
            link = kinds.get(path) or ("namespace" if path.startswith("namespaces/") else "release")
            raise VerificationFailed(
                link, f"{path} is not the document that its bin lists: {error}.", file=path
            ) from error

    def walker(self) -> ChainWalker:
        """The chain so far, from the cache; call it with the cache locked."""
        from marketplace.chain import ChainWalker

        def read(path: Path) -> bytes | None:
            try:
                return path.read_bytes()
            except FileNotFoundError:
                return None

        return ChainWalker(
            self._root,
            lambda name: read(self.folder / "metadata" / name),
            lambda path: read(self.folder / "targets" / quote(path, "")),
        )


@contextmanager
def _translated(fetcher: TransportFetcher) -> Iterator[None]:
    """python-tuf's errors as ours. The link that broke is the role named in the message, or fetched last."""
    from tuf.api.exceptions import (
        DownloadError,
        DownloadLengthMismatchError,
        ExpiredMetadataError,
        RepositoryError,
    )

    try:
        yield
    except DownloadLengthMismatchError as error:
        problem = f"more comes than any metadata has: {error}."
        raise VerificationFailed(_link(fetcher.last) or "metadata", problem, fix=_TAMPERED) from error
    except DownloadError as error:
        cause = error.__cause__
        if isinstance(cause, BackendUnavailable):
            raise cause from error
        raise BackendUnavailable(f"The marketplace's metadata could not be fetched: {error}.") from error
    except RepositoryError as error:
        link = _link(str(error)) or _link(fetcher.last) or "metadata"
        fix = _EXPIRED if isinstance(error, ExpiredMetadataError) else _TAMPERED
        raise VerificationFailed(link, f"{str(error).rstrip('.')}.", fix=fix) from error


def _link(text: str) -> str | None:
    match = _ROLE.search(text)
    return match.group(1) if match else None
