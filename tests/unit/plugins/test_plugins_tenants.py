"""Tenants: rules without a database."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from plugin_sdk import TenantDraft, ValidationFailed
from plugins.builtin.tenants import domain

NOW = datetime(2026, 1, 1, tzinfo=UTC)


def tenant(**configuration) -> domain.Tenant:
    return domain.Tenant("acme", "Acme", "free", NOW, configuration)


@pytest.mark.parametrize("id", ["platform", "system", "admin", "api", "www"])
def test_reserved_ids_are_nobodys(id):
    with pytest.raises(ValidationFailed, match="reserved"):
        domain.provision(TenantDraft(id=id, name="X"), NOW)


@pytest.mark.parametrize("id", ["*", "", "a", "-ab", "ab-", "Ab", "a_b", "a" * 41, "a.b", "a b", "ä-ö", "ab\n"])
def test_what_cannot_be_an_id_is_refused(id):
    with pytest.raises(ValidationFailed):
        TenantDraft.of(id=id, name="X")


def test_provisioning_tells_who_what_and_on_which_plan():
    made, event = domain.provision(TenantDraft(id="acme", name="Acme", configuration={"seats": 0}), NOW)
    assert made == domain.Tenant("acme", "Acme", "free", NOW, {"seats": 0})
    assert (event.type, event.data) == ("tenant.created", {"tenant": "acme", "name": "Acme", "plan": "free"})
    assert made.stream == "tenant:acme"


values = st.dictionaries(st.sampled_from("abc"), st.sampled_from([0, False, "", None, 1]), max_size=3)


@given(values, values)
def test_configuration_merges_only_none_takes_away_and_no_change_is_no_event(before, given):
    before = {k: v for k, v in before.items() if v is not None}
    after, event = domain.configure(tenant(**before), name=None, plan=None, configuration=given)
    expected = {k: v for k, v in {**before, **given}.items() if v is not None}
    assert dict(after.configuration) == expected
    if expected == before:
        assert event is None
        assert after.version == 1
    else:
        assert event.data["changed"] == ["configuration"]
        assert after.version == 2


def test_a_change_names_what_changed_and_not_the_values():
    _, event = domain.configure(tenant(), name="Acme Inc.", plan="team", configuration={"secret": "x"})
    assert event.data == {"tenant": "acme", "changed": ["name", "plan", "configuration"]}


@pytest.mark.parametrize("configuration", [{f"k{n}": n for n in range(201)}, {"n": float("inf")}, {"t": "\ud800"}])
def test_configuration_that_could_not_be_kept_is_refused(configuration):
    with pytest.raises(ValidationFailed):
        domain.configure(tenant(), name=None, plan=None, configuration=configuration)
