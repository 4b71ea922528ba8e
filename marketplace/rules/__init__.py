"""The rules a release must pass, each with a stable id. A rule looks at one submission and changes nothing.

``about`` looks at what the manifest and the texts say, ``content`` for what must not be inside,
``growth`` at the versions before, ``names`` at everybody else's. What needs a sandbox (the component's
imports, its hooks tried out) is handed to :class:`marketplace.validator.Validator` by the composition root.
"""

from __future__ import annotations

from marketplace.rules.about import ABOUT
from marketplace.rules.content import CONTENT
from marketplace.rules.growth import GROWTH
from marketplace.rules.names import NAMES
from marketplace.rules.rule import Problem, Rule, Submission

RULES: tuple[Rule, ...] = (*ABOUT, *CONTENT, *GROWTH, *NAMES)
"""Every rule that needs no sandbox, in the order in which findings are told."""

__all__ = ["RULES", "Problem", "Rule", "Submission"]
