"""The order of implementations: declared, unique, never the order of registration."""

from __future__ import annotations

import random

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from kernel.errors import Conflict
from kernel.manifest import HookUse
from kernel.ordering import order_plugins

NAMES = [f"acme/p{letter}" for letter in "abcdef"]
uses = st.dictionaries(
    st.sampled_from(NAMES),
    st.builds(
        HookUse,
        before=st.lists(st.sampled_from([*NAMES, "acme/absent"]), max_size=2).map(tuple),
        after=st.lists(st.sampled_from([*NAMES, "acme/absent"]), max_size=2).map(tuple),
    ),
    max_size=6,
)


def edges(found):
    for plugin, use in found.items():
        yield from ((plugin, other) for other in use.before if other in found)
        yield from ((other, plugin) for other in use.after if other in found)


@given(uses, st.randoms(use_true_random=False))
def test_every_declaration_holds_and_registration_order_never_shows(found, shuffle: random.Random):
    try:
        order = order_plugins(found, "user_creating")
    except Conflict:
        with pytest.raises(Conflict):
            order_plugins(shuffled(found, shuffle), "user_creating")
        return
    assert sorted(order) == sorted(found)
    assert all(order.index(first) < order.index(second) for first, second in edges(found))
    assert order_plugins(shuffled(found, shuffle), "user_creating") == order


@given(uses)
def test_a_conflict_is_raised_only_where_there_is_a_circle(found):
    after: dict[str, set[str]] = {plugin: set() for plugin in found}
    for first, second in edges(found):
        after[first].add(second)
    for middle in found:
        for first in found:
            if middle in after[first]:
                after[first] |= after[middle]
    circular = any(plugin in after[plugin] for plugin in found)
    if circular:
        with pytest.raises(Conflict):
            order_plugins(found, "user_creating")
    else:
        order_plugins(found, "user_creating")


@given(st.sets(st.sampled_from(NAMES)))
def test_without_declarations_the_id_decides(names):
    assume(names)
    assert order_plugins(dict.fromkeys(names, HookUse()), "user_creating") == sorted(names)


def test_a_circle_is_told_with_the_hook_and_those_in_it():
    found = {
        "acme/aa": HookUse(before=("acme/bb",)),
        "acme/bb": HookUse(before=("acme/aa",)),
        "acme/cc": HookUse(after=("acme/bb",)),
    }
    with pytest.raises(Conflict) as caught:
        order_plugins(found, "user_creating")
    assert caught.value.hook == "user_creating"
    assert "acme/aa, acme/bb" in caught.value.detail
    assert "acme/cc" not in caught.value.detail, "it only waits behind the circle"


def shuffled(found, shuffle: random.Random):
    items = list(found.items())
    shuffle.shuffle(items)
    return dict(items)
