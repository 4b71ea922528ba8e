"""What only the sandbox can tell: what the component imports, and what its hooks do when they are tried."""

from __future__ import annotations

from collections.abc import Iterator

from marketplace.rules.rule import Problem, Rule, Submission


def _imports(submission: Submission) -> Iterator[Problem]:
    if submission.inspect is not None:
        for what in submission.inspect(submission.package.component, submission.manifest):
            yield Problem(what, "Ask for the capability in plugin.toml, or build again with `keelstone plugin build`.")


def _contract(submission: Submission) -> Iterator[Problem]:
    if submission.trial is not None:
        for what in submission.trial().problems:
            yield Problem(what, "Run `keelstone plugin test`: it makes the same checks.")


SANDBOXED = (
    Rule(
        "component-imports",
        "The component imports what its capabilities cover.",
        _imports,
        fixed=True,
        needs="inspect",
    ),
    Rule(
        "contract",
        "Its hooks, tried in the sandbox, do what the contract says.",
        _contract,
        needs="trial",
        costly=True,
    ),
)
