"""The samples of docs/how-to/call-the-host.md: those in AssemblyScript compile, those in Python run."""

from __future__ import annotations

import json
import textwrap
from pathlib import Path

import pytest

from plugin_sdk.scaffold import new_plugin
from plugin_sdk.testing import Guest
from plugin_sdk.toolchain import Toolchains, build_plugin
from tests.support.absent import toolchains_at_hand
from tests.support.documents import ROOT, Block, blocks

PAGE = ROOT / "docs" / "how-to" / "call-the-host.md"
CAPABILITIES = """
[capabilities.kv]
why = "Tries the samples of a page."
[capabilities.http]
why = "Tries the samples of a page."
hosts = ["setting:webhook_url", "api.example.com"]
methods = ["GET", "POST"]
[capabilities.events]
why = "Tries the samples of a page."
emits = ["lead.scored"]
[capabilities.secrets]
why = "Tries the samples of a page."
[capabilities.secrets.names.crm_token]
why = "Tries the samples of a page."
hosts = ["api.example.com"]
[capabilities.services]
why = "Tries the samples of a page."
[capabilities.services.calls]
"keelstone/users" = ["find"]
[capabilities.ai]
why = "Tries the samples of a page."
models = ["fast"]
[capabilities.notify]
why = "Tries the samples of a page."
channels = ["email"]
[capabilities.clock]
why = "Tries the samples of a page."
[capabilities.random]
why = "Tries the samples of a page."
[events]
subscribes = ["user.created"]
[[events.declares]]
type = "lead.scored"
summary = "A person was scored as a lead."
data = { type = "object", required = ["user"], properties = { user = { type = "string" } } }
"""
IMPORTS = {
    "assemblyscript": """
import { ai, clock, config, events, EventView, http, HttpRequest, Json, kv, log, notify, ObserveReply, Prompt,
  random, secrets, services } from "keelstone";

const url = "https://api.example.com/", body = "{}", id = "1", domain = "example.com", user = "u1", text = "a text";
""",
    "python": """
from keelstone_guest import ai, clock, config, events, hook, http, kv, log, notify, random, secrets, services

url, user, text, domain = "https://api.example.com/", "u1", "a text", "example.com"
""",
}


def samples(language: str) -> list[Block]:
    """The page's blocks of a language, but for those that are tests."""
    found = [b for b in blocks(PAGE) if b.language == language and "plugin_sdk.testing" not in b.text]
    assert len(found) > 8
    return found


def make(folder: Path, language: str, source: str) -> Path:
    plugin = new_plugin(folder, "samples", language, "me")
    manifest = (plugin / "plugin.toml").read_text().replace("[hooks.user_creating]", "[hooks.event_received]")
    (plugin / "plugin.toml").write_text(manifest.replace("[limits]", f"{CAPABILITIES}\n[limits]"))
    properties = {"webhook_url": {"type": "string"}, "minimum_length": {"type": "number"}}
    (plugin / "settings.schema.json").write_text(json.dumps({"type": "object", "properties": properties}))
    place = "assembly/index.ts" if language == "assemblyscript" else "guest/plugin.py"
    (plugin / place).write_text(source)
    return plugin


@pytest.mark.toolchain
def test_the_samples_in_assemblyscript_compile(tmp_path: Path) -> None:
    functions = [
        f"function sample{i}(): ObserveReply {{\n{block.text}\nreturn ObserveReply.done();\n}}\n"
        for i, block in enumerate(samples("typescript"))
    ]
    calls = "\n".join(f"  sample{i}();" for i in range(len(functions)))
    entry = f"export function event_received(event: EventView): ObserveReply {{\n{calls}\n"
    entry += "  return ObserveReply.done();\n}\n"
    plugin = make(tmp_path, "assemblyscript", IMPORTS["assemblyscript"] + "\n".join(functions) + entry)
    with toolchains_at_hand():
        built = build_plugin(plugin, Toolchains())
    assert built.unused == ()


async def test_the_samples_in_python_run(tmp_path: Path) -> None:
    functions = [
        f"def sample{i}() -> None:\n{textwrap.indent(block.text, '    ')}\n"
        for i, block in enumerate(samples("python"))
    ]
    calls = "\n".join(f"    sample{i}()" for i in range(len(functions)))
    source = IMPORTS["python"] + "\n".join(functions)
    source += f'\n\n@hook("event_received")\ndef observe(event) -> None:\n{calls}\n'
    plugin = make(tmp_path, "python", source)
    async with Guest(plugin, host="memory", settings={"webhook_url": "https://api.example.com/"}) as guest:
        guest.outside.services.answers["keelstone/users", "find"] = {"name": "Ann"}
        observed = await guest.observe("user.created", {"user": "u1"})
        assert [event.type for event in observed.events] == ["lead.scored"]
        assert guest.outside.notifier.sent
        assert guest.outside.models.requests
        assert guest.stored["seen/u1"] == "1"
