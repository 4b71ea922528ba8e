"""What a rule is, and what it looks at."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from kernel.manifest import PluginManifest
from marketplace.osv.weakness import Weakness
from marketplace.package import Package
from plugin_sdk.profile import HookProfile, Trial
from plugin_sdk.sbom import Part

Mode = Literal["enforced", "review", "monitored", "off"]
"""``enforced``: a release that breaks the rule is refused. ``review``: it is held until a person has looked at it.
``monitored``: it is published, and the finding is told to the author and kept with the release. ``off``: it is
not asked, until an operator wants it."""


ComponentInspector = Callable[[bytes, PluginManifest], Sequence[str]]
"""Given a component and its manifest: what is wrong with it (imports that no capability covers,
exports that are missing), or nothing. The sandbox has the means to look; the composition root
hands it over."""


ContractChecker = Callable[[bytes, PluginManifest, Mapping[str, Any] | None], Trial]
"""Given a component, its manifest and its settings' schema: which of its hooks do not do what the
contract says when they are tried, and what each of them needed."""


@dataclass(frozen=True, slots=True)
class WeakPart:
    """A part with a known weakness; ``grave`` if that is one which the operator counts as such."""

    part: Part
    weakness: Weakness
    grave: bool


@dataclass(frozen=True, slots=True)
class Submission:
    """A release as it is handed in. ``history`` are the manifests of the plugin's published versions, ``others``
    the ids of other publishers' plugins that could be alike, ``inspect`` the sandbox's means and ``trial`` what came of
    trying the hooks, which is done when it is first asked for; None where whoever asks does not have them.
    ``schema_of`` gives the settings' schema of a published version; None if it has no settings. ``weak_parts`` are the
    parts of the release with known weaknesses. ``profile_before`` gives the newest version before this one that was
    tried, and what its hooks needed."""

    package: Package
    history: Sequence[PluginManifest] | None = None
    others: Callable[[], Iterable[str]] | None = None
    inspect: ComponentInspector | None = None
    trial: Callable[[], Trial] | None = None
    schema_of: Callable[[str], Mapping[str, Any] | None] | None = None
    weak_parts: Callable[[], Sequence[WeakPart]] | None = None
    profile_before: Callable[[], tuple[str, Mapping[str, HookProfile]] | None] | None = None

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
    needs: Literal["history", "others", "inspect", "trial", "schema_of", "weak_parts", "profile_before"] | None = None
    costly: bool = False

    def can_look(self, submission: Submission) -> bool:
        """Whether all that the rule looks at is there."""
        tried = submission.trial is not None or not self.costly
        return tried and (self.needs is None or getattr(submission, self.needs) is not None)
