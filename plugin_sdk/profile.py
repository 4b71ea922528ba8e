"""What a plugin needed while its hooks were tried: found by the sandbox, judged by the marketplace's rules."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class HookProfile:
    """The most that one call of a hook needed: ``fuel`` in WebAssembly instructions, roughly (the same wherever it is
    counted), ``memory_bytes`` of linear memory, ``output_bytes`` of its answer."""

    fuel: int
    memory_bytes: int
    output_bytes: int


@dataclass(frozen=True, slots=True)
class Trial:
    """What came of trying a plugin's hooks: ``problems`` in words, and the profile of each hook that answered."""

    problems: Sequence[str] = ()
    profile: Mapping[str, HookProfile] = field(default_factory=dict)
