"""Runs the rules that a release must pass: the same on the author's machine, in CI and on the server.

The rules are in ``marketplace.rules``. An operator decides by policy which are enforced, which send a
release to a reviewer, and which are only monitored. The borders of the package itself (archive, members,
manifest, schema, icon) are checked before, by ``marketplace.package``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import cache, partial

from kernel.errors import ConfigurationError
from marketplace.errors import ReleaseRefused
from marketplace.rules import RULES, Rule, Submission
from marketplace.rules.rule import ComponentInspector, ContractChecker, Mode
from plugin_sdk.profile import HookProfile


@dataclass(frozen=True, slots=True)
class Finding:
    """A rule that the release breaks. Only an ``enforced`` one stands in its way; ``review`` makes it wait for a
    person."""

    rule: str
    problem: str
    fix: str
    enforced: bool = True
    review: bool = False


@dataclass(frozen=True, slots=True)
class Validation:
    """What the rules found in a package, the ids of those that could not be looked at, and what its hooks needed at
    most when they were tried."""

    plugin: str
    version: str
    findings: list[Finding]
    unseen: list[str]
    profile: dict[str, HookProfile] = field(default_factory=dict)

    @property
    def enforced(self) -> list[Finding]:
        """What stands in the release's way."""
        return [each for each in self.findings if each.enforced]


@dataclass(frozen=True, slots=True)
class RuleState:
    """A rule as it holds here: ``mode`` by policy, ``fixed`` if no policy can change it."""

    id: str
    summary: str
    mode: Mode
    fixed: bool


class Validator:
    """Runs every rule. ``inspect_component`` looks inside the component and ``check_contract`` tries its
    hooks, if there is anyone who can; ``policy`` gives rules another mode than their own.

    Raises ConfigurationError if the policy names a rule that does not exist or is always enforced.
    """

    def __init__(
        self,
        inspect_component: ComponentInspector | None = None,
        check_contract: ContractChecker | None = None,
        policy: Mapping[str, Mode] | None = None,
    ) -> None:
        self._inspect = inspect_component
        self._check_contract = check_contract
        self._policy = dict(policy or {})
        for name, mode in self._policy.items():
            rule = next((each for each in RULES if each.id == name), None)
            if rule is None or (rule.fixed and mode != "enforced"):
                raise ConfigurationError(
                    f"KEELSTONE_MARKETPLACE_RULES names {name}, which "
                    + ("is no rule." if rule is None else "is always enforced."),
                    expected=", ".join(each.id for each in RULES if not each.fixed),
                    found=name,
                    fix="See `keelstone plugin rules`.",
                )

    def looking_only(self) -> Validator:
        """The same rules, without running anything of the plugin."""
        return Validator(self._inspect, None, self._policy)

    def rules(self) -> list[RuleState]:
        """Every rule, as it holds here."""
        return [RuleState(each.id, each.summary, self._mode(each), each.fixed) for each in RULES]

    def _mode(self, rule: Rule) -> Mode:
        return self._policy.get(rule.id, rule.mode)

    @property
    def tries(self) -> bool:
        """Whether there are rules that run the plugin, and the means."""
        return self._check_contract is not None

    def validate(self, submission: Submission, known: Sequence[Finding] | None = None) -> Validation:
        """Every rule broken, in the order of the rules, and what could not be looked at. With ``known``, what
        the rules that run nothing have found already, only the others are asked."""
        check, package = self._check_contract, submission.package
        trial = None
        if check is not None:
            trial = cache(partial(check, package.component, package.manifest, package.settings_schema))
        asked = replace(submission, inspect=self._inspect, trial=trial)
        manifest = submission.manifest
        seen = Validation(manifest.id, manifest.version, list(known or ()), [])
        for rule in RULES:
            if self._mode(rule) == "off" or (known is not None and not rule.costly):
                continue
            if not rule.can_look(asked):
                seen.unseen.append(rule.id)
            elif not (rule.costly and seen.enforced):
                mode = self._mode(rule)
                seen.findings.extend(
                    Finding(rule.id, each.what, each.fix, mode == "enforced", mode == "review")
                    for each in rule.check(asked)
                )
        if trial is not None and trial.cache_info().currsize:
            seen.profile.update(trial().profile)
        return seen

    def check(self, submission: Submission, known: Sequence[Finding] | None = None) -> Validation:
        """As :meth:`validate`, where nothing stands in the way. Raises ReleaseRefused with every finding if something
        does."""
        seen = self.validate(submission, known)
        broken = seen.enforced
        if broken:
            raise ReleaseRefused(
                f"{seen.plugin} {seen.version} breaks {len(broken)} rule{'s' if len(broken) > 1 else ''}: "
                + "; ".join(f"{f.problem} [{f.rule}]" for f in broken)
                + ".",
                plugin=seen.plugin,
                fix=" ".join(dict.fromkeys(f.fix for f in broken)),
                extra={"findings": [asdict(f) for f in seen.findings]},
            )
        return seen
