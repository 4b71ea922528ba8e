"""The verified metadata on this machine: python-tuf keeps it current, and nobody else uses it meanwhile.

python-tuf's ``Updater`` wants one refresh an object and one process a folder; both are seen to here.
"""

from __future__ import annotations

import contextlib
import hashlib
import re
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import quote

from kernel.errors import BackendUnavailable
from kernel.files import write_durably
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


LATEST = "latest-time"
CLOCK_SLACK = 300.0
"""Seconds that a clock may be put right by without anybody asking why."""


class TrustedCache:
    """What one machine knows of one marketplace, below the root that it pinned.

    ``folder`` is shared by whoever follows a marketplace here; several processes take turns.
    """

    def __init__(
        self, transport: Transport, folder: Path, trusted_root: bytes, now: Callable[[], float] = time.time
    ) -> None:
        # A cache belongs to one root: after pinning another one, nothing old is taken for granted.
        self.folder = folder / hashlib.sha256(trusted_root).hexdigest()[:16]
        self._transport, self._root = transport, trusted_root
        self._lock, self._now = threading.Lock(), now

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
            self._refuse_an_earlier_time()
            updater.refresh()
            self._note_the_time()
            yield updater

    def _refuse_an_earlier_time(self) -> None:
        """Metadata that has expired is good again for a clock that is set back, so time here only goes on."""
        try:
            latest = float((self.folder / LATEST).read_text())
        except (FileNotFoundError, ValueError):
            return
        now = self._now()
        if now < latest - CLOCK_SLACK:
            raise VerificationFailed(
                "clock",
                "this machine's clock was set back, so it cannot be told what has expired.",
                file=str(self.folder / LATEST),
                expected=f"{_moment(latest)} or later",
                found=_moment(now),
                fix="Set the clock. If it was ahead before and is right now, delete this file.",
            )

    def _note_the_time(self) -> None:
        path, now = self.folder / LATEST, self._now()
        with contextlib.suppress(FileNotFoundError, ValueError):
            if float(path.read_text()) > now - CLOCK_SLACK:
                return
        write_durably(path, str(now).encode())

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

        return ChainWalker(self._root, self.cached_metadata, self.cached_target)

    def cached_metadata(self, name: str) -> bytes | None:
        """Metadata by its plain name, as it is here; None if it is not. Call it with the cache locked."""
        return _read(self.folder / "metadata" / name)

    def cached_target(self, path: str) -> bytes | None:
        """A target document as it is here, unverified; None if it is not. Call it with the cache locked."""
        return _read(self.folder / "targets" / quote(path, ""))


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


def _read(path: Path) -> bytes | None:
    try:
        return path.read_bytes()
    except FileNotFoundError:
        return None


def _moment(at: float) -> str:
    return datetime.fromtimestamp(at, UTC).isoformat(timespec="seconds")


def _link(text: str) -> str | None:
    match = _ROLE.search(text)
    return match.group(1) if match else None
