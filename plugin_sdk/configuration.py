"""Settings of a plugin for a tenant: checked against the plugin's JSON Schema, defaults filled in.

The catalog settles what an admin sends, the test harness what a test gives: by the same rules.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any

from jsonschema_rs import Draft202012Validator, RegexOptions

from kernel.errors import ValidationFailed
from kernel.plain import check_plain


def settle(schema: Mapping[str, Any] | None, given: Mapping[str, Any], *, plugin: str, tenant: str) -> dict[str, Any]:
    """``given`` with the schema's defaults. Raises ValidationFailed with every problem."""
    check_plain(given, f"The settings of {plugin}")
    if schema is None:
        if given:
            raise ValidationFailed(
                f"{plugin} has no settings.", plugin=plugin, tenant=tenant, expected="no settings", found=sorted(given)
            )
        return {}
    settings = copy.deepcopy(dict(given))
    properties: Mapping[str, Any] = schema.get("properties", {})
    for name, rule in properties.items():
        if name not in settings and isinstance(rule, dict) and "default" in rule:
            settings[name] = copy.deepcopy(rule["default"])
    unknown = sorted(set(settings) - set(properties))
    problems = [f"unknown setting {name}" for name in unknown]
    # The schema is a stranger's: nothing is fetched, and no pattern backtracks.
    validator = Draft202012Validator(dict(schema), offline=True, pattern_options=RegexOptions())
    for error in sorted(validator.iter_errors(settings), key=lambda e: list(map(str, e.instance_path))):
        where = ".".join(str(p) for p in error.instance_path) or "settings"
        problems.append(f"{where}: {error.message}")
    if problems:
        raise ValidationFailed(
            f"The settings do not fit {plugin}: {'; '.join(problems[:10])}.",
            plugin=plugin,
            tenant=tenant,
            expected="the plugin's settings schema",
            fix=f"See the schema at GET /api/v1/plugins/{plugin}.",
            extra={"problems": problems},
        )
    return settings
