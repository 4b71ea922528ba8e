"""``python -m tests.fuzz.seeds``: write the corpus's first inputs anew. What fuzzing found lies beside them."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

from marketplace.archive import write_archive
from marketplace.testing import EMPTY_COMPONENT
from tests.fuzz.fuzz_border import FUNCTIONS
from tests.fuzz.fuzz_outline import HEAD
from tests.fuzz.fuzz_package import NAMES
from tests.hostile.corpus import CORPUS as HOSTILE
from tests.hostile.text import compiled, text

CORPUS = Path(__file__).parent / "corpus"

SMALL = """manifest = 1
id = "acme/guard"
version = "1.0.0"
name = "Guard"
summary = "Keeps unwanted things outside."
license = "Apache-2.0"
[hooks.user_creating]
"""
LARGE = (
    SMALL
    + """on_failure = "fail_open"
deadline_ms = 500
[requires]
kernel = "^1.0"
[requires.plugins]
"acme/other" = ">=1.2, <3"
[capabilities.log]
why = "Says what it does."
[capabilities.http]
why = "Asks the other side."
hosts = ["api.example.com", "*.example.org:8443", "setting:hook"]
methods = ["GET"]
[capabilities.events]
why = "Tells what it did."
emits = ["lead.scored"]
[events]
subscribes = ["user.*"]
[[events.declares]]
type = "lead.scored"
summary = "A lead has a score"
[events.declares.data]
type = "object"
[limits]
time_ms = 100
memory_mb = 8
[permissions]
"leads:read" = { summary = "See the leads.", roles = ["admin"] }
[build]
language = "c"
"""
)
SVG = b'<svg xmlns="http://www.w3.org/2000/svg" width="8" height="8"><rect width="8" height="8"/></svg>'
PNG = b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR\0\0\0\x08\0\0\0\x08\x08\x06\0\0\0\xc4\x0f\xbe\x8b"
SETTINGS = b'{"type": "object", "properties": {"strict": {"type": "boolean", "default": true}}}'
REPLIES = [
    "{}", '{"payload": null}', '{"payload": {"email": "a@b.example", "name": "A"}}',
    '{"reject": {"code": "no", "message": "No."}}', '{"answer": {"allow": false, "reason": "no"}}', "[]", "nil",
    '{"payload": {"email": 1}}', '{"x": 1}', "[" * 500,
]  # fmt: skip
SCHEMAS = [
    (b'{"type":"object","properties":{"score":{"type":"integer","minimum":0}},"required":["score"]}', b'{"score":1}'),
    (b'{"type":"array","items":{"type":"string","pattern":"^a+$"}}', b'["aaa"]'),
    (b'{"enum":[1,"$ref"],"$ref":"#"}', b"1"),
    (b'{"anyOf":[{"const":null},{"not":{}}],"additionalProperties":false}', b"{}"),
]


def _member(name: str, data: bytes) -> bytes:
    return bytes([NAMES.index(name)]) + len(data).to_bytes(2, "big") + data


def seeds() -> Iterator[tuple[str, str, bytes]]:
    """(target, name, content) of each."""
    parts = [
        _member("plugin.toml", SMALL.replace("Apache", "Apache").encode()),
        _member("component.wasm", EMPTY_COMPONENT),
        _member("README.md", b"# Guard\n"),
    ]
    archive = write_archive(
        {"plugin.toml": SMALL.encode(), "component.wasm": EMPTY_COMPONENT, "README.md": b"# Guard\n"}
    )
    yield "package", "archive", b"\0" + archive
    yield "package", "cut-short", b"\0" + archive[:-9]
    yield "package", "members", b"\1" + b"".join(parts)
    with_settings = SMALL.replace(
        'license = "Apache-2.0"\n', 'license = "Apache-2.0"\nsettings = "settings.schema.json"\n'
    )
    yield (
        "package",
        "all-members",
        b"\1"
        + _member("plugin.toml", with_settings.encode())
        + b"".join(parts[1:])
        + _member("CHANGELOG.md", b"## 1.0.0\n")
        + _member("settings.schema.json", SETTINGS)
        + _member("icon.svg", SVG),
    )
    for name, settings in (("long-number", b'{"a": ' + b"9" * 6_000), ("deep", b"[" * 3_000)):
        yield (
            "package",
            f"settings-{name}",
            b"\1"
            + _member("plugin.toml", with_settings.encode())
            + b"".join(parts[1:])
            + _member("settings.schema.json", settings),
        )
    yield "package", "png", b"\1" + b"".join(parts) + _member("icon.png", PNG)
    yield "package", "other-name", b"\1" + b"".join(parts) + b"\xff\x06../etc\0\x01x"
    yield "manifest", "small", SMALL.encode()
    yield "manifest", "large", LARGE.encode()
    yield "manifest", "no-toml", b"manifest = \xff"
    yield "manifest", "deep", b"a = " + b"[" * 3_000
    yield "manifest", "deep-tables", b"a = " + b"{a=" * 3_000
    yield "manifest", "long-number", b"a = " + b"9" * 6_000
    yield "outline", "head", HEAD
    for name in ("import_unknown", "no_handle", "trap", "memories", "nested_components"):
        yield "outline", name.replace("_", "-"), compiled(next(h for h in HOSTILE if h.name == name).text())
    yield "outline", "host-calls", compiled(text(uses=["kv.set", "http.send", "events.emit", "log.write"]))
    for number, (schema, data) in enumerate(SCHEMAS):
        yield "event_schema", f"schema-{number}", schema + b"\0" + data
    yield (
        "event_schema",
        "grown",
        SCHEMAS[0][0] + b"\0{}\0" + SCHEMAS[0][0].replace(b'"score":{', b'"more":{},"score":{'),
    )
    for number, reply in enumerate(REPLIES):
        for hook in range(5):
            if number < 6 or hook == 0:
                yield "result", f"reply-{number}-{hook}", bytes([hook]) + reply.encode()
    for number, (interface, name) in enumerate(FUNCTIONS):
        yield "border", f"{interface}.{name}".replace("/", "-"), bytes([number]) + bytes(range(1, 60, 2))
        if name == "emit":
            # A known event with data that fits: words 2 and 3.
            yield "border", f"{interface}.emitted".replace("/", "-"), bytes([number, 1, 2, 1, 3])


def main() -> None:
    """Write them."""
    for target, name, content in seeds():
        folder = CORPUS / target
        folder.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)
    print(json.dumps({folder.name: len(list(folder.iterdir())) for folder in sorted(CORPUS.iterdir())}))


if __name__ == "__main__":
    main()
