"""The rules a release must pass, each with a stable id. A rule looks at one submission and changes nothing.

``about`` looks at what the manifest and the texts say, ``content`` for what must not be inside,
``growth`` at the versions before, ``names`` at everybody else's, ``parts`` at what it was linked from, ``sandboxed``
into the component, ``profile`` at what its hooks needed.
"""

from __future__ import annotations

from marketplace.rules.about import ABOUT
from marketplace.rules.content import CONTENT
from marketplace.rules.growth import GROWTH
from marketplace.rules.names import NAMES
from marketplace.rules.parts import PARTS
from marketplace.rules.profile import PROFILE
from marketplace.rules.rule import Problem, Rule, Submission
from marketplace.rules.sandboxed import SANDBOXED

RULES: tuple[Rule, ...] = (*ABOUT, *CONTENT, *GROWTH, *NAMES, *PARTS, *SANDBOXED, *PROFILE)
"""Every rule, in the order in which findings are told."""

__all__ = ["RULES", "Problem", "Rule", "Submission"]
