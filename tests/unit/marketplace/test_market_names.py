"""Names that could be taken for others are found without comparing with every name there is."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from marketplace.errors import ReleaseRefused
from marketplace.registry import Registry
from marketplace.rules.names import alike, kept_under, looked_up

Bind = Callable[..., Awaitable[None]]
Make = Callable[..., Any]
_LETTERS = "abilor01mnvw-"


@st.composite
def slips(draw: st.DrawFn) -> tuple[str, str]:
    """A name, and one that is a slip of the finger away from it or looks like it."""
    name = draw(st.text(_LETTERS, min_size=4, max_size=14))
    at, letter = draw(st.integers(0, len(name) - 1)), draw(st.sampled_from(_LETTERS))
    swapped = name[:at] + name[at : at + 2][::-1] + name[at + 2 :]
    looks = name.replace("m", "rn").replace("l", "1").replace("o", "0")
    forms = (name[:at] + letter + name[at:], name[:at] + name[at + 1 :], swapped, looks, name.replace("-", ""))
    return name, draw(st.sampled_from((*forms, name[:at] + letter + name[at + 1 :])))


@given(slips())
def test_whoever_is_alike_is_found_by_the_keys(pair: tuple[str, str]) -> None:
    for name, other in (pair, pair[::-1]):
        if alike(name, other):
            assert set(looked_up(name)) & set(kept_under(other)), (name, other)


def test_the_keys_leave_nearly_everybody_out() -> None:
    others = [f"{a}{b}-{c}" for a in ("sync", "mail", "data") for b in ("er", "ing", "box") for c in range(10, 99)]
    wanted = set(looked_up("export-lantern"))
    assert not any(wanted & set(kept_under(other)) for other in others)


async def test_typosquats_of_plugins_and_of_publishers_are_refused_however_many_there_are(
    registry: Registry, register: Bind, make_release: Make
) -> None:
    await register(registry, "acme-tools", "acme-tool", "globex")
    for name in ("acme-tools/invoice-bridge", *(f"acme-tools/thing-{n}-of-many" for n in range(10, 30))):
        signed = make_release(name)
        await registry.publish(signed.package.data, signed.envelope)
    for squatter in ("globex/invoice-brigde", "globex/invoicebridge", "acme-tool/anything-else"):
        signed = make_release(squatter)
        with pytest.raises(ReleaseRefused, match="could be taken for"):
            await registry.publish(signed.package.data, signed.envelope)
    honest = make_release("globex/something-new")
    assert (await registry.publish(honest.package.data, honest.envelope)).state == "live"
