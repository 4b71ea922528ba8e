"""What may not change silently between two releases of a plugin: who signs, what vouches for the build, who owns it.

Pure rules over what the marketplace's verified chain says of both.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Literal

from plugin_sdk import KeelstoneError
from plugin_sdk.services import ReleaseOrigin

Kind = Literal["signer", "provenance", "owner"]


class UpdateHeld(KeelstoneError):
    """Somebody else stands behind the update than behind what runs: a person must allow it first."""

    code, status, title = "update-held", 409, "Update is held"


@dataclass(frozen=True, slots=True)
class Windows:
    """How long updates of a new owner wait, whoever allows them: after a hand-over, and after the marketplace's
    operator put new keys in place of lost ones."""

    owner: timedelta = timedelta(days=7)
    recovery: timedelta = timedelta(days=30)


@dataclass(frozen=True, slots=True)
class Doubt:
    """One thing that changed. ``words`` tell it to a person; ``until`` is when a new owner's window closes."""

    kind: Kind
    words: str
    until: datetime | None = None


@dataclass(frozen=True, slots=True)
class Hold:
    """An update that waits in one tenant (or, allowed by an operator, in none): what changed, and who decided.

    ``state`` is ``held`` or ``allowed``. ``digest`` is the package's; an allowance is of exactly that package.
    """

    tenant: str
    plugin: str
    before: str
    version: str
    digest: str
    doubts: tuple[Doubt, ...]
    state: str
    at: datetime
    decided_by: str = ""
    decided_at: datetime | None = None
    reason: str = ""

    @property
    def kinds(self) -> frozenset[str]:
        """What changed, by kind."""
        return frozenset(doubt.kind for doubt in self.doubts)

    @property
    def until(self) -> datetime | None:
        """The moment before which nobody can allow it."""
        return latest(self.doubts)


def doubts(old: ReleaseOrigin | None, new: ReleaseOrigin | None, windows: Windows) -> tuple[Doubt, ...]:
    """What a person should know before ``new`` takes the place of ``old``; nothing if who made ``old`` is not known.

    Another key is no news if the keys of ``old`` led to it by proper succession.
    """
    if old is None:
        return ()
    new = new or ReleaseOrigin()
    found: list[Doubt] = []
    if new.owner > old.owner:
        since = "" if new.owned_since is None else f" since {new.owned_since:%Y-%m-%d %H:%M} UTC"
        length = windows.recovery if new.recovered else windows.owner
        until = None if new.owned_since is None else new.owned_since + length
        words = (
            f"the marketplace's operator put new keys in place of its publisher's lost ones{since}"
            if new.recovered
            else f"its publisher's name belongs to somebody else{since}"
        )
        found.append(Doubt("owner", words, until))
    if not set(old.signers) & set(new.lineage):
        who = _keys(new.signers) or "nobody known"
        found.append(
            Doubt(
                "signer",
                f"it is signed by {who}, and nothing signed by {_keys(old.signers) or 'nobody known'} says that this "
                "is the same publisher",
            )
        )
    if old.provenance is not None and new.provenance != old.provenance:
        lost = "nothing vouches for how it was built" if new.provenance is None else f"it was built by {new.provenance}"
        found.append(Doubt("provenance", f"{lost}; what runs was built by {old.provenance}"))
    return tuple(found)


def latest(found: Sequence[Doubt]) -> datetime | None:
    """When the last window of these closes."""
    return max((doubt.until for doubt in found if doubt.until is not None), default=None)


def told(found: Sequence[Doubt], now: datetime) -> str:
    """The doubts as one sentence's part, with the window if it is open."""
    until = latest(found)
    open_ = f"; updates of a new owner wait until {until:%Y-%m-%d %H:%M} UTC" if until and until > now else ""
    return "; ".join(doubt.words for doubt in found) + open_


def held(hold: Hold, now: datetime, tenant: str | None = None) -> UpdateHeld:
    """The error that says what changed, and who may allow it how."""
    release = f"{hold.plugin} {hold.version}"
    here = tenant or "TENANT"
    wait = "" if hold.until is None or hold.until <= now else f"From {hold.until:%Y-%m-%d %H:%M} UTC on, "
    allow = (
        f"{wait}if you trust it, an admin of the tenant allows it with `keelstone tenant allow {here} {release} "
        f"--reason WHY`, an operator for every tenant with `keelstone marketplace allow {release} --reason WHY`."
    )
    return UpdateHeld(
        f"{release} is held: {told(hold.doubts, now)}.",
        plugin=hold.plugin,
        tenant=tenant,
        expected=f"the same publisher as behind {hold.before}, or a person's consent",
        found=", ".join(sorted(hold.kinds)),
        fix=allow[0].upper() + allow[1:],
        extra={"doubts": [{"kind": doubt.kind, "words": doubt.words} for doubt in hold.doubts]},
    )


def _keys(ids: Sequence[str]) -> str:
    return ", ".join(f"key {key[:16]}" for key in ids)
