"""A guest's reply in a few words."""

from __future__ import annotations

import json

from kernel.hookspecs import HOOKS


def summary_of(hook: str, payload: str, output: str) -> str:
    """``kept``, ``changed name``, ``rejected: ...``, ``allowed: ...``, ``denied: ...``, ``no opinion``, ``done``."""
    kind = HOOKS[hook].kind if hook in HOOKS else "observe"
    reply = json.loads(output)
    if kind == "filter":
        if reply.get("reject"):
            return f"rejected: {reply['reject'].get('reason', '')}"
        before, after = json.loads(payload), reply.get("payload")
        changed = (
            [] if after is None else sorted(k for k in before.keys() | after.keys() if before.get(k) != after.get(k))
        )
        return f"changed {', '.join(changed)}" if changed else "kept"
    if kind == "decide":
        answer = reply.get("answer")
        if answer is None:
            return "no opinion"
        return f"{'allowed' if answer.get('allow') else 'denied'}: {answer.get('reason', '')}"
    return "done"
