"""Sums guest calls in memory and hands the sums on now and then.

``note`` runs after every guest call and costs about a microsecond: one look-up and additions to plain
lists. Which hour a sum belongs to is settled when it is taken, and it is taken at each full hour, so
no call asks for the time. A process that is killed loses what it noted since the last flush.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from plugin_sdk import KeelstoneError
from plugin_sdk.services import GuestCall, GuestResult, GuestUsage
from plugins.builtin.metering.domain import (
    AI,
    CALLS,
    COUNTERS,
    CPU,
    FAILURES,
    HOST_CALLS,
    HTTP,
    KV,
    MEMORY,
    OWN,
    PEAKS,
    REFUSED,
    WALL,
    Meter,
    UsageKey,
)

OWN_EVENT = '"type":"plugin.executed"'
MAX_USES = 200
"""Different things asked of the host that are told apart for a plugin version and tenant."""
_Key = tuple[str, str, str, str]


class Profile:
    """What one plugin version needed for one tenant: peaks in the order of PEAKS, and counts of uses."""

    __slots__ = ("calls", "peaks", "uses")

    def __init__(self) -> None:
        self.calls = 0
        self.peaks = [0] * len(PEAKS)
        self.uses: dict[str, int] = {}


class _Entry:
    __slots__ = ("meters", "profile", "sums")

    def __init__(self, profile: Profile, meters: tuple[Meter, ...]) -> None:
        self.sums = [0] * (len(COUNTERS) + 1)
        self.profile = profile
        self.meters = meters


@dataclass(slots=True)
class Taken:
    """What was noted since the last time: sums by key and profiles by (tenant, plugin, version)."""

    sums: dict[UsageKey, list[int]]
    profiles: dict[tuple[str, str, str], Profile]


class UsageLedger:
    """Counts calls. ``meters`` gives the budgets that a tenant's calls of a plugin are held to."""

    def __init__(self, meters: Callable[[str, str], tuple[Meter, ...]] = lambda tenant, plugin: ()) -> None:
        self._meters = meters
        self._entries: dict[_Key, _Entry] = {}
        self._profiles: dict[tuple[str, str, str], Profile] = {}
        self._known: dict[tuple[str, str, str], set[str]] = {}

    # ------------------------------------------------------------------ the request path

    def admit(self, call: GuestCall) -> None:
        """Let a call through, or raise BudgetSpent."""
        tenant, plugin = call.context.tenant, call.plugin
        meters = self._meters(tenant, plugin)
        if not meters:
            return
        try:
            for meter in meters:
                meter.check(plugin, call.hook)
        except KeelstoneError:
            self._entry((tenant, plugin, call.version, call.hook)).sums[REFUSED] += 1
            raise

    def note(self, call: GuestCall, result: GuestResult | KeelstoneError) -> None:
        """Count one call with what it came to."""
        if call.replay is not None:
            return
        key = (call.context.tenant, call.plugin, call.version, call.hook)
        entry = self._entries.get(key)
        if entry is None:
            entry = self._entry(key)
        sums = entry.sums
        sums[CALLS] += 1
        # A plugin that observes plugin.executed would otherwise keep itself busy for ever.
        if call.hook == "event_received" and OWN_EVENT in call.payload:
            sums[OWN] += 1
        used: GuestUsage | None
        if type(result) is GuestResult:
            used = result.usage
        else:
            sums[FAILURES] += 1
            used = getattr(result, "usage", None)
            if used is None:
                return
        wall = used.wall_us
        sums[WALL] += wall
        sums[CPU] += used.cpu_us
        sums[MEMORY] += (used.memory_bytes >> 10) * wall // 1_000
        sums[HOST_CALLS] += used.host_calls
        sums[HTTP] += used.http_bytes
        sums[KV] += used.kv_bytes
        sums[AI] += used.ai_tokens
        for meter in entry.meters:
            spent = meter.used
            spent[0] += 1
            spent[1] += wall
            spent[2] += used.ai_tokens
            spent[3] += used.http_bytes
        profile = entry.profile
        profile.calls += 1
        peaks = profile.peaks
        if wall > peaks[0]:
            peaks[0] = wall
        if used.memory_bytes > peaks[1]:
            peaks[1] = used.memory_bytes
        if used.host_calls > peaks[2]:
            peaks[2] = used.host_calls
        if used.http_bytes > peaks[3]:
            peaks[3] = used.http_bytes
        if used.kv_bytes > peaks[4]:
            peaks[4] = used.kv_bytes
        if used.ai_tokens > peaks[9]:
            peaks[9] = used.ai_tokens
        size = len(call.payload)
        if size > peaks[5]:
            peaks[5] = size
        if type(result) is GuestResult:
            size = len(result.output)
            if size > peaks[6]:
                peaks[6] = size
            size = len(result.effects.events)
            if size > peaks[7]:
                peaks[7] = size
            size = len(result.logs)
            if size > peaks[8]:
                peaks[8] = size
        if used.uses:
            self._uses(key[:3], profile, used.uses)

    # ------------------------------------------------------------------ now and then

    def take(self) -> Taken:
        """What was noted so far; from now on counting begins anew."""
        entries, self._entries = self._entries, {}
        profiles, self._profiles = self._profiles, {}
        sums = {UsageKey(*key): entry.sums for key, entry in entries.items() if any(entry.sums)}
        return Taken(sums, {key: p for key, p in profiles.items() if p.calls})

    def give_back(self, taken: Taken) -> None:
        """Count again what could not be stored."""
        for key, sums in taken.sums.items():
            into = self._entry((key.tenant, key.plugin, key.version, key.hook)).sums
            for index, amount in enumerate(sums):
                into[index] += amount
        for where, kept in taken.profiles.items():
            profile = self._profile(where)
            profile.calls += kept.calls
            profile.peaks[:] = map(max, profile.peaks, kept.peaks)
            for name, count in kept.uses.items():
                profile.uses[name] = profile.uses.get(name, 0) + count

    def unstored(self, tenant: str, plugin: str | None) -> list[int]:
        """Calls, wall time (µs), AI tokens and HTTP bytes noted since the last time."""
        used = [0, 0, 0, 0]
        for (owner, name, _, _), entry in self._entries.items():
            if owner == tenant and plugin in (None, name):
                for index, counter in enumerate((CALLS, WALL, AI, HTTP)):
                    used[index] += entry.sums[counter]
        return used

    def renew_meters(self) -> None:
        """The budgets changed: look them up again."""
        for (tenant, plugin, _, _), entry in self._entries.items():
            entry.meters = self._meters(tenant, plugin)

    # ------------------------------------------------------------------ inside

    def _entry(self, key: _Key) -> _Entry:
        entry = self._entries.get(key)
        if entry is None:
            entry = self._entries[key] = _Entry(self._profile(key[:3]), self._meters(key[0], key[1]))
        return entry

    def _profile(self, key: tuple[str, str, str]) -> Profile:
        profile = self._profiles.get(key)
        if profile is None:
            profile = self._profiles[key] = Profile()
        return profile

    def _uses(self, key: tuple[str, str, str], profile: Profile, uses: Mapping[str, int]) -> None:
        counted = profile.uses
        for name, count in uses.items():
            if name not in counted:
                name = self._bounded(key, name)
            counted[name] = counted.get(name, 0) + count

    def _bounded(self, key: tuple[str, str, str], name: str) -> str:
        # A guest that may call *.example.com can make up names for ever: past the bound they are one.
        known = self._known.setdefault(key, set())
        if name in known:
            return name
        if len(known) >= MAX_USES:
            return f"{name.partition(' ')[0]} (others)"
        known.add(name)
        return name
