"""The guest library for Python, outside a component: payloads, replies, dispatch."""

import dataclasses
import json
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

from kernel.hookspecs import HOOKS as SPECS
from kernel.payloads import DecideReply, FilterReply, ObserveReply
from plugin_sdk.languages.python import keelstone_guest as guest
from plugin_sdk.languages.python.keelstone_guest.dispatch import HOOKS, Dispatcher, GuestFailure
from plugin_sdk.languages.python.keelstone_guest.host import HostError, call
from plugin_sdk.testing import sample_payload


def plugin(**functions: Any) -> ModuleType:
    module = ModuleType("plugin")
    vars(module).update(functions)
    return module


def answer(hook: str, function: Any) -> dict[str, Any]:
    dispatcher = Dispatcher(plugin(function=guest.hook(hook)(function)))
    reply: dict[str, Any] = json.loads(dispatcher.handle(hook, json.dumps(sample_payload(hook))))
    return reply


def test_it_knows_every_hook_that_guests_can_implement() -> None:
    assert set(HOOKS) == {name for name, spec in SPECS.items() if spec.for_guests and spec.payload}


@pytest.mark.parametrize("hook", sorted(HOOKS))
def test_its_payloads_have_the_fields_of_the_platforms_own(hook: str) -> None:
    model = SPECS[hook].payload
    assert model is not None
    assert {f.name for f in dataclasses.fields(HOOKS[hook][0])} == set(model.model_fields)  # type: ignore[arg-type]


@pytest.mark.parametrize("hook", sorted(HOOKS))
def test_a_payload_goes_in_and_out_unchanged(hook: str) -> None:
    sample = sample_payload(hook)
    assert HOOKS[hook][0].from_json(sample).to_json() == sample


def test_a_member_that_a_newer_platform_adds_is_left_out() -> None:
    draft = guest.UserDraft.from_json({"email": "a@b.c", "name": "A", "shoe_size": 43})
    assert draft == guest.UserDraft("a@b.c", "A")


def test_a_filter_keeps_changes_or_rejects() -> None:
    def reject(draft: guest.UserDraft) -> None:
        raise guest.Reject("no")

    assert answer("user_creating", lambda draft: None) == {}
    changed = answer("user_creating", lambda draft: draft.replace(name="B"))
    assert FilterReply.model_validate(changed).payload == {**sample_payload("user_creating"), "name": "B"}
    assert answer("user_creating", reject) == {"reject": {"reason": "no"}}


def test_a_decide_hook_allows_denies_or_has_no_opinion() -> None:
    assert answer("access_deciding", lambda request: None) == {}
    assert answer("access_deciding", lambda request: guest.Allow("ok")) == {"answer": {"allow": True, "reason": "ok"}}
    denied = answer("access_deciding", lambda request: guest.Deny("no"))
    assert DecideReply.model_validate(denied).answer == {"allow": False, "reason": "no"}


def test_an_observer_is_done_when_it_returns() -> None:
    assert ObserveReply.model_validate(answer("event_received", lambda event: None)).done


@pytest.mark.parametrize(
    ("hook", "function", "message"),
    [
        ("user_creating", lambda draft: "text", "TypeError"),
        ("access_deciding", lambda request: True, "TypeError"),
        ("event_received", lambda event: event, "TypeError"),
        ("event_received", lambda event: {}["missing"], "KeyError: 'missing'"),
    ],
)
def test_nonsense_and_exceptions_are_failures_that_say_what_happened(hook: str, function: Any, message: str) -> None:
    with pytest.raises(GuestFailure, match=message):
        answer(hook, function)


def test_only_a_filter_can_reject() -> None:
    def reject(event: guest.EventView) -> None:
        raise guest.Reject("no")

    with pytest.raises(GuestFailure, match="cannot reject"):
        answer("event_received", reject)


def test_a_hook_that_nobody_implements_is_a_failure() -> None:
    with pytest.raises(GuestFailure, match="does not implement user_creating"):
        Dispatcher(plugin()).handle("user_creating", "{}")


def test_a_misspelt_hook_is_refused_where_it_is_written() -> None:
    with pytest.raises(ValueError, match="no hook 'user_made'"):
        guest.hook("user_made")


def test_two_functions_cannot_implement_one_hook() -> None:
    first, second = (guest.hook("user_creating")(lambda draft, n=n: n) for n in (1, 2))
    with pytest.raises(ValueError, match="two functions"):
        Dispatcher(plugin(first=first, second=second))


def test_one_function_can_implement_two_hooks_and_have_two_names() -> None:
    function = guest.hook("user_creating")(guest.hook("user_updating")(lambda draft: None))
    assert Dispatcher(plugin(one=function, other=function)).hooks == ("user_creating", "user_updating")


def test_a_host_call_without_its_capability_says_what_to_write_in_the_manifest() -> None:
    with pytest.raises(HostError, match=r"\[capabilities.kv\]") as caught:
        guest.kv.get("key")
    assert caught.value.code == "not-granted"


def test_the_hosts_refusal_becomes_an_exception_with_its_code() -> None:
    class Err(Exception):
        def __init__(self, value: object) -> None:
            self.value = value

    def refuse(key: str) -> str:
        raise Err(SimpleNamespace(code="limit", message="too many"))

    def break_down(key: str) -> str:
        raise OSError("broken")

    with pytest.raises(HostError) as caught:
        call(SimpleNamespace(get=refuse), "kv", "get", "key")
    assert (caught.value.code, caught.value.message) == ("limit", "too many")
    with pytest.raises(OSError, match="broken"):
        call(SimpleNamespace(get=break_down), "kv", "get", "key")
