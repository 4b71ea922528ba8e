"""What the manifest and the texts say of the plugin."""

from __future__ import annotations

import re
from collections.abc import Iterator

from packaging.licenses import InvalidLicenseExpression, canonicalize_license_expression

from kernel.hookspecs import HOOKS
from marketplace.rules.rule import Problem, Rule, Submission


def _kind(submission: Submission) -> Iterator[Problem]:
    kind = submission.manifest.kind
    if kind != "guest":
        yield Problem(
            f"a package holds a guest, and this is of kind {kind}",
            'Set kind = "guest" in plugin.toml; built-ins and extensions are Python packages.',
        )


def _build_metadata(submission: Submission) -> Iterator[Problem]:
    manifest = submission.manifest
    if manifest.semver.build is not None:
        yield Problem(
            f"version {manifest.version} has build metadata, which SemVer ignores in comparisons",
            "Publish the version without the part after the plus sign.",
        )


def _hooks(submission: Submission) -> Iterator[Problem]:
    named = submission.manifest.hooks
    if not named:
        yield Problem("it implements no hook, so it would never run", "Add one under [hooks] in plugin.toml.")
    fix = f"Use one of: {', '.join(name for name, spec in HOOKS.items() if spec.for_guests)}."
    for name in named:
        spec = HOOKS.get(name)
        if spec is None:
            yield Problem(f"there is no hook {name!r}", fix)
        elif not spec.for_guests:
            yield Problem(f"hook {name!r} is not open to guests", fix)


def _license(submission: Submission) -> Iterator[Problem]:
    license = submission.manifest.license
    try:
        canonicalize_license_expression(license)
    except InvalidLicenseExpression:
        yield Problem(
            f"{license!r} is no SPDX licence expression",
            "Use an identifier of spdx.org/licenses, such as Apache-2.0, or LicenseRef-<name> for one of your own.",
        )


def _readme(submission: Submission) -> Iterator[Problem]:
    if not submission.package.readme.strip():
        yield Problem("README.md is empty", "Say what the plugin does and what it needs.")


def _changelog(submission: Submission) -> Iterator[Problem]:
    version = re.escape(submission.manifest.version)
    if not re.search(rf"^#+.*(?<![\w.-]){version}(?![\w-]|\.\d)", submission.package.changelog, re.MULTILINE):
        yield Problem(
            f"CHANGELOG.md has no heading for {submission.manifest.version}",
            "Add one that says what changed: tenants read it before they upgrade.",
        )


ABOUT = (
    Rule("kind", "The plugin is a guest.", _kind, fixed=True),
    Rule("version-build", "The version has no build metadata.", _build_metadata, fixed=True),
    Rule("hooks", "It implements hooks, and only hooks that are open to guests.", _hooks, fixed=True),
    Rule("license", "The licence is an SPDX expression.", _license),
    Rule("readme", "README.md says something.", _readme),
    Rule("changelog", "CHANGELOG.md has a heading for the version.", _changelog, mode="monitored"),
)
