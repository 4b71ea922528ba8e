"""The work of ``sandbox.python_guest``, the same in the guest and in the worker beside it."""

from __future__ import annotations

from keelstone_guest import UserDraft, hook


@hook("user_creating")
def tidy(draft: UserDraft) -> UserDraft:
    """The draft with its name tidied."""
    return draft.replace(name=" ".join(draft.name.split()).title())
