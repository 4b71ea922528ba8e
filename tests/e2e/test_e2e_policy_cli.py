"""Policies, requests and receipts from the command line, against a platform that serves."""

from __future__ import annotations

import json
from pathlib import Path

from tests.support.served import Served, serve

GUARD = "keelstone-examples/email-guard"


def refused(served: Served, *arguments: str, code: int = 3) -> dict:
    return served.cli(*arguments, code=code)["error"]


def test_an_admin_tries_and_sets_a_policy_and_decides_on_a_request(tmp_path: Path):
    with serve(tmp_path / "platform") as served:
        served.cli("marketplace", "install", GUARD)
        served.cli("tenant", "enable", "acme", GUARD, "--grant", "all")
        file = tmp_path / "policy.json"
        file.write_text(json.dumps({"capabilities_never": ["log"], "publishers": {"allowed": ["others"]}}))
        tried = served.cli("tenant", "policy", "dry-run", "acme", str(file), code=1)
        assert tried["blocks"] is True
        assert [f["rule"] for f in tried["nonconforming"][0]["findings"]] == ["publishers", "capabilities_never"]
        assert served.cli("tenant", "policy", "show", "acme")["policy"] is None
        assert served.cli("tenant", "policy", "set", "acme", str(file), "--replaces", "0")["version"] == 1
        stale = refused(served, "tenant", "policy", "set", "acme", str(file), "--replaces", "0", code=1)
        assert stale["code"] == "concurrency"
        assert served.cli("tenant", "plugins", "acme")[0]["policy"]
        served.cli("tenant", "disable", "acme", GUARD)
        blocked = refused(served, "tenant", "enable", "acme", GUARD, "--grant", "all")
        assert blocked["code"] == "policy-blocked"
        ask = ("tenant", "requests", "ask", "acme", GUARD, "1.0.0", "--reason", "It guards us.")
        (asked,) = served.cli(*ask)
        declined = served.cli("tenant", "requests", "decline", "acme", asked["id"], "--answer", "Not yet.")
        assert (declined["state"], declined["answer"]) == ("declined", "Not yet.")
        (again,) = served.cli(*ask)
        assert served.cli("tenant", "requests", "approve", "acme", again["id"], "--days", "2")["expires_at"]
        served.cli("tenant", "enable", "acme", GUARD, "--grant", "all")
        assert [r["id"] for r in served.cli("tenant", "requests", "list", "acme")] == [again["id"]]
        assert len(served.cli("tenant", "requests", "list", "acme", "--all")) == 2
        assert served.cli("tenant", "requests", "revoke", "acme", again["id"])["state"] == "revoked"
        assert served.cli("tenant", "policy", "clear", "acme")["policy"] is None
        # An operator's, with a file that is none.
        (tmp_path / "broken.toml").write_text("licenses = [")
        assert refused(served, "marketplace", "policy", "set", str(tmp_path / "broken.toml"), code=1)["file"]
        (tmp_path / "odd.toml").write_text('license = ["MIT"]\n')
        unknown = refused(served, "marketplace", "policy", "dry-run", str(tmp_path / "odd.toml"), code=1)
        assert unknown["code"] == "validation"
        (tmp_path / "mit.toml").write_text('licenses = ["Apache-2.0"]\n')
        assert served.cli("marketplace", "policy", "dry-run", str(tmp_path / "mit.toml"))["blocks"] is False
        # What was decided is on record.
        listed = served.cli("tenant", "consents", "list", "acme", "--plugin", GUARD)
        assert [r["version"] for r in listed] == ["1.0.0", "1.0.0"]
        export = tmp_path / "consents.json"
        assert served.cli("tenant", "consents", "export", "acme", str(export))["receipts"] == 2
        checked = served.cli("tenant", "consents", "verify", str(export))
        assert (checked["receipts"], checked["trusted_keys"]) == (2, False)
    # With the platform gone.
    assert served.cli("tenant", "consents", "verify", str(export))["receipts"] == 2
    export.write_text(export.read_text().replace('"acme"', '"globex"'))
    assert refused(served, "tenant", "consents", "verify", str(export), code=1)["code"] == "receipts-damaged"
    assert refused(served, "tenant", "consents", "verify", str(tmp_path / "none.json"), code=1)["code"] == "validation"
