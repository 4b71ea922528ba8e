"""Offline keys lie under a passphrase: who finds a medium has nothing, who knows it signs."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import typer
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import load_pem_private_key
from typer.testing import CliRunner

from kernel.errors import ValidationFailed
from kernel.settings import Settings
from marketplace.cli import register
from marketplace.connect import registry_folder
from marketplace.errors import KeyUnusable
from marketplace.keys import KeyFolder, generate_key
from marketplace.namespaces import make_key_set
from marketplace.ownkeys import OwnKeys
from marketplace.package import component_path
from marketplace.passphrases import OnePassphrase, checked_passphrase, seal
from marketplace.registry import Registry
from marketplace.succession import Step, Succession
from marketplace.testing import EMPTY_COMPONENT, write_plugin
from marketplace.tuf_repository import RepositoryKeys
from plugin_sdk.terminal import CommandTree

WORDS, OTHERS = "correct horse battery staple", "paper clip window river"


def test_a_sealed_key_opens_with_its_passphrase_only_and_says_scrypt() -> None:
    private = Ed25519PrivateKey.generate()
    pem = seal(private, WORDS)
    opened = load_pem_private_key(pem, WORDS.encode())
    assert isinstance(opened, Ed25519PrivateKey)
    assert opened.private_bytes_raw() == private.private_bytes_raw()
    for wrong in (OTHERS, WORDS + " "):
        with pytest.raises(ValueError, match="password"):
            load_pem_private_key(pem, wrong.encode())
    assert seal(private, WORDS) != pem
    with pytest.raises(ValidationFailed, match="too short"):
        checked_passphrase("password")


def test_a_folder_keeps_new_keys_sealed_and_shows_which_they_are(tmp_path: Path) -> None:
    key = KeyFolder(tmp_path, OnePassphrase(WORDS)).create("root-1")
    assert (tmp_path / "root-1.pem").stat().st_mode & 0o777 == 0o600
    assert KeyFolder(tmp_path).sealed("root-1")
    assert KeyFolder(tmp_path).public("root-1") == key.public
    assert KeyFolder(tmp_path).names() == ["root-1"]
    assert KeyFolder(tmp_path, OnePassphrase(WORDS)).load("root-1").id == key.id
    for passphrases, said in (
        (OnePassphrase(OTHERS), "not this key's"),
        (OnePassphrase(None), "none was given"),
        (None, "nobody can be asked"),
    ):
        with pytest.raises(KeyUnusable, match=said):
            KeyFolder(tmp_path, passphrases).load("root-1")


def test_a_public_half_that_was_swapped_gets_no_key_taken_for_another(tmp_path: Path) -> None:
    key = KeyFolder(tmp_path / "medium", OnePassphrase(WORDS)).create("root-1")
    other = generate_key()
    (tmp_path / "medium" / "root-1.public.json").write_text(json.dumps(other.public.to_dict()))
    keys = RepositoryKeys(tmp_path / "keys", OnePassphrase(WORDS))
    assert keys.offline_of([key.id, other.id], [tmp_path / "medium"]) == []


async def test_a_registry_takes_sealed_keys_for_keys_that_are_away(tmp_path: Path, clock: Any) -> None:
    folder = tmp_path / "registry"
    await Registry.open(folder, clock=clock).close()
    for path in (folder / "keys" / "offline").glob("*.pem"):
        private = load_pem_private_key(path.read_bytes(), None)
        assert isinstance(private, Ed25519PrivateKey)
        path.write_bytes(seal(private, WORDS))
        public = KeyFolder(path.parent, OnePassphrase(WORDS)).load(path.stem).public
        path.with_suffix(".public.json").write_text(json.dumps(public.to_dict()))
    clock.advance(700)
    again = Registry.open(folder, clock=clock)
    assert any("its keys are not here" in warning for warning in again.warnings)
    await again.close()


def test_the_ceremony_asks_for_passphrases_on_the_terminal_or_takes_them_from_a_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KEELSTONE_HOME", str(tmp_path / "home"))
    monkeypatch.delenv("KEELSTONE_MARKETPLACE_URL", raising=False)
    folder = registry_folder(Settings(home=tmp_path / "home"))
    Registry.open(folder)._tables.close()
    tree = typer.Typer()
    register(CommandTree(tree, lambda: pytest.fail("a ceremony asks no platform")))

    def run(*words: str | Path, given: str | None = None, code: int = 0) -> Any:
        result = CliRunner().invoke(tree, ["marketplace", "ceremony", *map(str, words)], input=given)
        assert result.exit_code == code, result.output
        return result

    a, b, c, kept, new = (tmp_path / name for name in ("a", "b", "c", "kept", "new"))
    typed = "".join(f"{words}\n" * 2 for words in (WORDS, OTHERS, WORDS, WORDS))
    said = run("begin", given=f"{a}\n{b}\n{c}\n{kept}\ny\n{typed}")
    assert WORDS not in said.output
    shutil.rmtree(folder / "keys" / "offline")
    assert all(KeyFolder(medium).sealed(KeyFolder(medium).names()[0]) for medium in (a, b, c, kept))
    # Seeing who holds what asks for nothing.
    state = {r["role"]: r for r in json.loads(run("status", "--media", a, "--media", kept, "--json").stdout)}
    assert (len(state["root"]["at_hand"]), len(state["targets"]["at_hand"])) == (1, 1)
    run("rotate", "timestamp", "--media", a, "--media", b, given=f"y\n{WORDS}\n{OTHERS}\n")
    before = {path: path.read_bytes() for path in folder.rglob("*.pem")}
    assert (
        "not this key's"
        in run("rotate", "timestamp", "--media", a, "--media", b, given=f"y\n{OTHERS}\n" * 2, code=1).output
    )
    assert {path: path.read_bytes() for path in folder.rglob("*.pem")} == before
    monkeypatch.setenv("KEELSTONE_KEY_PASSPHRASE_FILE", str(tmp_path / "passphrase"))
    run("rotate", "bins", "--media", kept, "--yes", code=1)
    (tmp_path / "passphrase").write_text(f"{WORDS}\n")
    assert "bins" in run("rotate", "bins", "--media", kept, "--yes").stdout
    monkeypatch.setenv("KEELSTONE_KEY_PASSPHRASE", WORDS)
    run("rotate", "targets", "--media", a, "--media", c, "--onto", new, "--yes")
    assert KeyFolder(new).sealed("targets-1")
    monkeypatch.delenv("KEELSTONE_KEY_PASSPHRASE")
    (tmp_path / "passphrase").write_text("short\n")
    assert "too short" in run("rotate", "targets", "--media", a, "--media", c, "--onto", new, "--yes", code=1).output


def test_a_publishers_key_signs_with_its_passphrase_only_and_is_looked_at_without(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KEELSTONE_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("KEELSTONE_KEY_PASSPHRASE_FILE", str(tmp_path / "passphrase"))
    plugin = write_plugin(tmp_path / "guard")
    component = component_path(plugin, "guard")
    component.parent.mkdir(parents=True)
    component.write_bytes(EMPTY_COMPONENT)
    tree = typer.Typer()
    register(CommandTree(tree, lambda: pytest.fail("keys ask no platform")))

    def run(*words: str | Path, code: int = 0) -> Any:
        result = CliRunner().invoke(tree, ["plugin", *map(str, words)])
        assert result.exit_code == code, result.output
        return result

    assert "cannot be read" in run("keygen", "acme", "--passphrase", code=1).output
    (tmp_path / "passphrase").write_text("\n")
    assert "none was given" in run("keygen", "acme", "--passphrase", code=1).output
    (tmp_path / "passphrase").write_text(f"{WORDS}\n")
    made = json.loads(run("keygen", "acme", "--passphrase", "--json").stdout)
    assert KeyFolder(tmp_path / "home" / "keys").sealed("acme")
    signed = json.loads(run("sign", plugin, "--json").stdout)
    assert signed["signers"] == [made["key"]]
    (tmp_path / "passphrase").write_text(f"{OTHERS}\n")
    assert "not this key's" in run("sign", plugin, code=1).output
    monkeypatch.delenv("KEELSTONE_KEY_PASSPHRASE_FILE")
    refused = run("sign", plugin, code=1).output
    assert "none was given" in refused
    assert "KEELSTONE_KEY_PASSPHRASE" in refused
    shown = json.loads(run("keys", "public", "acme", "--out", tmp_path / "acme.pub.json", "--json").stdout)
    assert shown["key"] == made["key"]


def test_a_key_whose_public_half_was_swapped_signs_nothing_in_anothers_place(tmp_path: Path) -> None:
    settings, given = Settings(home=tmp_path), OnePassphrase(WORDS)
    mine = KeyFolder(tmp_path / "keys", given).create("acme")
    other = generate_key()
    own = OwnKeys(settings, "acme", given)
    own.remember(Succession((Step(make_key_set("acme", [other])),)).to_bytes())
    (tmp_path / "keys" / "acme.public.json").write_text(json.dumps(other.public.to_dict()))
    with pytest.raises(KeyUnusable, match="not its own"):
        own.signing()
    assert own.load("acme").id == mine.id
