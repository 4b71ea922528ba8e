"""Runs the rules that a release must pass: the same on the author's machine, in CI and on the server.

The rules are in ``marketplace.rules``; two more need the sandbox and are handed in. An operator decides by
policy which are enforced and which only monitored. The borders of the package itself (archive, members,
manifest, schema, icon) are checked before, by ``marketplace.package``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from kernel.errors import ConfigurationError
from kernel.manifest import PluginManifest
from marketplace.errors import ReleaseRefused
from marketplace.package import Package
from marketplace.rules import RULES, Problem, Rule, Submission
from marketplace.rules.rule import Mode

ComponentInspector = Callable[[bytes, PluginManifest], Sequence[str]]
"""Given a component and its manifest: what is wrong with it (imports that no capability covers,
exports that are missing), or nothing. The sandbox has the means to look; the composition root
hands it over."""


ContractChecker = Callable[[bytes, PluginManifest, Mapping[str, Any] | None], Sequence[str]]
"""Given a component, its manifest and its settings' schema: which of its hooks do not do what the
contract says when they are tried, or nothing. Asked only about what breaks no other rule."""


@dataclass(frozen=True, slots=True)
class Finding:
    """A rule that the release breaks. Only an ``enforced`` one stands in its way."""

    rule: str
    problem: str
    fix: str
    enforced: bool = True


@dataclass(frozen=True, slots=True)
class RuleState:
    """A rule as it holds here: ``mode`` by policy, ``fixed`` if no policy can change it."""

    id: str
    summary: str
    mode: Mode
    fixed: bool


def _nothing(submission: Submission) -> Iterator[Problem]:
    yield from ()


IMPORTS = Rule("component-imports", "The component imports what its capabilities cover.", _nothing, fixed=True)
CONTRACT = Rule("contract", "Its hooks, tried in the sandbox, do what the contract says.", _nothing)
ALL_RULES = (*RULES, IMPORTS, CONTRACT)


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
            rule = next((each for each in ALL_RULES if each.id == name), None)
            if rule is None or (rule.fixed and mode != "enforced"):
                raise ConfigurationError(
                    f"KEELSTONE_MARKETPLACE_RULES names {name}, which "
                    + ("is no rule." if rule is None else "is always enforced."),
                    expected=", ".join(each.id for each in ALL_RULES if not each.fixed),
                    found=name,
                    fix="See `keelstone plugin rules`.",
                )

    def looking_only(self) -> Validator:
        """The same rules, without running anything of the plugin."""
        return Validator(self._inspect, None, self._policy)

    def rules(self) -> list[RuleState]:
        """Every rule, as it holds here."""
        return [RuleState(each.id, each.summary, self._mode(each), each.fixed) for each in ALL_RULES]

    def _mode(self, rule: Rule) -> Mode:
        return self._policy.get(rule.id, rule.mode)

    def _finding(self, rule: Rule, problem: str, fix: str) -> Finding:
        return Finding(rule.id, problem, fix, self._mode(rule) == "enforced")

    def unseen(self, submission: Submission) -> list[str]:
        """Ids of the rules that cannot be looked at here, because what they need is not known."""
        missing = [rule.id for rule in RULES if not rule.can_look(submission)]
        missing += [IMPORTS.id] if self._inspect is None else []
        return missing + ([CONTRACT.id] if self._check_contract is None else [])

    def findings(self, submission: Submission | Package) -> list[Finding]:
        """Every rule broken, in the order of the rules. A bare package is one without a history."""
        if isinstance(submission, Package):
            submission = Submission(submission)
        package = submission.package
        found = [
            self._finding(rule, problem.what, problem.fix)
            for rule in RULES
            if rule.can_look(submission)
            for problem in rule.check(submission)
        ]
        if self._inspect is not None:
            fix = "Ask for the capability in plugin.toml, or build again with `keelstone plugin build`."
            found += [self._finding(IMPORTS, p, fix) for p in self._inspect(package.component, package.manifest)]
        if self._check_contract is not None and not any(each.enforced for each in found):
            fix = "Run `keelstone plugin test`: it makes the same checks."
            problems = self._check_contract(package.component, package.manifest, package.settings_schema)
            found += [self._finding(CONTRACT, problem, fix) for problem in problems]
        return found

    def check(self, submission: Submission | Package) -> list[Finding]:
        """The findings that do not stand in the way. Raises ReleaseRefused with every finding if one does."""
        found = self.findings(submission)
        broken = [each for each in found if each.enforced]
        if not broken:
            return found
        manifest = (submission.package if isinstance(submission, Submission) else submission).manifest
        raise ReleaseRefused(
            f"{manifest.id} {manifest.version} breaks {len(broken)} rule{'s' if len(broken) > 1 else ''}: "
            + "; ".join(f"{f.problem} [{f.rule}]" for f in broken)
            + ".",
            plugin=manifest.id,
            fix=" ".join(dict.fromkeys(f.fix for f in broken)),
            extra={"findings": [asdict(f) for f in found]},
        )
