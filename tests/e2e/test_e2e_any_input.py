"""Whatever is sent to whatever operation: never an error of ours, always a problem document, and still serving.

Seeded, so that a failure comes again. The operations come from the OpenAPI document.
"""

from __future__ import annotations

import json
import random
from typing import Any
from urllib.parse import quote

import pytest

from tests.support.guests import CAPABILITIES, guest
from tests.support.stage import Stage

pytestmark = pytest.mark.asyncio(loop_scope="module")

TEXTS = [
    "", " ", "a", "*", "%", "..", "acme", "globex", "platform", "acme/guard", "1.0.0", "^1", "user.*", "member",
    "ada@example.com", "\0", "\n", "\x07", "\ud800", "\u202e", "é", "😀" * 50, "x" * 5_000, "' OR 1=1 --",
    "../../etc/passwd", "{{7*7}}", "0", "-1", "true", "null", "NaN", str(2**63), str(2**80),
]  # fmt: skip
NUMBERS = [0, 1, -1, 2**31, 2**63 - 1, 2**63, -(2**70), 1.5, 1e308, float("nan"), float("inf")]
# Slow on purpose, or they end the very session that asks.
LEFT_OUT = ("/api/v1/auth/token", "/api/v1/auth/revoke", "/api/v1/projections/{name}/rebuild")


class Sender:
    """Makes up requests for operations."""

    def __init__(self, seed: int, document: dict[str, Any]) -> None:
        self.random = random.Random(seed)
        self.schemas = document["components"]["schemas"]
        self.operations = [
            (method, path, operation)
            for path, operations in document["paths"].items()
            for method, operation in operations.items()
            if path not in LEFT_OUT and (method, path) != ("delete", "/api/v1/plugins/{publisher}/{name}")
        ]

    def value(self, depth: int = 0) -> Any:
        """Any JSON, and what only Python takes for JSON."""
        kind = self.random.randrange(8 if depth < 3 else 6)
        if kind < 3:
            return self.random.choice(TEXTS)
        if kind == 3:
            return self.random.choice(NUMBERS)
        if kind < 6:
            return self.random.choice([None, True, False])
        if kind == 6:
            return [self.value(depth + 1) for _ in range(self.random.randrange(10))]
        return {self.random.choice(TEXTS)[:60]: self.value(depth + 1) for _ in range(self.random.randrange(10))}

    def like(self, schema: dict[str, Any]) -> Any:
        """Nearly what the schema asks for."""
        if self.random.random() < 0.15:
            return self.value()
        if "$ref" in schema:
            return self.like(self.schemas[schema["$ref"].rpartition("/")[2]])
        if "anyOf" in schema:
            return self.like(self.random.choice(schema["anyOf"]))
        if schema.get("type") == "object":
            made = {
                name: self.like(part)
                for name, part in schema.get("properties", {}).items()
                if name in schema.get("required", ()) or self.random.random() < 0.6
            }
            if "additionalProperties" in schema:
                made[self.random.choice(TEXTS)[:60]] = self.value()
            return made
        if schema.get("type") == "array":
            return [self.like(schema.get("items", {})) for _ in range(self.random.randrange(10))]
        if schema.get("type") == "integer":
            return self.random.choice([*NUMBERS, "7"])
        return self.random.choice(TEXTS) if schema.get("type") == "string" else self.value()

    def request(self) -> tuple[str, str, dict[str, Any]]:
        """Method, path and the rest of one request."""
        method, path, operation = self.random.choice(self.operations)
        asked = operation.get("parameters", [])
        for name in [p["name"] for p in asked if p["in"] == "path"] + ["tenant"]:
            text = self.random.choice(
                [*TEXTS, "acme", "guard"] if name != "tenant" else ["acme", "acme", "globex", "*", "x"]
            )
            path = path.replace(f"{{{name}}}", quote(text.encode("utf-8", "replace"), safe=""))
        pairs = [
            (p["name"], self.random.choice(TEXTS).encode("utf-8", "replace").decode())
            for p in asked
            if p["in"] == "query" and self.random.random() < 0.5
        ]
        options: dict[str, Any] = {"params": pairs}
        if "requestBody" in operation:
            body = next(iter(operation["requestBody"]["content"].values())).get("schema", {})
            options |= {
                "content": json.dumps(self.like(body)).encode("utf-8", "replace"),
                "headers": {"content-type": "application/json"},
            }
        return method.upper(), path, options


@pytest.mark.parametrize("seed", range(10))
async def test_no_input_whatever_breaks_anything(stage: Stage, seed: int) -> None:
    if stage.platform.activations.current.of("acme").get("acme/guard") is None:
        await stage.install(guest(kv=("k", "v")), more=CAPABILITIES["kv"])
        await stage.activate("acme")
    clients = [
        await stage.client("acme"),
        await stage.client("platform"),
        await stage.client("platform", **{"x-keelstone-tenant": "acme"}),
    ]
    sender = Sender(seed, await stage.anonymous.ok("GET", "/openapi.json"))
    for _ in range(300):
        method, path, options = sender.request()
        answer = await sender.random.choice(clients).request(method, path, **options)
        where = f"{method} {path[:200]} {str(options)[:500]}: {answer.status_code} {answer.text[:500]}"
        assert answer.status_code < 500, where
        if answer.status_code >= 400 and not path.startswith("/graphql"):
            assert answer.headers["content-type"] == "application/problem+json", where
    for client in clients[:2]:
        await client.ok("GET", "/api/v1/users")
    assert (await stage.anonymous.ok("GET", "/readyz"))["ready"]
