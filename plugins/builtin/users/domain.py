"""People of a tenant: frozen values and rules. No I/O; changes come back as data with their events."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any

from plugin_sdk import NewEvent, UserDraft, ValidationFailed, check_plain

_EMAIL = re.compile(r"^[^@\s,;<>\"]{1,64}@([A-Za-z0-9]([A-Za-z0-9-]{0,61}[A-Za-z0-9])?\.)+[A-Za-z]{2,63}$")
MAX_JSON_KEYS = 100


@dataclass(frozen=True, slots=True)
class User:
    """A person registered in one tenant. ``version`` grows by one with each change."""

    id: str
    email: str
    name: str
    created_at: datetime
    updated_at: datetime
    attributes: Mapping[str, Any] = field(default_factory=dict)
    preferences: Mapping[str, Any] = field(default_factory=dict)
    version: int = 1

    @property
    def stream(self) -> str:
        """The stream of this person's events."""
        return f"user:{self.id}"


def check(draft: UserDraft) -> UserDraft:
    """The draft with its e-mail address and name tidied. Raises ValidationFailed."""
    email = draft.email.strip()
    local, _, host = email.rpartition("@")
    email = f"{local}@{host.lower()}"
    if not _EMAIL.fullmatch(email):
        raise ValidationFailed(
            f"{draft.email!r} is not an e-mail address.", expected="name@example.com", found=draft.email
        )
    name = " ".join(draft.name.split())
    if not name:
        raise ValidationFailed("A person needs a name.", expected="at least one letter", found=draft.name)
    if len(draft.attributes) > MAX_JSON_KEYS:
        raise ValidationFailed(
            "There are too many attributes.", expected=f"at most {MAX_JSON_KEYS}", found=len(draft.attributes)
        )
    return draft.model_copy(update={"email": email, "name": name})


def register(id: str, draft: UserDraft, now: datetime) -> tuple[User, NewEvent]:
    """A new person and the event that says so."""
    user = User(id=id, email=draft.email, name=draft.name, attributes=draft.attributes, created_at=now, updated_at=now)
    data = {"user": id, "email": user.email, "name": user.name, "attributes": dict(user.attributes)}
    return user, NewEvent("user.created", data)


def change(user: User, draft: UserDraft, now: datetime) -> tuple[User, NewEvent | None]:
    """The person after a change of profile, and the event; None if nothing changed."""
    changed = [n for n in ("email", "name", "attributes") if getattr(user, n) != getattr(draft, n)]
    if not changed:
        return user, None
    after = replace(
        user,
        email=draft.email,
        name=draft.name,
        attributes=draft.attributes,
        updated_at=now,
        version=user.version + 1,
    )
    data = {
        "user": user.id,
        "email": after.email,
        "name": after.name,
        "attributes": dict(after.attributes),
        "changed": changed,
    }
    return after, NewEvent("user.updated", data)


def prefer(user: User, preferences: Mapping[str, Any], now: datetime) -> tuple[User, NewEvent | None]:
    """The person with ``preferences`` merged in (None removes a key), and the event."""
    check_plain(preferences, "The preferences")
    merged = {k: v for k, v in {**user.preferences, **preferences}.items() if v is not None}
    if len(merged) > MAX_JSON_KEYS:
        raise ValidationFailed(
            "There are too many preferences.", expected=f"at most {MAX_JSON_KEYS}", found=len(merged)
        )
    if merged == dict(user.preferences):
        return user, None
    after = replace(user, preferences=merged, updated_at=now, version=user.version + 1)
    return after, NewEvent("user.preferences_changed", {"user": user.id, "preferences": merged})
