"""The commands: what an author and an operator type, with and without --json, and the exit codes."""

from __future__ import annotations

import asyncio
import hashlib
import json
import shutil
from pathlib import Path
from typing import Any

import httpx
import pytest
import typer
from fastapi import FastAPI
from typer.testing import CliRunner

from kernel.manifest import load_manifest
from kernel.settings import Settings
from marketplace.cli import register
from marketplace.connect import registry_folder, trusted_witnesses
from marketplace.registry import Registry
from marketplace.service import create_app
from marketplace.testing import EMPTY_COMPONENT, write_plugin
from plugin_sdk.sbom import sbom_beside, write_sbom
from plugin_sdk.terminal import EXIT_FAILED, EXIT_REFUSED, EXIT_UNREACHABLE, CommandTree, RemoteError


class Platform:
    """A platform inside the test, with the embedded marketplace mounted; closed means out of reach."""

    def __init__(self, registry: Registry) -> None:
        self.app = FastAPI()
        self.app.mount("/marketplace", create_app(registry))

    def request(self, method: str, path: str, **options: Any) -> Any:
        options.pop("tenant", None)

        async def send() -> httpx.Response:
            transport = httpx.ASGITransport(app=self.app)
            async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
                return await client.request(method, path, **options)

        response = asyncio.run(send())
        if response.is_error:
            raise RemoteError(response.json(), response.status_code)
        return response.json()

    def close(self) -> None:
        pass


class Terminal:
    """Runs commands against a platform over the data folder ``home``."""

    def __init__(self, home: Path) -> None:
        settings = Settings(home=home)
        self.registry = Registry.open(registry_folder(settings), witnesses=trusted_witnesses(settings))
        root = typer.Typer()
        register(CommandTree(root, lambda: Platform(self.registry)))
        self._root, self._runner = root, CliRunner()

    def run(self, *words: str | Path, code: int = 0) -> str:
        result = self._runner.invoke(self._root, [str(word) for word in words])
        assert result.exit_code == code, result.output
        return result.output

    def json(self, *words: str | Path, code: int = 0) -> Any:
        result = self._runner.invoke(self._root, [*map(str, words), "--json"])
        assert result.exit_code == code, result.output
        return json.loads(result.stdout)

    def close(self) -> None:
        asyncio.run(self.registry.close())


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name in ("MARKETPLACE_URL", "URL", "MAX_PACKAGE_MB"):
        monkeypatch.delenv(f"KEELSTONE_{name}", raising=False)
    monkeypatch.setenv("KEELSTONE_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("COLUMNS", "200")
    return tmp_path / "home"


@pytest.fixture
def terminal(home: Path) -> Any:
    terminal = Terminal(home)
    yield terminal
    terminal.close()


@pytest.fixture
def plugin(tmp_path: Path) -> Path:
    folder = write_plugin(tmp_path / "guard", more='[capabilities.log]\nwhy = "Writes down what it refused."\n')
    (folder / "build").mkdir()
    return built(folder)


def built(folder: Path) -> Path:
    """The plugin's folder as ``keelstone plugin build`` leaves it."""
    component = folder / "build" / "guard.component.wasm"
    component.write_bytes(EMPTY_COMPONENT)
    digest = hashlib.sha256(EMPTY_COMPONENT).hexdigest()
    sbom_beside(component).write_bytes(write_sbom(load_manifest(folder), digest, [], "test"))
    return folder


def sign(terminal: Terminal, plugin: Path) -> Path:
    terminal.json("plugin", "keygen", "acme")
    return Path(terminal.json("plugin", "sign", plugin)["file"])


def test_an_author_signs_publishes_and_verifies(terminal: Terminal, plugin: Path, home: Path) -> None:
    made = terminal.json("plugin", "keygen", "acme")
    assert Path(made["file"]).stat().st_mode & 0o777 == 0o600
    signed = terminal.json("plugin", "sign", plugin)
    file = Path(signed["file"])
    assert file == plugin / "build" / "acme.guard-1.0.0.keelstone"
    assert Path(signed["signature"]).exists()

    said = terminal.run("plugin", "publish", file)
    assert "is now bound to your key" in said
    assert "live" in said
    assert "entry 1 of 2, root" in said
    again = terminal.json("plugin", "publish", file)
    assert (again["namespace"], again["confirmed"]) == (None, True)
    assert json.loads(file.with_name(file.name + ".receipt.json").read_text()) == again["receipt"]

    verified = terminal.json("plugin", "verify", file)
    assert verified["verified"] is True
    assert verified["chain"] == terminal.json("plugin", "verify", file, "--offline")["chain"]
    text = terminal.run("plugin", "verify", file)
    assert text.count("✓") == len(verified["chain"])
    assert "acme/guard 1.0.0 is verified." in text


def test_an_author_looks_before_publishing(terminal: Terminal, plugin: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KEELSTONE_CHECK_CONTRACTS", "false")
    seen = terminal.json("plugin", "validate", plugin)
    assert (seen["refused"], seen["findings"]) == (False, [])
    assert {"contract", "parts-malicious", "parts-weak"} <= set(seen["unseen"])
    assert "similar-name" in terminal.json("plugin", "validate", plugin, "--offline")["unseen"]
    assert "acme/guard 1.0.0 may be published." in terminal.run("plugin", "validate", plugin)

    (plugin / "CHANGELOG.md").write_text("soon")
    manifest = plugin / "plugin.toml"
    manifest.write_text(manifest.read_text().replace("Apache-2.0", "free for all"))
    told = terminal.run("plugin", "validate", plugin, code=EXIT_REFUSED)
    assert "would be refused" in told
    assert "[license]" in told
    seen = terminal.json("plugin", "validate", plugin, code=EXIT_REFUSED)
    assert {each["rule"]: each["enforced"] for each in seen["findings"]} == {"license": True, "changelog": False}


def test_publishing_tells_what_is_only_monitored_and_the_release_keeps_it(terminal: Terminal, plugin: Path) -> None:
    (plugin / "CHANGELOG.md").write_text("soon")
    file = sign(terminal, plugin)
    (finding,) = terminal.json("plugin", "publish", file)["findings"]
    assert (finding["rule"], finding["enforced"]) == ("changelog", False)
    assert terminal.registry.reader.findings("acme/guard", "1.0.0") == [finding]
    assert "CHANGELOG.md has no heading" in terminal.run("plugin", "publish", file)


def test_the_rules_of_the_marketplace_can_be_read(terminal: Terminal) -> None:
    states = {each["id"]: each for each in terminal.json("plugin", "rules")}
    assert states["kind"]["fixed"]
    assert states["changelog"]["mode"] == "monitored"
    assert "version-growth:" in terminal.run("plugin", "rules")


def test_a_bare_package_file_verifies_too(terminal: Terminal, plugin: Path) -> None:
    file = sign(terminal, plugin)
    terminal.run("plugin", "publish", file)
    file.with_name(file.name + ".sig.json").unlink()
    assert terminal.json("plugin", "verify", file)["verified"] is True


def test_signing_a_package_again_gives_the_same_signature(terminal: Terminal, plugin: Path) -> None:
    file = sign(terminal, plugin)
    signature = file.with_name(file.name + ".sig.json")
    before = signature.read_bytes()
    signature.unlink()
    terminal.run("plugin", "sign", file)
    assert signature.read_bytes() == before


def test_publish_takes_the_newest_package_of_the_folder(
    terminal: Terminal, plugin: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(plugin)
    assert "keelstone plugin sign" in terminal.run("plugin", "publish", code=EXIT_FAILED)
    sign(terminal, plugin)
    assert terminal.json("plugin", "publish")["receipt"]["version"] == "1.0.0"


def test_what_a_signature_forbids_exits_as_refused(terminal: Terminal, plugin: Path) -> None:
    file = sign(terminal, plugin)
    unpublished = terminal.json("plugin", "verify", file, code=EXIT_REFUSED)
    assert (unpublished["error"]["code"], unpublished["error"]["link"]) == ("verification", "namespace")
    terminal.run("plugin", "publish", file)

    whole = file.read_bytes()
    file.write_bytes(whole[:-1])
    assert terminal.json("plugin", "verify", file, code=EXIT_FAILED)["error"]["code"] == "package-corrupt"
    file.write_bytes(whole)
    signature = file.with_name(file.name + ".sig.json")
    signature.write_text("{}")
    assert terminal.json("plugin", "publish", file, code=EXIT_REFUSED)["error"]["code"] == "signature-invalid"
    signature.unlink()
    assert terminal.json("plugin", "publish", file, code=EXIT_REFUSED)["error"]["code"] == "signature-missing"


def test_another_publishers_namespace_is_refused(terminal: Terminal, plugin: Path, home: Path) -> None:
    terminal.run("plugin", "publish", sign(terminal, plugin))
    (home / "keys" / "acme.pem").rename(home / "acme.old")
    terminal.run("plugin", "keygen", "acme")
    (plugin / "README.md").write_text("# Changed\n")
    file = Path(terminal.json("plugin", "sign", plugin)["file"])
    refused = terminal.json("plugin", "publish", file, code=EXIT_REFUSED)
    assert refused["error"]["code"] == "signer-unknown"


def test_what_is_missing_says_what_to_do(terminal: Terminal, plugin: Path) -> None:
    assert "keelstone plugin keygen acme" in terminal.run("plugin", "sign", plugin, code=EXIT_FAILED)
    terminal.run("plugin", "keygen", "acme")
    assert "already" in terminal.run("plugin", "keygen", "acme", code=EXIT_FAILED)
    (plugin / "build" / "guard.component.wasm").unlink()
    assert "keelstone plugin build" in terminal.run("plugin", "sign", plugin, code=EXIT_FAILED)
    assert "no file" in terminal.run("plugin", "verify", plugin / "none.keelstone", code=EXIT_FAILED)
    assert terminal.json("plugin", "keygen", "../x", code=EXIT_FAILED)["error"]["code"] == "validation"


def test_an_oversized_file_is_refused_without_reading_it(
    terminal: Terminal, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KEELSTONE_MAX_PACKAGE_MB", "1")
    big = tmp_path / "big.keelstone"
    with big.open("wb") as file:
        file.truncate(3_000_000_000)
    assert terminal.json("plugin", "verify", big, code=EXIT_FAILED)["error"]["code"] == "package-too-large"


def test_search_and_info_show_what_is_asked_for(terminal: Terminal, plugin: Path) -> None:
    assert "Nothing found" in terminal.run("marketplace", "search", "guard")
    terminal.run("plugin", "publish", sign(terminal, plugin))
    assert "acme/guard" in terminal.run("marketplace", "search", "guard")
    assert [e["id"] for e in terminal.json("marketplace", "search")["results"]] == ["acme/guard"]
    text = terminal.run("marketplace", "info", "acme/guard")
    assert "Writes down what it refused." in text
    assert terminal.json("marketplace", "info", "acme/guard")["manifest"]["id"] == "acme/guard"
    assert "no plugin acme/other" in terminal.run("marketplace", "info", "acme/other", code=EXIT_FAILED)


def test_a_publishers_words_are_not_markup(terminal: Terminal, plugin: Path) -> None:
    text = (plugin / "plugin.toml").read_text().replace("Keeps unwanted", "[red]Keeps[/red] [link=x]unwanted")
    (plugin / "plugin.toml").write_text(text)
    terminal.run("plugin", "publish", sign(terminal, plugin))
    assert "[red]Keeps[/red]" in terminal.run("marketplace", "search", "guard")


def test_a_release_is_withdrawn_by_its_author(terminal: Terminal, plugin: Path) -> None:
    file = sign(terminal, plugin)
    terminal.run("plugin", "publish", file)
    assert "yanked" in terminal.run("plugin", "yank", "acme/guard", "1.0.0", "--reason", "it bites")
    assert "it bites" in terminal.run("marketplace", "info", "acme/guard")
    assert any("it bites" in line for line in terminal.json("plugin", "verify", file)["chain"])


def test_an_author_advises_against_a_plugin_and_takes_it_back(terminal: Terminal, plugin: Path) -> None:
    file = sign(terminal, plugin)
    terminal.run("plugin", "publish", file)
    terminal.run("plugin", "deprecate", "acme/guard", code=EXIT_FAILED)
    told = terminal.run("plugin", "deprecate", "acme/guard", "--reason", "nobody [red]looks[/red] after it")
    assert "nobody [red]looks[/red] after it" in told
    assert "Deprecated: nobody [red]looks[/red] after it" in terminal.run("marketplace", "info", "acme/guard")
    assert "(deprecated)" in terminal.run("marketplace", "search", "guard")
    assert "is deprecated since" in terminal.run("plugin", "verify", file)
    assert terminal.json("plugin", "deprecate", "acme/guard", "--undo")["reason"] is None
    assert "deprecated" not in terminal.run("marketplace", "search", "guard").lower()


def test_what_a_namespace_says_is_signed_by_two_where_its_releases_are(
    terminal: Terminal, plugin: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    terminal.run("plugin", "publish", sign(terminal, plugin))
    terminal.run("plugin", "keygen", "acme", "--name", "second")
    two = tmp_path / "two.json"
    terminal.run("plugin", "keys", "propose", "acme", "--add", "acme.second", "--threshold", "2", "--out", two)
    terminal.run("plugin", "keys", "sign", two)
    terminal.run("plugin", "keys", "submit", two)
    monkeypatch.chdir(tmp_path)
    words = ("plugin", "statement")
    for said, file, done in (
        (("deprecate", "acme/guard", "--reason", "nobody cares"), "acme-guard.deprecate.json", "nobody cares"),
        (("yank", "acme/guard", "1.0.0", "--reason", "it bites"), "acme-guard-1.0.0.yank.json", "it bites"),
    ):
        before = terminal.run("marketplace", "info", "acme/guard")
        refused = terminal.json("plugin", *said, code=EXIT_REFUSED)["error"]
        assert (refused["code"], refused["expected"][:6]) == ("signature-invalid", "1 more")
        assert f"statement sign {file}" in refused["fix"]
        assert terminal.json(*words, "submit", file, code=EXIT_REFUSED)["error"]["code"] == "signature-invalid"
        # The same person once more is still one person.
        terminal.run(*words, "sign", file)
        terminal.run(*words, "submit", file, code=EXIT_REFUSED)
        assert terminal.run("marketplace", "info", "acme/guard") == before
        shown = terminal.json(*words, "sign", file, "--key", "acme.second")
        assert (len(shown["signers"]), shown["says"]["reason"]) == (2, done)
        assert f"submit {file}" in terminal.run(*words, "sign", file, "--key", "acme.second")
        terminal.run(*words, "submit", file)
        assert done in terminal.run("marketplace", "info", "acme/guard")
    (tmp_path / "package.json").write_bytes(two.read_bytes())
    assert "no statement" in terminal.run(*words, "sign", "package.json", code=EXIT_FAILED)


def test_a_pinned_root_decides_about_a_service(
    terminal: Terminal, plugin: Path, home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = sign(terminal, plugin)
    terminal.run("plugin", "publish", file)
    embedded = terminal.json("plugin", "verify", file)
    stranger = Registry.open(tmp_path / "stranger")
    root = tmp_path / "root.json"
    root.write_bytes(stranger.trusted_root)
    asyncio.run(stranger.close())
    pinned = terminal.json("marketplace", "trust", root)
    assert (pinned["threshold"], len(pinned["keys"])) == (2, 3)
    assert terminal.json("plugin", "verify", file) == embedded  # the embedded registry has its own

    monkeypatch.setenv("KEELSTONE_MARKETPLACE_URL", "http://127.0.0.1:1")
    refused = terminal.json("plugin", "verify", file, code=EXIT_REFUSED)
    assert refused["error"]["link"] == "timestamp"
    terminal.run("marketplace", "trust", home / "marketplace" / "root.json")
    unplugged = terminal.json("plugin", "verify", file)
    assert unplugged["chain"] == embedded["chain"]
    assert "not reached" in unplugged["notes"][0]


def test_only_a_root_signed_by_its_own_keys_is_pinned(terminal: Terminal, home: Path, tmp_path: Path) -> None:
    body = json.loads((home / "marketplace" / "root.json").read_bytes())
    body["signed"]["version"] = 7
    for content in (json.dumps(body), "{}", "nonsense"):
        (tmp_path / "root.json").write_text(content)
        refused = terminal.json("marketplace", "trust", tmp_path / "root.json", code=EXIT_REFUSED)
        assert refused["error"]["link"] == "root"
    assert not (home / "trusted-root.json").exists()
    assert terminal.json("marketplace", "trust", code=EXIT_FAILED)["error"]["code"] == "validation"
    assert terminal.json("marketplace", "trust", tmp_path / "none", code=EXIT_FAILED)["error"]["code"] == "not-found"


def test_a_marketplace_out_of_reach_exits_as_such(
    terminal: Terminal, plugin: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = sign(terminal, plugin)
    monkeypatch.setenv("KEELSTONE_MARKETPLACE_URL", "http://127.0.0.1:1")
    assert "does not answer" in terminal.run("plugin", "publish", file, code=EXIT_UNREACHABLE)
    assert "does not answer" in terminal.run("marketplace", "search", code=EXIT_UNREACHABLE)
    first = terminal.json("marketplace", "trust", "--first-use", code=EXIT_UNREACHABLE)
    assert first["error"]["code"] == "backend-unavailable"
    assert "Pin" in terminal.run("plugin", "verify", file, code=EXIT_REFUSED)


# ------------------------------------------------------------------------------ the log


def test_anybody_audits_the_log_from_where_they_last_looked(terminal: Terminal, plugin: Path) -> None:
    terminal.run("plugin", "publish", sign(terminal, plugin))
    found = terminal.json("marketplace", "audit")
    assert (found["before"], found["entries"], found["kinds"]) == (0, 2, {"keys": 1, "publish": 1})
    assert [entry["index"] for entry in found["newest"]] == [1, 0]
    assert found["newest"][0]["plugin"] == "acme/guard"
    assert "0 new since entry 2." in terminal.run("marketplace", "audit")
    terminal.run("plugin", "yank", "acme/guard", "1.0.0", "--reason", "it bites")
    told = terminal.run("marketplace", "audit")
    assert "1 new since entry 2: 1 yank." in told
    assert found["key"] in told
    assert "3 new since entry 0" in terminal.run("marketplace", "audit", "--whole")
    assert terminal.json("marketplace", "audit", "--whole", "--publisher", "globex")["newest"] == []


def release(terminal: Terminal, plugin: Path, version: str) -> Path:
    """The signed package of another version of ``plugin``."""
    manifest = plugin / "plugin.toml"
    lines = manifest.read_text().splitlines()
    manifest.write_text("\n".join(f'version = "{version}"' if x.startswith("version") else x for x in lines))
    return Path(terminal.json("plugin", "sign", built(plugin))["file"])


def test_a_forked_log_ends_an_audit_and_a_publish_with_refused(terminal: Terminal, plugin: Path, home: Path) -> None:
    terminal.run("plugin", "publish", sign(terminal, plugin))
    terminal.close()
    before = home.parent / "before"
    shutil.copytree(home / "marketplace", before)
    honest = Terminal(home)
    honest.run("plugin", "publish", release(honest, plugin, "1.0.1"))
    assert honest.json("marketplace", "audit")["entries"] == 3
    honest.close()
    shutil.rmtree(home / "marketplace")
    shutil.copytree(before, home / "marketplace")
    forked = Terminal(home)
    for version in ("1.0.2", "1.0.3"):
        forked.json("plugin", "publish", release(forked, plugin, version), code=EXIT_REFUSED)
    error = forked.json("marketplace", "audit", code=EXIT_REFUSED)["error"]
    assert (error["code"], error["link"]) == ("log-inconsistent", "log")
    assert "Keep both checkpoints" in forked.run("marketplace", "audit", code=EXIT_REFUSED)
    forked.close()


def test_a_proof_is_saved_and_checked_without_the_network(
    terminal: Terminal, plugin: Path, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    terminal.run("plugin", "publish", sign(terminal, plugin))
    proof = home.parent / "guard.proof.json"
    saved = terminal.json("marketplace", "proof", "acme/guard", "1.0.0", "-o", proof)
    assert (saved["index"], saved["entry"]["kind"], saved["file"]) == (1, "publish", str(proof))
    assert "1: publish acme/guard 1.0.0" in terminal.run("marketplace", "proof", "acme/guard", "1.0.0", "-o", proof)
    key = terminal.json("marketplace", "audit")["key"]
    terminal.run("marketplace", "trust", home / "marketplace" / "root.json")
    monkeypatch.setenv("KEELSTONE_MARKETPLACE_URL", "http://127.0.0.1:1")
    assert "The entry is in the log." in terminal.run("marketplace", "check-proof", proof)
    checked = terminal.json("marketplace", "check-proof", proof)
    assert (checked["proved"], checked["checkpoint"]["size"]) == (True, 2)
    # Somebody who knows nothing but the log's key can check it, too.
    monkeypatch.setenv("KEELSTONE_HOME", str(home.parent / "elsewhere"))
    assert terminal.json("marketplace", "check-proof", proof, "--key", key) == checked
    other = terminal.json("marketplace", "witness", "--key-only")["witness"]
    refused = terminal.json("marketplace", "check-proof", proof, "--key", other, code=EXIT_REFUSED)
    assert refused["error"]["link"] == "log"
    proof.write_text(proof.read_text().replace("acme/guard", "acme/gourd"))
    terminal.run("marketplace", "check-proof", proof, "--key", key, code=EXIT_REFUSED)
    terminal.run("marketplace", "check-proof", home / "none", code=EXIT_FAILED)


def test_any_entry_can_be_proved_by_its_number(terminal: Terminal, plugin: Path, home: Path) -> None:
    terminal.run("plugin", "publish", sign(terminal, plugin))
    terminal.run("plugin", "yank", "acme/guard", "1.0.0", "--reason", "it bites")
    proof = home.parent / "yank.proof.json"
    assert "2: yank acme/guard 1.0.0" in terminal.run("marketplace", "proof", "--entry", "2", "-o", proof)
    assert terminal.json("marketplace", "check-proof", proof)["entry"]["kind"] == "yank"
    assert json.loads(proof.read_bytes())["statement"]["payloadType"] == "application/vnd.in-toto+json"
    terminal.run("marketplace", "proof", "--entry", "3", "-o", proof, code=EXIT_REFUSED)


def test_only_what_was_released_has_a_proof(terminal: Terminal, tmp_path: Path) -> None:
    proof = tmp_path / "proof.json"
    refused = terminal.json("marketplace", "proof", "acme/guard", "9.0.0", "-o", proof, code=EXIT_REFUSED)
    assert "not among the log's first" in refused["error"]["detail"]
    for words in (("Acme", "1.0.0"), ("acme/guard", "new"), ("acme/guard",), (), ("a/b", "1.0.0", "--entry", "1")):
        terminal.run("marketplace", "proof", *words, "-o", proof, code=EXIT_FAILED)
    assert not proof.exists()


def test_a_witness_is_named_by_the_operator_and_asked_for_by_a_user(
    home: Path, plugin: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = Terminal(home)
    vkey = first.json("marketplace", "witness", "--key-only")["witness"]
    file = sign(first, plugin)
    first.run("plugin", "publish", file)
    refused = first.json("marketplace", "witness", code=EXIT_REFUSED)
    assert refused["error"]["code"] == "signer-unknown"
    first.close()

    monkeypatch.setenv("KEELSTONE_MARKETPLACE_WITNESSES", vkey)
    monkeypatch.setenv("KEELSTONE_MARKETPLACE_WITNESSES_NEEDED", "1")
    terminal = Terminal(home)
    assert "too few witnesses" in terminal.run("plugin", "verify", file, code=EXIT_REFUSED)
    signed = terminal.json("marketplace", "witness")
    assert (signed["witness"], signed["checkpoint"]["size"]) == (vkey, 2)
    assert f"seen by {vkey.partition('+')[0]}" in terminal.run("plugin", "verify", file)
    assert vkey in terminal.run("marketplace", "witness")
    terminal.close()


@pytest.mark.parametrize(
    ("witnesses", "needed", "problem"),
    [("nobody", "0", "does not name a key"), ("", "1", "More witnesses are needed than are named")],
)
def test_witnesses_that_cannot_be_are_refused(
    terminal: Terminal, monkeypatch: pytest.MonkeyPatch, witnesses: str, needed: str, problem: str
) -> None:
    monkeypatch.setenv("KEELSTONE_MARKETPLACE_WITNESSES", witnesses)
    monkeypatch.setenv("KEELSTONE_MARKETPLACE_WITNESSES_NEEDED", needed)
    assert problem in terminal.run("marketplace", "audit", code=EXIT_FAILED)


def test_a_log_is_no_witness(terminal: Terminal, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KEELSTONE_MARKETPLACE_WITNESSES", terminal.json("marketplace", "audit")["key"])
    assert "names the key of a log" in terminal.run("marketplace", "audit", code=EXIT_FAILED)
