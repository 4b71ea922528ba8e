"""A registry that dies at any step of what ends in quarantine, or of a verdict: nothing half done, nothing lost."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from marketplace.registry import Registry

Bind = Callable[..., Awaitable[None]]
Make = Callable[..., Any]
Open = Callable[..., Registry]
WRITING = ("transaction-begun", "changes-written", "documents-rendered", "committing", "committed")


class Died(Exception):
    """Stands for the process dying at a step."""


def dying_at(step: str) -> Callable[[str], None]:
    def die(at: str) -> None:
        if at == step:
            raise Died(at)

    return die


async def a_fix_of_an_old_line(registry: Registry, register: Bind, make_release: Make) -> Any:
    await register(registry)
    for version in ("1.0.0", "2.0.0"):
        signed = make_release(version=version)
        await registry.publish(signed.package.data, signed.envelope)
    return make_release(version="1.0.1")


@pytest.mark.parametrize("step", ["examined", "blob-stored", *WRITING])
async def test_died_on_the_way_to_quarantine_it_is_held_or_was_never_there(
    open_registry: Open, register: Bind, make_release: Make, step: str
) -> None:
    signed = await a_fix_of_an_old_line(open_registry(), register, make_release)
    with pytest.raises(Died):
        await open_registry(on_step=dying_at(step)).publish(signed.package.data, signed.envelope)
    recovered = open_registry()
    assert len(recovered.reader.reviews.queue()) == (1 if step == "committed" else 0)
    assert recovered.reader.package_path(signed.package.digest) is None
    receipt = await recovered.publish(signed.package.data, signed.envelope)
    assert receipt.state == "quarantined"
    assert await recovered.publish(signed.package.data, signed.envelope) == receipt
    assert [each.digest for each in recovered.reader.reviews.queue()] == [signed.package.digest]


@pytest.mark.parametrize(
    ("step", "approved"),
    [
        *((step, True) for step in (*WRITING, "logged", "metadata-signed")),
        *((step, False) for step in (*WRITING, "logged")),  # a rejection changes nothing that TUF signs
    ],
)
async def test_died_in_a_verdict_it_was_given_or_it_was_not(
    open_registry: Open, register: Bind, make_release: Make, step: str, approved: bool
) -> None:
    registry = open_registry()
    signed = await a_fix_of_an_old_line(registry, register, make_release)
    await registry.publish(signed.package.data, signed.envelope)
    said = {"approved": approved, "reason": "looked at it", "reviewer": "ada"}
    dying = open_registry(on_step=dying_at(step))
    with pytest.raises(Died):
        await dying.decide(signed.package.digest, **said)
    recovered = open_registry()
    given = step == "committed"
    live = "1.0.1" in [each.version for each in recovered.reader.index("acme/guard").releases]
    assert (len(recovered.reader.reviews.queue()), live) == (0 if given else 1, given and approved)
    receipt = await recovered.decide(signed.package.digest, **said)
    assert receipt.state == ("live" if approved else "rejected")
    assert await recovered.publish(signed.package.data, signed.envelope) == receipt
    entries = recovered.reader.shelf.log_indexes("acme/guard")
    assert ("verdict", "1.0.1") in entries
    assert (("publish", "1.0.1") in entries) is approved
