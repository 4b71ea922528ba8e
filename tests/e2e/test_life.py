"""One plugin's whole life over HTTP and the command line, with a component built from source."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from tests.support.absent import absent
from tests.support.served import Served, serve

pytestmark = pytest.mark.toolchain

SOURCE = """
import { FilterReply, UserDraft, kv } from "keelstone";

export function user_creating(draft: UserDraft): FilterReply {
  if (draft.name == "Nobody") return FilterReply.reject("Nobody is not welcome.");
  kv.set("last", draft.email);
  draft.name = draft.name + " (VERSION)";
  return FilterReply.change(draft);
}
"""


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    with serve(tmp_path_factory.mktemp("life")) as running:
        yield running


def _build(served: Served, version: str) -> Path:
    plugin = served.folder / "hello"
    if not plugin.exists():
        served.cli("plugin", "new", "hello", "--language", "assemblyscript", "--publisher", "lifetest")
    manifest = (plugin / "plugin.toml").read_text()
    before = next(line for line in manifest.splitlines() if line.startswith("version = "))
    manifest = manifest.replace(before, f'version = "{version}"')
    if "[capabilities.kv]" not in manifest:
        kv = '[capabilities.kv]\nwhy = "Remembers the last address it saw."\n\n[limits]'
        manifest = manifest.replace("[limits]", kv)
    (plugin / "plugin.toml").write_text(manifest)
    (plugin / "assembly" / "index.ts").write_text(SOURCE.replace("VERSION", version))
    (plugin / "CHANGELOG.md").write_text(f"# Changelog\n\n## {version}\n\nA version for a test.\n")
    try:
        served.cli("plugin", "build", cwd=plugin)
    except AssertionError as error:
        if "toolchain-unavailable" in str(error):
            absent(f"the AssemblyScript toolchain: {error}")
        raise
    served.cli("plugin", "sign", cwd=plugin)
    return plugin / "build" / f"lifetest.hello-{version}.keelstone"


def _register(client: httpx.Client, number: int, name: str = "Ada") -> httpx.Response:
    return client.post("/api/v1/users", json={"email": f"person{number}@example.com", "name": name})


def test_no_collection_walks_what_a_serving_process_keeps(served: Served) -> None:
    text = httpx.get(f"{served.url}/metrics").text
    kept = next(line for line in text.splitlines() if line.startswith("keelstone_gc_settled_objects "))
    assert float(kept.split()[1]) > 100_000


def test_a_plugin_lives_from_source_to_residue_free_uninstall(served: Served) -> None:
    # The author writes, builds, signs and publishes.
    served.cli("plugin", "keygen", "lifetest")
    first = _build(served, "1.0.0")
    receipt = served.cli("plugin", "publish", str(first))["receipt"]
    assert receipt["state"] == "live"
    verified = served.cli("plugin", "verify", str(first))
    assert "root" in json.dumps(verified)
    found = served.cli("marketplace", "search", "hello")
    assert "lifetest/hello" in json.dumps(found)

    # The operator installs.
    installed = served.cli("marketplace", "install", "lifetest/hello")
    assert [(p["id"], p["version"]) for p in installed] == [("lifetest/hello", "1.0.0")]

    # Without consent nothing is switched on; with it, for one tenant only.
    refused = served.cli("tenant", "enable", "acme", "lifetest/hello", code=3)
    assert refused["error"]["code"] == "consent-required"
    assert {c["name"] for c in refused["error"]["capabilities"]} == {"config", "kv", "log"}
    activation = served.cli("tenant", "enable", "acme", "lifetest/hello", "--grant", "all")
    assert activation["state"] == "active"

    with served.client("acme") as acme, served.client("globex") as globex:
        assert _register(acme, 1).json()["name"] == "Ada (1.0.0)"
        assert _register(globex, 1).json()["name"] == "Ada"
        rejected = _register(acme, 2, "Nobody")
        assert rejected.status_code == 422
        assert rejected.json()["detail"] == "Nobody is not welcome."
        assert _register(globex, 2, "Nobody").status_code == 201
        explained = acme.get(f"/api/v1/hooks/{rejected.headers['x-correlation-id']}/explain").json()
        assert explained[0]["implementations"][0]["outcome"] == "rejected"

        # An upgrade under load fails no call, and every answer is wholly of one version.
        second = _build(served, "1.1.0")
        served.cli("plugin", "publish", str(second))
        statuses, names = asyncio.run(_load_during_upgrade(served))
        assert set(statuses) == {201}, [n for s, n in zip(statuses, names, strict=True) if s != 201]
        assert set(names) == {"Ada (1.0.0)", "Ada (1.1.0)"}
        assert _register(acme, 3).json()["name"] == "Ada (1.1.0)"
        assert _register(globex, 3).json()["name"] == "Ada"

        # Rolled back, disabled, uninstalled.
        moves = served.cli("marketplace", "rollback", "lifetest/hello")
        assert [(m["tenant"], m["after"]) for m in moves] == [("acme", "1.0.0")]
        assert _register(acme, 4).json()["name"] == "Ada (1.0.0)"
        still_used = served.cli("marketplace", "uninstall", "lifetest/hello", code=1)
        assert still_used["error"]["code"] == "conflict"
        assert served.cli("tenant", "disable", "acme", "lifetest/hello")["state"] == "disabled"
        assert _register(acme, 5).json()["name"] == "Ada"
        removal = served.cli("marketplace", "uninstall", "lifetest/hello", "--data", "purge")
        assert removal["residue"] == []
        assert sorted(removal["versions"]) == ["1.0.0", "1.1.0"]
        assert not any(p["id"] == "lifetest/hello" for p in acme.get("/api/v1/plugins").json())
        assert acme.get("/api/v1/tenants/acme/activations").json() == []
        types = {e["type"] for e in acme.get("/api/v1/events", params={"limit": 200}).json()["items"]}
        assert {"plugin.consented", "plugin.activated", "plugin.updated", "plugin.deactivated"} <= types
    assert not [p for p in (served.home / "blobs").rglob("*") if p.is_file()]
    assert not list((served.home / "artifacts").glob("*.cwasm"))


async def _load_during_upgrade(served: Served) -> tuple[list[int], list[str]]:
    statuses: list[int] = []
    names: list[str] = []
    stop = time.monotonic() + 60
    warm, seen_new = asyncio.Event(), asyncio.Event()
    headers = {"Authorization": f"Bearer {served.token('acme')}"}

    async def worker(number: int, client: httpx.AsyncClient) -> None:
        count = 0
        while time.monotonic() < stop and not (seen_new.is_set() and count >= 20):
            count += 1
            body = {"email": f"load{number}.{count}@example.com", "name": "Ada"}
            answer = await client.post("/api/v1/users", json=body)
            statuses.append(answer.status_code)
            names.append(answer.json().get("name", answer.text))
            if len(names) >= 20:
                warm.set()
            if names[-1] == "Ada (1.1.0)":
                seen_new.set()

    async with httpx.AsyncClient(base_url=served.url, headers=headers, timeout=30) as client:
        load = [asyncio.create_task(worker(n, client)) for n in range(6)]
        await warm.wait()
        moves = await asyncio.to_thread(served.cli, "marketplace", "upgrade", "lifetest/hello")
        assert [(m["tenant"], m["before"], m["after"]) for m in moves] == [("acme", "1.0.0", "1.1.0")]
        await asyncio.gather(*load)
    return statuses, names
