"""The rules a release must pass: the same on the author's machine, in CI and on the server.

Each rule has a stable id, says what it found and how to mend it. The borders of the package itself
(archive, members, manifest, schema, icon) are checked before, by ``marketplace.package``.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from kernel.hookspecs import HOOKS
from kernel.manifest import PluginManifest
from marketplace.errors import ReleaseRefused
from marketplace.package import Package

ComponentInspector = Callable[[bytes, PluginManifest], Sequence[str]]
"""Given a component and its manifest: what is wrong with it (imports that no capability covers,
exports that are missing), or nothing. The sandbox has the means to look; the composition root
hands it over."""


ContractChecker = Callable[[bytes, PluginManifest, Mapping[str, Any] | None], Sequence[str]]
"""Given a component, its manifest and its settings' schema: which of its hooks do not do what the
contract says when they are tried, or nothing. Asked only about what breaks no other rule."""


@dataclass(frozen=True, slots=True)
class Finding:
    """A rule that the release breaks."""

    rule: str
    problem: str
    fix: str


class Validator:
    """Runs every rule. ``inspect_component`` looks inside the component and ``check_contract`` tries its
    hooks, if there is anyone who can."""

    def __init__(
        self, inspect_component: ComponentInspector | None = None, check_contract: ContractChecker | None = None
    ) -> None:
        self._inspect = inspect_component
        self._check_contract = check_contract

    def findings(self, package: Package) -> list[Finding]:
        """Every rule broken by ``package``, in the order of the rules."""
        found = [f for rule in (_kind, _version, _hooks, _secrets, _texts) for f in rule(package)]
        if self._inspect is not None:
            fix = "Ask for the capability in plugin.toml, or build again with `keelstone plugin build`."
            found += [
                Finding("component-imports", problem, fix)
                for problem in self._inspect(package.component, package.manifest)
            ]
        if self._check_contract is not None and not found:
            fix = "Run `keelstone plugin test`: it makes the same checks."
            found += [
                Finding("contract", problem, fix)
                for problem in self._check_contract(package.component, package.manifest, package.settings_schema)
            ]
        return found

    def check(self, package: Package) -> None:
        """Raise ReleaseRefused with every finding, if there are any."""
        found = self.findings(package)
        if found:
            raise ReleaseRefused(
                f"{package.manifest.id} {package.manifest.version} breaks {len(found)} rule"
                f"{'s' if len(found) > 1 else ''}: " + "; ".join(f"{f.problem} [{f.rule}]" for f in found) + ".",
                plugin=package.manifest.id,
                fix=" ".join(dict.fromkeys(f.fix for f in found)),
                extra={"findings": [asdict(f) for f in found]},
            )


def _kind(package: Package) -> Iterator[Finding]:
    if package.manifest.kind != "guest":
        yield Finding(
            "kind",
            f"a package holds a guest, and this is of kind {package.manifest.kind}",
            'Set kind = "guest" in plugin.toml; built-ins and extensions are Python packages.',
        )


def _version(package: Package) -> Iterator[Finding]:
    if package.manifest.semver.build is not None:
        yield Finding(
            "version-build",
            f"version {package.manifest.version} has build metadata, which SemVer ignores in comparisons",
            "Publish the version without the part after the plus sign.",
        )


def _hooks(package: Package) -> Iterator[Finding]:
    if not package.manifest.hooks:
        yield Finding("hooks", "it implements no hook, so it would never run", "Add one under [hooks] in plugin.toml.")
    open_to_guests = ", ".join(name for name, spec in HOOKS.items() if spec.for_guests)
    for name in package.manifest.hooks:
        spec = HOOKS.get(name)
        if spec is None:
            yield Finding("hooks", f"there is no hook {name!r}", f"Use one of: {open_to_guests}.")
        elif not spec.for_guests:
            yield Finding("hooks", f"hook {name!r} is not open to guests", f"Use one of: {open_to_guests}.")


def _secrets(package: Package) -> Iterator[Finding]:
    texts = {"README.md": package.readme, "CHANGELOG.md": package.changelog}
    texts["plugin.toml"] = package.manifest_bytes.decode("utf-8")
    if package.settings_schema is not None:
        texts[str(package.manifest.settings)] = json.dumps(package.settings_schema)
    for name, text in texts.items():
        if "-----BEGIN" in text and "PRIVATE KEY-----" in text:
            yield Finding("secrets", f"{name} contains a private key", "Take it out, and replace the key everywhere.")


def _texts(package: Package) -> Iterator[Finding]:
    if not package.readme.strip():
        yield Finding("readme", "README.md is empty", "Say what the plugin does and what it needs.")
