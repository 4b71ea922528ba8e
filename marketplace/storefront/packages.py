"""Packages that pages show something of: their texts and icons, and the chain that vouches for them."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import replace
from threading import Lock

from kernel.errors import KeelstoneError
from marketplace.index import Release
from marketplace.package import Package, package_member, read_package
from marketplace.registry import RegistryReader
from marketplace.screenshots import Screenshot

CACHED_PACKAGES = 64


class Packages:
    """Packages that were read lately: reading one again takes as long as it is large."""

    def __init__(self, reader: RegistryReader) -> None:
        self._reader, self._lock = reader, Lock()
        self._kept: OrderedDict[str, Package] = OrderedDict()

    def get(self, release: Release) -> Package | None:
        """The package without its component and bytes, or None if it is no longer here."""
        with self._lock:
            if release.digest in self._kept:
                self._kept.move_to_end(release.digest)
                return self._kept[release.digest]
        package = self.whole(release)
        if package is None:
            return None
        light = replace(package, data=b"", component=b"")
        with self._lock:
            self._kept[release.digest] = light
            while len(self._kept) > CACHED_PACKAGES:
                self._kept.popitem(last=False)
        return light

    def screenshot(self, release: Release, number: int) -> tuple[Screenshot, bytes] | None:
        """A screenshot by its place from 0 on, with its bytes; None if there is none."""
        known, path = self.get(release), self._reader.package_path(release.digest)
        if known is None or path is None or not 0 <= number < len(known.screenshots):
            return None
        shot = known.screenshots[number]
        data = package_member(path.read_bytes(), shot.file)
        return None if data is None else (shot, data)

    def whole(self, release: Release) -> Package | None:
        """The package with all its bytes."""
        path = self._reader.package_path(release.digest)
        if path is None:
            return None
        try:
            return read_package(path.read_bytes(), max_bytes=max(release.size, 1))
        except (KeelstoneError, OSError):
            return None
