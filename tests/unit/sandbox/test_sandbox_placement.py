"""A guest goes slowly while nobody knows it, and for a while after it has flooded the host with calls."""

from __future__ import annotations

from sandbox.placement import FIRST_PENANCE, LEAST_CALLS, LONGEST_REST, WINDOW, Placement
from sandbox.policy import FLOODERS_PACE, STRANGERS_PACE, USUAL_PACE


class Clock:
    """Seconds that only a test moves."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def known(clock: Clock) -> Placement:
    """Of a guest whose calls have ended well."""
    placement = Placement(clock)
    for _ in range(LEAST_CALLS):
        placement.note(10)
    return placement


def test_a_stranger_goes_slowly_until_some_of_its_calls_have_ended_well():
    placement = Placement(Clock())
    for _ in range(LEAST_CALLS):
        assert placement.pace() is STRANGERS_PACE
        placement.note(10)
    assert placement.pace() is USUAL_PACE


def test_a_flooder_goes_slowly_until_its_penance_is_over():
    clock = Clock()
    placement = known(clock)
    assert placement.pace() is USUAL_PACE
    placement.flooded()
    assert placement.pace() is FLOODERS_PACE
    clock.now += FIRST_PENANCE
    assert placement.pace() is USUAL_PACE


def test_each_further_flood_doubles_it_up_to_a_bound():
    clock = Clock()
    placement = known(clock)
    for _ in range(20):
        placement.flooded()
    clock.now += LONGEST_REST - 1
    assert placement.pace() is FLOODERS_PACE
    clock.now += 1
    assert placement.pace() is USUAL_PACE


def test_good_calls_halve_the_next_one():
    clock = Clock()
    placement = known(clock)
    placement.flooded()
    for _ in range(WINDOW):
        placement.note(10)
    placement.flooded()
    clock.now += FIRST_PENANCE
    assert placement.pace() is USUAL_PACE


def test_a_known_flooder_does_not_run_on_the_event_loop_where_nobody_can_be_made_to_wait():
    clock = Clock()
    placement = known(clock)
    assert placement.in_place("user_creating")
    placement.flooded()
    assert not placement.in_place("user_creating")
    clock.now += FIRST_PENANCE
    assert placement.in_place("user_creating")
