"""What can go wrong around a guest, on demand.

========================  =====================================================================
rule                      what happens
========================  =====================================================================
``deny kv``               the tenant has not granted it: host calls answer ``not-granted``
``fail http``             the host call fails with ``unavailable``
``fail kv.set limit``     one function of it, with that code
``slow http 0.2``         the host call answers after so many seconds
``trap at kv.set``        the guest crashes in the middle of that host call
``timeout at kv.set``     the guest's time is over there
``out of memory``         the guest wants too much memory at its next host call
========================  =====================================================================

What saves nothing on the platform saves nothing here: a call that ends so leaves no writes and no
events behind.
"""

from __future__ import annotations

import re
import time
from dataclasses import dataclass, field

from kernel.ports import HostExchange

_ENDS = {"trap": "guest-trap", "timeout": "guest-time-limit", "out of memory": "guest-memory-limit"}
_RULE = re.compile(
    r"(?P<deny>deny) (?P<capability>[a-z]+)"
    r"|(?P<fail>fail) (?P<failing>[a-z]+(?:\.[a-z-]+)?)(?: (?P<code>[a-z-]+))?"
    r"|(?P<slow>slow) (?P<slowed>[a-z]+(?:\.[a-z-]+)?) (?P<seconds>\d+(?:\.\d+)?)"
    r"|(?P<end>trap|timeout|out of memory)(?: at (?P<place>[a-z]+(?:\.[a-z-]+)?))?"
)
RULES = "deny CAPABILITY, fail CALL [CODE], slow CALL SECONDS, trap|timeout|out of memory [at CALL]"


class ChaosMisspelt(ValueError):
    """A rule is not one of those there are."""


@dataclass(slots=True)
class Chaos:
    """One rule in force. ``struck`` counts how often it did something."""

    rule: str
    times: int | None = None
    struck: int = 0
    denied: str | None = None
    _call: str | None = None
    _code: str | None = None
    _seconds: float = 0.0
    _seen: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        match = _RULE.fullmatch(" ".join(self.rule.split()))
        if match is None:
            raise ChaosMisspelt(f"{self.rule!r} is no rule; there are: {RULES}")
        if match["deny"]:
            self.denied = match["capability"]
        elif match["fail"]:
            self._call, self._code = match["failing"], match["code"] or "unavailable"
        elif match["slow"]:
            self._call, self._seconds = match["slowed"], float(match["seconds"])
        else:
            self._call, self._code = match["place"], _ENDS[match["end"]]

    def meet(self, function: str) -> HostExchange | None:
        """What becomes of a host call: a failure or an end, or None (after a while, if it is slow)."""
        if self.denied is not None or function.startswith("wasi:") or not self._concerns(function):
            return None
        if self.times is not None and self.struck >= self.times:
            return None
        self.struck += 1
        if self._code is None:
            time.sleep(self._seconds)
            return None
        return HostExchange(function, (), {"code": self._code, "message": f"chaos: {self.rule}"}, failed=True)

    def _concerns(self, function: str) -> bool:
        return self._call is None or function == self._call or function.partition(".")[0] == self._call
