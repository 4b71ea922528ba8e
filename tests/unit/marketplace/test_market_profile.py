"""What a release's hooks needed when they were tried: against its class, its own manifest, and the version before."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from marketplace.registry import Registry
from marketplace.rules import Submission
from marketplace.rules.profile import COMPILED, RUNTIME, RUNTIME_BYTES, class_of
from marketplace.testing import EMPTY_COMPONENT, make_signed, write_plugin
from marketplace.validator import Finding, Validator
from plugin_sdk.profile import HookProfile, Trial

HOOK = "user_creating"
SMALL = HookProfile(100_000, 1 << 16, 2)
Profile = dict[str, HookProfile]


def found(folder: Path, used: HookProfile, before: HookProfile | None = None, **text: Any) -> list[Finding]:
    """What the rules find in a plugin whose hook needed ``used``."""
    package = make_signed(write_plugin(folder, **text)).package
    known = None if before is None else ("0.9.0", {HOOK: before})
    checker = Validator(check_contract=lambda *_: Trial((), {HOOK: used}))
    seen = checker.validate(Submission(package, profile_before=lambda: known))
    return [each for each in seen.findings if each.rule.startswith("profile-")]


def test_what_is_usual_is_not_told(tmp_path: Path) -> None:
    assert found(tmp_path, SMALL) == []
    assert found(tmp_path, replace(SMALL, fuel=COMPILED.fuel, memory_bytes=4 << 20)) == []


def test_more_than_is_usual_for_its_class_is_told_and_stands_in_nobodys_way(tmp_path: Path) -> None:
    (much,) = found(tmp_path, replace(SMALL, fuel=COMPILED.fuel + 1))
    assert (much.rule, much.enforced, much.review) == ("profile-class", False, False)
    assert "user_creating takes 5,000,001 instructions for a sample" in much.problem
    assert "compiled code usually at most 5,000,000" in much.problem
    large = found(tmp_path, replace(SMALL, memory_bytes=9 << 20), more="[limits]\nmemory_mb = 64\n")
    assert [each.rule for each in large] == ["profile-class"]
    assert "9.0 MiB of memory" in large[0].problem


def test_a_component_with_a_runtime_inside_is_of_another_class() -> None:
    assert class_of(EMPTY_COMPONENT) is COMPILED
    assert class_of(bytes(RUNTIME_BYTES)) is RUNTIME
    assert RUNTIME.fuel > COMPILED.fuel


def test_memory_that_a_sample_nearly_fills_is_told(tmp_path: Path) -> None:
    more = "[limits]\nmemory_mb = 4\n"
    assert found(tmp_path, replace(SMALL, memory_bytes=3 << 20), more=more) == []
    (full,) = found(tmp_path, replace(SMALL, memory_bytes=(4 << 20) - 65_536), more=more)
    assert full.rule == "profile-room"
    assert "3.9 MiB of the 4.0 MiB" in full.problem


@pytest.mark.parametrize(
    ("used", "told"),
    [
        (SMALL, []),
        (replace(SMALL, fuel=900_000), []),
        (replace(SMALL, fuel=1_100_000), ["instructions"]),
        (replace(SMALL, memory_bytes=2 << 20), ["memory"]),
    ],
    ids=["same", "small anyway", "fuel", "memory"],
)
def test_many_times_as_much_as_the_version_before_is_told(tmp_path: Path, used: HookProfile, told: list[str]) -> None:
    grown = found(tmp_path, used, SMALL)
    assert [each.rule for each in grown] == ["profile-growth"] * len(told)
    assert all(word in each.problem and "in 0.9.0" in each.problem for word, each in zip(told, grown, strict=True))


def test_what_was_not_tried_has_no_profile_and_what_is_off_is_not_tried(tmp_path: Path) -> None:
    package = make_signed(write_plugin(tmp_path)).package
    seen = Validator().validate(Submission(package))
    assert {"profile-class", "profile-room", "profile-growth"} <= set(seen.unseen)
    assert seen.profile == {}
    off: Any = dict.fromkeys(("contract", "profile-class", "profile-room", "profile-growth"), "off")
    checker = Validator(check_contract=lambda *_: pytest.fail("it was tried"), policy=off)
    assert checker.validate(Submission(package)).profile == {}


def test_hooks_are_tried_once_however_many_rules_ask(tmp_path: Path) -> None:
    tried = []

    def check(*_: Any) -> Trial:
        tried.append(1)
        return Trial((), {HOOK: SMALL})

    package = make_signed(write_plugin(tmp_path)).package
    assert Validator(check_contract=check).validate(Submission(package)).profile == {HOOK: SMALL}
    assert tried == [1]


async def test_the_registry_keeps_profiles_and_compares_with_the_newest_version_before(
    open_registry: Callable[..., Registry], register: Callable[..., Awaitable[None]], make_release: Any
) -> None:
    needs: Profile = {HOOK: SMALL}
    registry = open_registry(
        check_contract=lambda *_: Trial((), dict(needs)), rules={"profile-growth": "review", "old-line": "off"}
    )
    await register(registry)
    for version, fuel in (("1.0.0", 3_000_000), ("1.1.0", 300_000), ("1.0.1", 3_000_000)):
        needs[HOOK] = replace(SMALL, fuel=fuel)
        signed = make_release(version=version)
        state = (await registry.publish(signed.package.data, signed.envelope)).state
        assert state == "live", registry.reader.reviews.status(signed.package.digest).findings
    needs[HOOK] = replace(SMALL, fuel=4_000_000)
    signed = make_release(version="1.1.1")
    # 1.0.1 came later, but 1.1.0 is what it follows.
    held = await registry.publish(signed.package.data, signed.envelope)
    assert held.state == "quarantined"
    (finding,) = registry.reader.reviews.status(signed.package.digest).findings
    assert "takes 4,000,000 instructions for a sample, and took 300,000 in 1.1.0" in finding["problem"]
    # The reviewer sees it beside that version, and so does everybody on the pages.
    (cost,) = registry.reader.reviews.show(signed.package.digest).costs
    assert (cost.hook, cost.now.fuel, cost.base) == (HOOK, 4_000_000, "1.1.0")
    assert cost.before is not None
    assert cost.before.fuel == 300_000
    index = registry.reader.index("acme/guard")
    first, later = (index.find(version) for version in ("1.0.0", "1.1.0"))
    assert first is not None
    assert later is not None
    assert [each.before for each in registry.reader.costs(index, first)] == [None]
    # The newest before 1.1.0 is 1.0.1, although that came later.
    assert [each.base for each in registry.reader.costs(index, later)] == ["1.0.1"]
    # What waited keeps its profile: the next one is compared with it once it is live.
    await registry.decide(signed.package.digest, approved=True, reason="It is meant.", reviewer="rita")
    following = make_release(version="1.1.2")
    assert (await registry.publish(following.package.data, following.envelope)).state == "live"
