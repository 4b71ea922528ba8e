"""The plugin state machine: total, closed, and refusing in words."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kernel.errors import LifecycleError
from kernel.lifecycle import (
    RUNNING,
    ActivationState,
    ReleaseState,
    next_activation_state,
    next_release_state,
    transitions,
)

TABLE = transitions()
RELEASE = {(s, t): to for s, t, to in TABLE["release"]}
ACTIVATION = {(s, t): to for s, t, to in TABLE["activation"]}
names = st.sampled_from(sorted({t for _, t in [*RELEASE, *ACTIVATION]} | {"explode", ""}))


@given(st.sampled_from(ReleaseState), names)
def test_a_release_moves_by_the_table_or_is_told_what_is_possible(state, transition):
    if (state, transition) in RELEASE:
        assert next_release_state(state, transition, plugin="acme/x1") == RELEASE[state, transition]
        return
    with pytest.raises(LifecycleError) as caught:
        next_release_state(state, transition, plugin="acme/x1")
    possible = sorted(t for s, t in RELEASE if s == state)
    assert all(name in str(caught.value.expected) for name in possible)
    assert caught.value.plugin == "acme/x1"


@given(st.sampled_from(ActivationState), names)
def test_an_activation_moves_by_the_table_or_is_told_what_is_possible(state, transition):
    if (state, transition) in ACTIVATION:
        moved = next_activation_state(state, transition, plugin="acme/x1", tenant="acme")
        assert moved == ACTIVATION[state, transition]
        return
    with pytest.raises(LifecycleError) as caught:
        next_activation_state(state, transition, plugin="acme/x1", tenant="acme")
    assert str(state) in caught.value.detail
    assert caught.value.tenant == "acme"


@given(st.lists(names, max_size=30))
def test_no_walk_activates_what_was_never_consented_or_switched_off_before(walk):
    state = ActivationState.REMOVED
    consented = False
    for transition in walk:
        try:
            after = next_activation_state(state, transition, plugin="acme/x1", tenant="acme")
        except LifecycleError:
            continue
        consented = consented or after is ActivationState.CONSENTED
        if after in RUNNING:
            assert consented
        if after is ActivationState.REMOVED:
            consented = False
        state = after


@given(st.lists(names, max_size=30))
def test_no_walk_installs_what_was_never_verified(walk):
    state, verified = ReleaseState.UPLOADED, False
    for transition in walk:
        try:
            state = next_release_state(state, transition, plugin="acme/x1")
        except LifecycleError:
            continue
        verified = verified or state is ReleaseState.VERIFIED
        if state is ReleaseState.INSTALLED:
            assert verified


def test_a_quarantined_release_is_out_of_use_until_released():
    state = next_release_state(ReleaseState.INSTALLED, "quarantine", plugin="acme/x1")
    assert state is ReleaseState.QUARANTINED
    with pytest.raises(LifecycleError):
        next_release_state(state, "install", plugin="acme/x1")
    assert next_release_state(state, "release", plugin="acme/x1") is ReleaseState.UPLOADED, "to be verified anew"


def test_every_state_can_be_reached_and_every_running_state_can_be_left():
    reached = {ActivationState.REMOVED} | {ActivationState(to) for to in ACTIVATION.values()}
    assert reached == set(ActivationState)
    for state in RUNNING:
        assert ACTIVATION[state, "disable"] == ActivationState.DISABLED
    assert {ReleaseState.UPLOADED} | {ReleaseState(to) for to in RELEASE.values()} == set(ReleaseState)
