"""People: rules without a database, and use cases over fakes."""

from __future__ import annotations

from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from plugin_sdk import (
    Activations,
    ConcurrencyConflict,
    Conflict,
    Context,
    Dispatcher,
    Forbidden,
    NotFound,
    Principal,
    Reject,
    Rejected,
    ServiceMissing,
    UserDraft,
    ValidationFailed,
    hookimpl,
)
from plugin_sdk.testing import FakeTransaction
from plugins.builtin.users import domain
from plugins.builtin.users.application import Users
from tests.support.manifests import make_manifest

NOW = datetime(2026, 1, 1, tzinfo=UTC)
LATER = datetime(2026, 1, 2, tzinfo=UTC)
ADMIN = Principal("boss", "user", "acme", frozenset({"admin"}), frozenset({"users:write"}))


def person(**changes) -> domain.User:
    base = domain.User("u1", "ada@example.com", "Ada", NOW, NOW, {"n": 0}, {"theme": "dark"})
    return replace(base, **changes)


# ---------------------------------------------------------------------------- rules


@pytest.mark.parametrize(
    ("given", "kept"),
    [
        ("ada@example.com", "ada@example.com"),
        ("  Ada.L+tag@EXAMPLE.Com ", "Ada.L+tag@example.com"),
        ("a@sub.example.co.uk", "a@sub.example.co.uk"),
        ("a'b@example.com", "a'b@example.com"),
    ],
)
def test_an_address_is_tidied(given, kept):
    assert domain.check(UserDraft(email=given, name=" Ada \t L ")).email == kept
    assert domain.check(UserDraft(email=given, name=" Ada \t L ")).name == "Ada L"


@given(st.emails(domains=st.sampled_from(["example.com", "EXAMPLE.org"])))
def test_tidying_twice_is_tidying_once(address):
    try:
        once = domain.check(UserDraft(email=address, name="A"))
    except ValidationFailed:
        return
    assert domain.check(once) == once
    assert once.email.partition("@")[0] == address.partition("@")[0], "only the host's case is nobody's business"


@pytest.mark.parametrize(
    "email", ["@example.com", "aa@", "a@b", "a b@example.com", "a@example..com", "a@-x.com", "a@x.c"]
)
def test_what_is_no_address_is_refused(email):
    with pytest.raises(ValidationFailed) as caught:
        domain.check(UserDraft(email=email, name="Ada"))
    assert caught.value.found == email


def test_a_change_names_what_changed_and_nothing_is_no_change():
    draft = UserDraft(email="ada@example.com", name="Countess", attributes={"n": 0})
    after, event = domain.change(person(), draft, LATER)
    assert (after.name, after.version, after.updated_at, after.created_at) == ("Countess", 2, LATER, NOW)
    assert event.data["changed"] == ["name"]
    same, none = domain.change(after, draft, LATER)
    assert same is after
    assert none is None


@given(
    st.dictionaries(st.sampled_from("abc"), st.sampled_from([0, False, "", None, 1, []]), max_size=3),
    st.dictionaries(st.sampled_from("abc"), st.sampled_from([0, False, "", None, 1, []]), max_size=3),
)
def test_preferences_merge_and_only_none_takes_away(before, given):
    before = {k: v for k, v in before.items() if v is not None}
    after, event = domain.prefer(person(preferences=before), given, LATER)
    expected = {k: v for k, v in {**before, **given}.items() if v is not None}
    assert dict(after.preferences) == expected
    assert (event is None) == (expected == before)


# ---------------------------------------------------------------------------- use cases


class FakeDatabase:
    """Transactions of nothing, in which nothing is undone: what must not happen must not be tried."""

    dialect = "sqlite"

    def __init__(self) -> None:
        self.committed: list[FakeTransaction] = []

    @asynccontextmanager
    async def read(self, scope):
        yield FakeTransaction(scope)

    @asynccontextmanager
    async def write(self, scope, context=None):
        transaction = FakeTransaction(scope)
        yield transaction
        self.committed.append(transaction)

    @property
    def events(self) -> list[str]:
        return [event.type for t in self.committed for _, event in t.emitted]


class FakeUsers:
    def __init__(self) -> None:
        self.people: dict[tuple[str, str], domain.User] = {}

    async def add(self, transaction, user):
        if any(t == transaction.scope and u.email == user.email for (t, _), u in self.people.items()):
            raise Conflict("taken")
        self.people[transaction.scope, user.id] = user

    async def save(self, transaction, user, seen):
        if self.people[transaction.scope, user.id].version != seen:
            return False
        self.people[transaction.scope, user.id] = user
        return True

    async def remove(self, transaction, id):
        return self.people.pop((transaction.scope, id), None) is not None

    async def get(self, transaction, id):
        return self.people.get((transaction.scope, id))

    async def page(self, transaction, after, limit, email):
        mine = [u for (t, _), u in sorted(self.people.items()) if t == transaction.scope]
        return [u for u in mine if (after is None or u.id > after) and (email is None or u.email == email)][:limit]


class FakeCredentials:
    def __init__(self) -> None:
        self.calls: list[tuple] = []

    def check_grantable(self, context, roles):
        if "operator" in roles:
            raise Forbidden("You can't give rights that you don't have.")

    async def hash_password(self, password):
        return f"hashed {len(password)}"

    async def set_password(self, transaction, tenant, user, email, password):
        self.calls.append(("password", tenant, email))

    async def rename(self, transaction, tenant, user, email):
        self.calls.append(("rename", tenant, email))

    async def remove(self, transaction, tenant, user):
        self.calls.append(("remove", tenant, user))

    async def assign_roles(self, transaction, tenant, user, roles):
        self.calls.append(("roles", tenant, tuple(roles)))


class Bench:
    def __init__(self, credentials: FakeCredentials | None = None) -> None:
        self.database, self.people, self.credentials = FakeDatabase(), FakeUsers(), credentials
        self.hooks = Dispatcher(Activations())
        self.users = Users(self.database, self.people, self.hooks, lambda: self.credentials, lambda: NOW)
        self.context = Context("acme", ADMIN)

    def filter(self, hook, function):
        plugin = type("plugin", (), {hook: staticmethod(hookimpl(function))})()
        self.hooks.register(plugin, make_manifest("acme/filter", kind="builtin"))

    async def made(self, **changes):
        return await self.users.create(self.context, **{"email": "ada@example.com", "name": "Ada", **changes})


@pytest.fixture
def bench() -> Bench:
    return Bench(FakeCredentials())


async def test_registering_stores_tells_and_keeps_credentials_in_one_commit(bench: Bench):
    user = await bench.made(password="correct horse battery", roles=["member"])
    assert bench.people.people["acme", user.id] == user
    assert bench.credentials.calls == [("password", "acme", "ada@example.com"), ("roles", "acme", ("member",))]
    (transaction,) = bench.database.committed
    assert [(stream, e.type) for stream, e in transaction.emitted] == [(f"user:{user.id}", "user.created")]


async def test_roles_that_may_not_be_given_stop_before_anything_is_tried(bench: Bench):
    with pytest.raises(Forbidden):
        await bench.made(roles=["operator"])
    assert bench.people.people == {}
    assert bench.credentials.calls == []


async def test_without_a_plugin_that_keeps_credentials_passwords_and_roles_are_refused_and_the_rest_works():
    bench = Bench(None)
    for more in ({"password": "correct horse battery"}, {"roles": ["member"]}):
        with pytest.raises(ServiceMissing):
            await bench.made(**more)
    user = await bench.made()
    await bench.users.change(bench.context, user.id, email="new@example.com")
    await bench.users.remove(bench.context, user.id)
    assert bench.database.events == ["user.created", "user.updated", "user.removed"]


async def test_what_a_plugin_changes_is_checked_again(bench: Bench):
    bench.filter("user_creating", lambda payload: payload.model_copy(update={"email": "no address"}))
    with pytest.raises(ValidationFailed):
        await bench.made()
    assert bench.database.committed == []


async def test_a_plugins_refusal_stores_nothing(bench: Bench):
    bench.filter("user_updating", lambda payload: Reject(reason="Not today."))
    user = await bench.made()
    with pytest.raises(Rejected, match="Not today"):
        await bench.users.change(bench.context, user.id, name="B")
    assert bench.people.people["acme", user.id] == user


async def test_changing_an_address_renames_the_credential_and_changing_a_name_does_not(bench: Bench):
    user = await bench.made()
    await bench.users.change(bench.context, user.id, name="B")
    await bench.users.change(bench.context, user.id, email="b@example.com")
    assert bench.credentials.calls == [("rename", "acme", "b@example.com")]


async def test_a_version_that_is_not_the_present_one_is_a_conflict(bench: Bench):
    user = await bench.made()
    for seen in (0, 2):
        with pytest.raises(ConcurrencyConflict):
            await bench.users.change(bench.context, user.id, name="B", seen=seen)
    assert (await bench.users.change(bench.context, user.id, name="B", seen=1)).version == 2


async def test_people_of_another_tenant_are_not_there(bench: Bench):
    user = await bench.made()
    elsewhere = Context("globex", ADMIN)
    for call in (
        bench.users.get(elsewhere, user.id),
        bench.users.change(elsewhere, user.id, name="B"),
        bench.users.prefer(elsewhere, user.id, {"a": 1}),
        bench.users.remove(elsewhere, user.id),
    ):
        with pytest.raises(NotFound):
            await call
    assert await bench.users.page(elsewhere) == []
    assert await bench.users.find("globex", user.id) is None
    assert (await bench.users.find("acme", user.id)).email == "ada@example.com"


@pytest.mark.parametrize("attributes", [[1], "x", {"n": float("nan")}, {"n": 2**64}, {1: 2}])
async def test_attributes_that_are_not_plain_json_are_refused(bench: Bench, attributes):
    with pytest.raises(ValidationFailed):
        await bench.made(attributes=attributes)
