"""The author's check before publishing: every rule that can be looked at here, and the marketplace's word."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from kernel.errors import KeelstoneError, NotFound
from kernel.manifest import PluginManifest, load_manifest
from kernel.settings import Settings
from marketplace.connect import max_package_bytes, open_client
from marketplace.package import build_package, read_package
from marketplace.publishing import component_path, read_component, read_signed
from marketplace.rules import Submission
from marketplace.serving import find_contract_checker, find_inspector
from marketplace.validator import Validator


@dataclass(frozen=True, slots=True)
class Seen:
    """What the rules found; ``unseen`` are the ids of those that nobody could look at."""

    plugin: str
    version: str
    file_name: str
    data: bytes = field(repr=False)
    findings: list[dict[str, Any]]
    unseen: list[str]

    @property
    def refused(self) -> bool:
        """Whether an enforced rule is broken."""
        return any(each["enforced"] for each in self.findings)

    def document(self) -> dict[str, Any]:
        """Plain data, for ``--json``."""
        return {
            "plugin": self.plugin,
            "version": self.version,
            "refused": self.refused,
            "findings": self.findings,
            "unseen": self.unseen,
        }


def check_here(path: Path, settings: Settings) -> Seen:
    """Look at the package ``path``, or at the one that the built plugin in the folder ``path`` would make.

    Raises what building or reading a package raises.
    """
    limit = max_package_bytes(settings)
    if path.is_dir():
        component = read_component(component_path(path, load_manifest(path).short_name))
        data = build_package(path, component, max_bytes=limit)
    else:
        data, _ = read_signed(path, max_bytes=limit)
    package = read_package(data, max_bytes=limit)
    validator = Validator(
        find_inspector(), find_contract_checker() if settings.check_contracts else None, settings.marketplace_rules
    )
    submission = Submission(package, _history(package.manifest, settings))
    return Seen(
        plugin=package.manifest.id,
        version=package.manifest.version,
        file_name=package.file_name,
        data=data,
        findings=[asdict(each) for each in validator.findings(submission)],
        unseen=validator.unseen(submission),
    )


def merged(here: Seen, there: Mapping[str, Any]) -> Seen:
    """Both views as one. Whether a rule is enforced is the marketplace's to say."""
    asked: Sequence[Mapping[str, Any]] = there["findings"]
    modes = {each["rule"]: each["enforced"] for each in asked}
    found = {(each["rule"], each["problem"]): dict(each) for each in [*here.findings, *asked]}
    for each in found.values():
        each["enforced"] = modes.get(each["rule"], each["enforced"])
    return Seen(
        here.plugin,
        here.version,
        here.file_name,
        here.data,
        list(found.values()),
        [rule for rule in here.unseen if rule in there["unseen"]],
    )


def _history(manifest: PluginManifest, settings: Settings) -> list[PluginManifest] | None:
    """The published versions, as far as this machine can verify them; None if it knows no marketplace."""

    async def ask() -> list[PluginManifest]:
        client = open_client(settings)
        try:
            return await client.manifests(manifest.id)
        finally:
            await client.close()

    try:
        return [each for each in asyncio.run(ask()) if each.version != manifest.version]
    except NotFound:
        return []
    except KeelstoneError:
        return None
