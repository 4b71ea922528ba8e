"""What a rule is, and what it looks at."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from kernel.manifest import PluginManifest
from marketplace.package import Package

Mode = Literal["enforced", "monitored"]
"""``enforced``: a release that breaks the rule is refused. ``monitored``: it is published, and the finding is
told to the author and kept with the release."""


ComponentInspector = Callable[[bytes, PluginManifest], Sequence[str]]
"""Given a component and its manifest: what is wrong with it (imports that no capability covers,
exports that are missing), or nothing. The sandbox has the means to look; the composition root
hands it over."""


ContractChecker = Callable[[bytes, PluginManifest, Mapping[str, Any] | None], Sequence[str]]
"""Given a component, its manifest and its settings' schema: which of its hooks do not do what the
contract says when they are tried, or nothing."""


@dataclass(frozen=True, slots=True)
class Submission:
    """A release as it is handed in. ``history`` are the manifests of the plugin's published versions, ``others``
    the ids of all plugins of other publishers, ``inspect`` and ``try_hooks`` the sandbox's means; None where
    whoever asks does not have them."""

    package: Package
    history: Sequence[PluginManifest] | None = None
    others: Callable[[], Iterable[str]] | None = None
    inspect: ComponentInspector | None = None
    try_hooks: ContractChecker | None = None

    @property
    def manifest(self) -> PluginManifest:
        """The release's manifest."""
        return self.package.manifest


@dataclass(frozen=True, slots=True)
class Problem:
    """What is wrong, in half a sentence, and how to mend it."""

    what: str
    fix: str


@dataclass(frozen=True, slots=True)
class Rule:
    """One rule. ``fixed`` rules are always enforced: without them a release could not run or be told apart.
    ``needs`` names what of the submission may be missing where it is asked; ``costly`` ones are asked only
    about what breaks no enforced rule before them."""

    id: str
    summary: str
    check: Callable[[Submission], Iterator[Problem]]
    mode: Mode = "enforced"
    fixed: bool = False
    needs: Literal["history", "others", "inspect", "try_hooks"] | None = None
    costly: bool = False

    def can_look(self, submission: Submission) -> bool:
        """Whether all that the rule looks at is there."""
        return self.needs is None or getattr(submission, self.needs) is not None
