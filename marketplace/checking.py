"""The author's check before publishing: what needs the author's machine is looked at here, the rest there."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from kernel.manifest import load_manifest
from kernel.settings import Settings
from marketplace.connect import max_package_bytes
from marketplace.package import Package, build_package, component_path, read_package
from marketplace.publishing import read_component, read_signed
from marketplace.rules import Submission
from marketplace.serving import find_contract_checker, find_inspector
from marketplace.validator import Finding, Validation, Validator


def check_here(path: Path, settings: Settings) -> tuple[Package, Validation]:
    """Look at the package ``path``, or at the one that the built plugin in the folder ``path`` would make.

    Asks nobody. Raises what building or reading a package raises.
    """
    limit = max_package_bytes(settings)
    if path.is_dir():
        component = read_component(component_path(path, load_manifest(path).short_name))
        data = build_package(path, component, max_bytes=limit)
    else:
        data, _ = read_signed(path, max_bytes=limit)
    package = read_package(data, max_bytes=limit)
    checker = find_contract_checker() if settings.check_contracts else None
    return package, Validator(find_inspector(), checker, settings.marketplace_rules).validate(Submission(package))


def merged(here: Validation, there: Mapping[str, Any]) -> Validation:
    """Both views as one; ``there`` is what the marketplace answered, and what it enforces is its to say."""
    asked = [Finding(**each) for each in there["findings"]]
    modes = {each.rule: (each.enforced, each.review) for each in asked}
    found = {(each.rule, each.problem): each for each in [*here.findings, *asked]}
    return replace(
        here,
        findings=[_in_mode(each, *modes.get(each.rule, (each.enforced, each.review))) for each in found.values()],
        unseen=[rule for rule in here.unseen if rule in there["unseen"]],
    )


def _in_mode(finding: Finding, enforced: bool, review: bool) -> Finding:
    return replace(finding, enforced=enforced, review=review)
