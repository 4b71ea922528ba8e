"""What is made of componentize-py's complaints. That it compiles is shown in e2e."""

import pytest

from plugin_sdk.toolchain.python import explain

OUTER = 'Traceback (most recent call last):\n  File "<string>", line 1, in <module>\nAssertionError: '
INNER = 'Traceback (most recent call last):\n  File "/1/plugin.py", line 3, in <module>\n    import numpy\n'
TAIL = "\n\nCaused by:\n    nothing\n\nStack backtrace:\n   0: <anyhow::Error>::msg"


@pytest.mark.parametrize(
    ("last", "fix"),
    [
        ("ModuleNotFoundError: No module named 'numpy'", "standard library"),
        ("LookupError: no function is marked @hook for user_creating", "Mark one function"),
        ("SyntaxError: invalid syntax", "Python's own"),
    ],
)
def test_the_guests_own_traceback_is_what_the_author_reads(last: str, fix: str) -> None:
    found, advice = explain(OUTER + INNER + last + TAIL)
    assert found == INNER + last
    assert fix in advice


def test_other_complaints_come_as_they_are() -> None:
    assert explain("Error: no world named `guest`")[0] == "Error: no world named `guest`"
