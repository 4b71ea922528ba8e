"""Errors: stable codes, one problem document each, everything a person needs in the text."""

from __future__ import annotations

import json

import pytest

from kernel.errors import KeelstoneError, NotFound, PluginFailed, error_catalogue


def test_codes_are_unique_lower_case_and_have_a_status_and_a_title():
    def every(cls):
        yield cls
        for child in cls.__subclasses__():
            yield from every(child)

    classes = list(every(KeelstoneError))
    codes = [cls.code for cls in classes if "code" in vars(cls)]
    assert len(codes) == len(set(codes))
    for cls in classes:
        assert cls.code == cls.code.lower()
        assert 400 <= cls.status <= 599
        assert cls.title[0].isupper()
        assert (cls.__doc__ or "").strip()
    assert set(error_catalogue()) == {cls.code for cls in classes}


def test_a_problem_document_is_json_with_every_member_that_has_a_value():
    error = PluginFailed(
        "It broke.",
        plugin="acme/aa",
        hook="user_creating",
        tenant="acme",
        expected=0,
        found=frozenset({"x"}),
        fix="Mend it.",
        extra={"cause": "trap"},
    )
    body = json.loads(json.dumps(error.problem("/api/v1/users")))
    assert body == {
        "type": "urn:keelstone:error:plugin-failed",
        "title": "A plugin failed",
        "status": 502,
        "detail": "It broke.",
        "code": "plugin-failed",
        "instance": "/api/v1/users",
        "plugin": "acme/aa",
        "hook": "user_creating",
        "tenant": "acme",
        "expected": 0,
        "found": "frozenset({'x'})",
        "fix": "Mend it.",
        "cause": "trap",
    }


def test_members_without_a_value_are_left_out_and_falsy_values_are_not():
    body = NotFound("Nothing there.", found=0, expected="").problem()
    assert "plugin" not in body
    assert (body["found"], body["expected"]) == (0, "")


def test_the_text_says_what_where_expected_found_and_what_to_do():
    error = PluginFailed("It broke.", plugin="acme/aa", tenant="acme", expected="an answer", found=0, fix="Mend it.")
    assert str(error) == "It broke. (plugin acme/aa, tenant acme) Expected an answer; found 0. Mend it."


@pytest.mark.parametrize("detail", ["", "with [brackets]", "naïve ünïcode"])
def test_any_detail_survives(detail):
    assert NotFound(detail).problem()["detail"] == detail
