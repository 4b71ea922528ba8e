"""A namespace handed over, and its update held and allowed, from the command line of a platform that serves."""

from __future__ import annotations

import shutil
from pathlib import Path

from tests.support.served import Served, serve

EXAMPLES = Path(__file__).parents[2] / "plugin_sdk" / "examples"
GUARD = "keelstone-examples/email-guard"


def newer_guard(served: Served) -> Path:
    """The folder of the example's next release."""
    folder = served.folder / "email-guard"
    shutil.copytree(EXAMPLES / "email-guard", folder)
    manifest, changelog = folder / "plugin.toml", folder / "CHANGELOG.md"
    manifest.write_text(manifest.read_text().replace('version = "1.0.0"', 'version = "1.1.0"'))
    changelog.write_text(changelog.read_text().replace("## 1.0.0", "## 1.1.0\n\nAnother owner.\n\n## 1.0.0"))
    return folder


def test_an_update_of_a_new_owner_is_held_and_allowed(tmp_path: Path) -> None:
    with serve(tmp_path / "platform", KEELSTONE_MARKETPLACE_OWNER_DAYS="0") as served:
        served.cli("marketplace", "install", GUARD)
        served.cli("tenant", "enable", "acme", GUARD, "--grant", "all")
        # Buyer and seller are one machine here; the buyer's key has a name of its own.
        made = served.cli("plugin", "keygen", "keelstone-examples", "--name", "buyer")
        assert made["file"].endswith("keelstone-examples.buyer.pem")
        given = served.cli("marketplace", "transfer", GUARD, "--to", "Globex", "--add", "x", code=1)
        assert "its id never changes" in given["error"]["detail"]
        document = str(served.folder / "transfer.json")
        handed = served.cli(
            "marketplace",
            "transfer",
            "keelstone-examples",
            "--to",
            "Globex Ltd",
            "--add",
            "keelstone-examples.buyer",
            "--out",
            document,
        )
        assert handed["complete"], "both keys are on this machine, so both have signed"
        record = served.cli("plugin", "keys", "submit", document)
        assert (record["version"], record["owner"]) == (2, "Globex Ltd")
        folder = newer_guard(served)
        signed = served.cli("plugin", "sign", cwd=folder)
        assert signed["signers"] == [made["key"]], "the old key does not count any more"
        served.cli("plugin", "publish", signed["file"], cwd=folder)
        (stuck,) = served.cli("marketplace", "upgrade", GUARD, code=3)
        assert stuck["after"] == "1.0.0"
        assert f"keelstone marketplace allow {GUARD} 1.1.0" in stuck["error"]
        for listed in (("marketplace", "new-owners"), ("tenant", "new-owners", "acme")):
            assert served.cli(*listed) == [], "the marketplace was asked before"
        (held,) = served.cli("marketplace", "held")
        assert ([d["kind"] for d in held["doubts"]], held["state"]) == (["owner"], "held")
        assert served.cli("tenant", "held", "acme") == [held]
        assert served.cli("tenant", "allow", "acme", GUARD, "1.1.0", "--reason", "We met them.")["state"] == "allowed"
        (moved,) = served.cli("marketplace", "upgrade", GUARD)
        assert moved["after"] == "1.1.0"
        # What an operator allows, too, must be held somewhere.
        nothing = served.cli("marketplace", "allow", GUARD, "1.1.0", "--reason", "x", code=1)
        assert nothing["error"]["code"] == "not-found"
