"""Pages of what plugin authors build against: hooks, manifest, guest contract, lifecycle, events."""

from __future__ import annotations

import inspect
import json
from importlib.resources import files
from typing import Any

from pydantic import BaseModel

from docs.pages.markdown import attribute_notes, code, fields, kind_of, page, paragraph, table
from kernel import manifest, payloads
from kernel.discovery import find_plugins
from kernel.hookspecs import HOOK_CONTRACT_VERSION, HOOKS, HookSpec, HookSpecs
from kernel.lifecycle import transitions
from plugin_sdk.testing.samples import sample_payload

_KINDS = {
    "contribute": "Called once at boot, of built-ins and extensions only. An exception stops the boot.",
    "filter": "Called for a request, in order. An implementation returns a changed payload, a `Reject`, or nothing.",
    "decide": "Called for a request, in order, until one answers.",
    "observe": "Called after the commit, for each implementation on its own. A failure is retried, then parked.",
}
_REPLIES: dict[str, type[BaseModel]] = {
    "filter": payloads.FilterReply,
    "decide": payloads.DecideReply,
    "observe": payloads.ObserveReply,
}


def hooks() -> str:
    """Every hook with its payload."""
    shown: dict[str, type[BaseModel]] = {}
    parts = [
        table(
            ["hook", "kind", "sentence"],
            [[f"[`{h.name}`](#{h.name})", h.kind, paragraph(h.summary)] for h in HOOKS.values()],
        )
    ]
    for kind, meaning in _KINDS.items():
        parts += [f"## {kind.capitalize()}", meaning]
        if kind in _REPLIES:
            reply = _REPLIES[kind]
            shown[reply.__name__] = reply
            parts.append(f"A guest answers with JSON of [{reply.__name__}](#{reply.__name__.lower()}).")
        for hook in HOOKS.values():
            if hook.kind == kind:
                parts.append(_hook(hook))
                shown |= {m.__name__: m for m in (hook.payload, hook.result) if m is not None}
    shown["Reject"] = payloads.Reject
    parts.append("## Payloads and replies")
    parts += [_model(model) for model in shown.values()]
    introduction = f"""
    Every extension point of the platform. The hook contract has version **{HOOK_CONTRACT_VERSION}**; `requires.kernel`
    in a manifest is a range over it.

    An implementation in Python is a method marked with `plugin_sdk.hookimpl`, sync or async, that may leave out
    arguments which it doesn't need. A guest names the hook under `[hooks]` in its manifest and gets the same payload
    as JSON.
    """
    return page("Hooks", introduction, *parts)


def _hook(hook: HookSpec) -> str:
    signature = inspect.signature(getattr(HookSpecs, hook.name))
    names = ", ".join(p for p in signature.parameters if p != "self")
    lines = [f"### {hook.name}", paragraph(hook.summary)]
    if not hook.for_guests:
        return "\n\n".join(lines)
    facts = [["arguments", code(names)]]
    if hook.payload is not None:
        facts.append(["payload", _link(hook.payload)])
    if hook.result is not None:
        facts.append(["answer", _link(hook.result)])
    failure = "the failure is recorded and the implementation skipped"
    if hook.kind == "observe":
        failure = "the event is tried again and then parked as a dead letter"
    elif hook.on_failure == "fail_closed":
        failure = "the call is refused with `plugin-unavailable`"
    facts += [["if it fails", f"{code(hook.on_failure)}: {failure}"], ["deadline", f"{hook.deadline_ms:,} ms"]]
    lines.append(table(["", ""], facts))
    sample = json.dumps(_sample(hook), indent=2)
    lines.append(f"<details><summary>A sample payload</summary>\n\n```json\n{sample}\n```\n\n</details>")
    return "\n\n".join(lines)


def _sample(hook: HookSpec) -> dict[str, Any]:
    """The payload that `keelstone plugin call` sends; ids that would differ each time are fixed."""
    sample = sample_payload(hook.name)
    fixed = {"id": "01HZX5", "correlation_id": "01HZX4"}
    return {name: fixed.get(name, value) if hook.kind == "observe" else value for name, value in sample.items()}


def _link(model: type[BaseModel]) -> str:
    return f"[{model.__name__}](#{model.__name__.lower()})"


def _model(model: type[BaseModel]) -> str:
    schema = model.model_json_schema()
    return "\n\n".join(
        [
            f"### {model.__name__}",
            paragraph(model.__doc__ or ""),
            fields(schema, {"Reject": None}, attribute_notes(model)),
            f"<details><summary>JSON Schema</summary>\n\n```json\n{json.dumps(schema, indent=2)}\n```\n\n</details>",
        ]
    )


def manifest_page() -> str:
    """Every key of plugin.toml."""
    schema = manifest.manifest_schema()
    definitions: dict[str, Any] = schema["$defs"]
    parts = [fields(schema, definitions, attribute_notes(manifest.PluginManifest))]
    for name, definition in definitions.items():
        cls = getattr(manifest, name)
        parts.append(f"## {name}\n\n{paragraph(cls.__doc__ or '')}")
        parts.append(fields(definition, definitions, attribute_notes(cls)))
    example = files("plugin_sdk") / "examples" / "lead-scorer" / manifest.MANIFEST_FILE
    parts.append(f"## An example\n\n```toml\n{example.read_text().strip()}\n```")
    introduction = """
    `plugin.toml` says what a plugin is, needs, asks for and is limited to. Unknown keys are refused, so a misspelt
    limit is an error and never a silent default. All keys of the first table stand at the top of the file, or under a
    table of their name.
    """
    return page("Manifest", introduction, *parts)


def wit() -> str:
    """The guest contract as it is shipped."""
    text = (files("plugin_sdk") / "wit" / "keelstone.wit").read_text()
    introduction = """
    What a guest exports and may import, as a WebAssembly component. A guest's own world has the interfaces of the
    capabilities in its manifest and no others; `keelstone plugin build` composes it.
    """
    return page("Guest contract (WIT)", introduction, f"```wit\n{text.strip()}\n```")


def lifecycle() -> str:
    """Both state machines, as tables and diagrams."""
    parts = []
    names = {
        "release": ("A release on the platform", "What an operator installs, withdraws and uninstalls."),
        "activation": ("A plugin for one tenant", "What a tenant's admin consents to, switches on and off."),
    }
    for machine, edges in transitions().items():
        title, meaning = names[machine]
        diagram = "\n".join(f"    {before} --> {after}: {name}" for before, name, after in edges)
        parts.append(f"## {title}\n\n{meaning}\n\n```mermaid\nstateDiagram-v2\n{diagram}\n```")
        parts.append(table(["from", "transition", "to"], [[code(a), code(n), code(b)] for a, n, b in edges]))
    introduction = """
    Every transition that there is. Any other is refused with the code `lifecycle`, which says what is possible
    instead.
    """
    return page("Lifecycle", introduction, *parts)


def events() -> str:
    """Event types of the built-ins."""
    parts = []
    for found in find_plugins():
        declared = found.manifest.events.declares
        if found.manifest.kind != "builtin" or not declared:
            continue
        parts.append(f"## {found.manifest.name}\n\nDeclared by `{found.manifest.id}`.")
        for event in declared:
            required = set(event.data.get("required", ()))
            properties = event.data.get("properties", {})
            rows = [[code(n), kind_of(s, {}), "yes" if n in required else "no"] for n, s in properties.items()]
            parts.append(f"### {event.type}\n\n{event.summary}\n\n{table(['data', 'type', 'always there'], rows)}")
    introduction = """
    Event types of the built-in plugins. A plugin reads them by naming them under `events.subscribes` in its manifest;
    integrators read them at `GET /api/v1/events`. A type's schema only ever grows by optional fields.
    """
    return page("Events", introduction, *parts)
