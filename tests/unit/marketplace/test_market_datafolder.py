"""Changing the registry in the data folder from the command line: under the operator's rules, if it is there."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from kernel.errors import NotFound
from kernel.settings import Settings
from marketplace.connect import registry_folder
from marketplace.datafolder import change, reading
from marketplace.keys import generate_key
from marketplace.namespaces import make_key_set
from marketplace.registry import Registry
from marketplace.testing import make_signed, write_plugin


def test_where_there_is_none_it_says_so_and_makes_none(tmp_path: Path) -> None:
    settings = Settings(home=tmp_path)
    with pytest.raises(NotFound, match="no marketplace in this data folder"), reading(settings):
        pass
    with pytest.raises(NotFound, match="no marketplace in this data folder"):
        change(settings, lambda registry: registry.renew())
    assert not registry_folder(settings).exists()


def test_a_verdict_is_given_under_the_operators_rules(tmp_path: Path) -> None:
    settings, key = Settings(home=tmp_path, marketplace_rules={"similar-name": "review"}), generate_key()

    async def hold() -> str:
        registry = Registry.open(registry_folder(settings), rules=settings.marketplace_rules)
        states = []
        for plugin in ("acme/email-guard", "globex/emall-guard"):
            await registry.register_namespace(make_key_set(plugin.partition("/")[0], [key]).document)
            signed = make_signed(write_plugin(tmp_path / plugin, plugin), key)
            states.append(await registry.publish(signed.package.data, signed.envelope))
        await registry.close()
        assert [each.state for each in states] == ["live", "quarantined"]
        return states[1].digest

    digest = asyncio.run(hold())
    decided = change(
        settings, lambda registry: registry.decide(digest, approved=True, reason="they are friends", reviewer="ada")
    )
    assert decided.state == "live"
