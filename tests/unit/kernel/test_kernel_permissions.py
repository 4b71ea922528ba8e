"""Who may do what: deny is the default, and more rights never take one away."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kernel.context import ANONYMOUS, PLATFORM_TENANT, Principal, system_principal
from kernel.errors import Forbidden, TenantMismatch, Unauthenticated
from kernel.permissions import (
    SELF,
    Permission,
    acting_tenant,
    declared_permissions,
    grants,
    permissions_of,
    require,
    roles_table,
)
from tests.support.manifests import make_manifest

names = st.sampled_from(["users:read", "users:write", "plugins:install", "users:*", "plugins:*", "*"])
plain = st.sampled_from(["users:read", "users:write", "plugins:install", "self:read"])
roles = st.frozensets(st.sampled_from(["operator", "admin", "member", "stranger"]))
declared = st.lists(
    st.builds(Permission, plain, st.just("why"), st.frozensets(st.sampled_from(["admin", "member"]))),
    max_size=6,
)


@given(st.frozensets(names), st.frozensets(names), plain)
def test_more_permissions_never_take_one_away(held, more, wanted):
    if grants(held, wanted):
        assert grants(held | more, wanted)


@given(roles, roles, declared)
def test_more_roles_never_take_a_permission_away(some, more, permissions):
    fewer = permissions_of(some, permissions)
    grown = permissions_of(some | more, permissions)
    assert all(grants(grown, name) for name in fewer)


@given(roles, declared, declared)
def test_a_further_plugin_never_takes_a_permission_away(some, permissions, more):
    before = permissions_of(some, permissions)
    after = permissions_of(some, [*permissions, *more])
    assert all(grants(after, name) for name in before)


@given(plain)
def test_nothing_is_held_by_default(wanted):
    assert not grants([], wanted)
    assert not grants(["user:read", "users", "users:", "USERS:READ"], wanted)


def test_an_area_covers_its_actions_and_no_others():
    assert grants(["users:*"], "users:read")
    assert not grants(["users:*"], "users2:read")
    assert not grants(["users:*"], "plugins:read")


def person(tenant="acme", permissions=("users:read",), kind="user"):
    return Principal("u1", kind, tenant, permissions=frozenset(permissions))


def test_the_anonymous_are_asked_to_sign_in_and_the_others_told_what_they_lack():
    with pytest.raises(Unauthenticated):
        require(ANONYMOUS, SELF)
    with pytest.raises(Forbidden) as caught:
        require(person(), "users:write")
    assert caught.value.expected == "users:write"
    require(person(), "users:read")
    require(person(permissions=()), SELF)


def test_only_operators_act_in_a_tenant_that_is_not_their_own():
    operator = person(PLATFORM_TENANT, {"*"})
    assert acting_tenant(operator, "acme") == "acme"
    assert acting_tenant(person(), None) == "acme"
    assert acting_tenant(person(), "acme") == "acme"
    for impostor in (person(permissions={"*"}), person(PLATFORM_TENANT, {"users:*"}), person("globex")):
        with pytest.raises(TenantMismatch) as caught:
            acting_tenant(impostor, "initech")
        assert "exist" not in caught.value.detail


def test_nobody_acts_in_every_tenant_at_once():
    for principal in (person(PLATFORM_TENANT, {"*"}), person("*", {"*"}), system_principal("*")):
        with pytest.raises(TenantMismatch):
            acting_tenant(principal, "*")


def test_manifests_declare_permissions_and_the_roles_that_have_them():
    manifest = make_manifest(
        kind="builtin",
        permissions={
            "leads:read": {"summary": "See leads.", "roles": ["member", "admin"]},
            "leads:write": {"summary": "Change leads."},
            "leads:purge": {"summary": "Purge leads.", "roles": []},
        },
    )
    found = declared_permissions([manifest])
    assert [p.name for p in found] == ["leads:purge", "leads:read", "leads:write"]
    assert roles_table(found) == {
        "operator": ["*"],
        "admin": ["leads:read", "leads:write"],
        "member": ["leads:read"],
    }
