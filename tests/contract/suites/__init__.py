"""Contract suites: one per port, run over every adapter (here on the embedded ones, in tests/connected on servers)."""

import pytest

for _name in ("bus", "consumers", "database", "events", "isolation", "journey", "kv", "migrations", "projections"):
    pytest.register_assert_rewrite(f"tests.contract.suites.{_name}")
