"""Settings: one prefix, a working default each, lists by commas, secrets out of sight."""

from __future__ import annotations

from pathlib import Path

import pytest
from pydantic import ValidationError

from kernel.settings import Settings


@pytest.fixture(autouse=True)
def _nothing_set(monkeypatch):
    import os

    for name in list(os.environ):
        if name.startswith("KEELSTONE_"):
            monkeypatch.delenv(name)


def test_without_any_setting_everything_has_a_default():
    settings = Settings()
    assert settings.home == Path(".keelstone").absolute()
    assert (settings.host, settings.port) == ("127.0.0.1", 8700)
    assert settings.sqlalchemy_url.startswith("sqlite+aiosqlite:///")
    assert settings.plugins_disabled == settings.http_private_allow == ()


def test_the_environment_sets_and_lists_are_split_at_commas(monkeypatch, tmp_path):
    monkeypatch.setenv("KEELSTONE_HOME", str(tmp_path))
    monkeypatch.setenv("KEELSTONE_PLUGINS_DISABLED", " keelstone/users , ,keelstone/catalog")
    monkeypatch.setenv("KEELSTONE_PORT", "0")
    settings = Settings()
    assert settings.home == tmp_path
    assert settings.plugins_disabled == ("keelstone/users", "keelstone/catalog")
    assert settings.port == 0


@pytest.mark.parametrize(
    ("given", "driver"),
    [
        ("postgresql://u:p@h/db", "postgresql+asyncpg://u:p@h/db"),
        ("postgres://u:p@h/db", "postgresql+asyncpg://u:p@h/db"),
        ("sqlite+aiosqlite:///x.db", "sqlite+aiosqlite:///x.db"),
    ],
)
def test_a_database_address_gets_its_async_driver(given, driver):
    assert Settings(database_url=given).sqlalchemy_url == driver


def test_secrets_do_not_show():
    settings = Settings(master_key="c2VjcmV0", token="ks_acme_x.y")
    assert "c2VjcmV0" not in repr(settings)
    assert "ks_acme" not in repr(settings)


@pytest.mark.parametrize(
    "wrong",
    [{"port": 70_000}, {"port": "http"}, {"log_level": "loud"}, {"sandbox_threads": 0}, {"request_timeout_ms": 1}],
)
def test_a_value_out_of_bounds_is_refused(wrong):
    with pytest.raises(ValidationError):
        Settings(**wrong)


def test_settings_do_not_change_and_each_is_described():
    settings = Settings()
    with pytest.raises(ValidationError):
        settings.port = 1
    assert [name for name, field in Settings.model_fields.items() if not field.description] == []
