"""Activation snapshots: canonical, shared, swapped in one step."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kernel.activation import Activations
from kernel.errors import ValidationFailed
from kernel.ports import ActivationRecord

records = st.lists(
    st.builds(
        ActivationRecord,
        tenant=st.sampled_from(["acme", "globex", "initech"]),
        plugin=st.sampled_from(["p/aa", "p/bb", "p/cc"]),
        version=st.sampled_from(["1.0.0", "1.1.0"]),
        grants=st.frozensets(st.sampled_from(["kv", "log", "http"])),
        settings=st.dictionaries(
            st.sampled_from(["a", "b"]), st.sampled_from([0, 1, False, True, "", "x", None, [], {}, 0.0]), max_size=2
        ),
    ),
    unique_by=lambda r: (r.tenant, r.plugin),
    max_size=9,
)


def record(tenant="acme", plugin="p/aa", version="1.0.0", **settings):
    return ActivationRecord(tenant, plugin, version, frozenset(), settings)


@given(records, st.randoms(use_true_random=False))
def test_equal_content_gives_an_equal_generation_in_whatever_order_it_came(given_records, shuffle: random.Random):
    one, two, three = Activations(), Activations(), Activations()
    one.load(given_records)
    shuffled = list(given_records)
    shuffle.shuffle(shuffled)
    two.load(shuffled)
    for tenant in ["globex", "acme", "initech"]:
        three.replace(tenant, [r for r in shuffled if r.tenant == tenant])
    assert one.current.generation == two.current.generation == three.current.generation


@given(records, records)
def test_other_content_gives_another_generation(first, second):
    one, two = Activations(), Activations()
    one.load(first)
    two.load(second)

    def content(found):
        key = [(r.tenant, r.plugin, r.version, sorted(r.grants), repr(sorted(r.settings.items()))) for r in found]
        return sorted(key)

    if content(first) != content(second):
        assert one.current.generation != two.current.generation
    else:
        assert one.current.generation == two.current.generation


@given(records)
def test_a_snapshot_says_what_was_recorded_and_drops_no_falsy_setting(given_records):
    activations = Activations()
    activations.load(given_records)
    found = {
        (tenant, a.plugin): (a.version, a.grants, dict(a.settings))
        for tenant, mine in activations.current.tenants.items()
        for a in mine.activations
    }
    assert found == {(r.tenant, r.plugin): (r.version, r.grants, dict(r.settings)) for r in given_records}


def test_swapping_one_tenant_leaves_the_others_sets_as_they_are():
    activations = Activations()
    activations.load([record("acme"), record("globex")])
    before = activations.current
    after = activations.replace("acme", [record("acme", version="2.0.0")])
    assert after.of("globex") is before.of("globex")
    assert after.of("acme") is not before.of("acme")
    assert before.of("acme").activations[0].version == "1.0.0", "who holds the old set keeps it"


def test_loading_the_same_again_keeps_sets_and_their_ready_tuples():
    activations = Activations()
    activations.load([record("acme"), record("globex", n=1)])
    kept = activations.current.of("acme")
    activations.load([record("globex", n=2), record("acme")])
    assert activations.current.of("acme") is kept


def test_equal_activations_of_many_tenants_are_one_object():
    activations = Activations()
    activations.load([record(f"t{n}", limit=0) for n in range(50)])
    assert len({id(s.activations[0]) for s in activations.current.tenants.values()}) == 1


def test_a_tenant_without_activations_is_served_by_the_default():
    activations = Activations()
    activations.load([record("acme")])
    emptied = activations.replace("acme", [])
    assert emptied.of("acme") is emptied.default
    assert emptied.generation == Activations().current.generation


def test_refresh_gives_new_sets_of_the_same_generation():
    activations = Activations()
    before = activations.load([record("acme")])
    before.of("acme").ready["user_creating"] = ("stale",)
    after = activations.refresh()
    assert after.generation == before.generation
    assert after.of("acme").ready == {}


def test_watchers_see_a_snapshot_once_it_is_the_current_one():
    activations, seen = Activations(), []
    activations.watch(lambda snapshot: seen.append(snapshot is activations.current))
    activations.replace("acme", [record()])
    assert seen == [True]


def test_settings_that_are_not_json_are_refused_and_change_nothing():
    activations = Activations()
    before = activations.load([record("acme")])
    with pytest.raises(ValidationFailed, match="64 bits"):
        activations.replace("acme", [record("acme", n=2**70)])
    assert activations.current is before
