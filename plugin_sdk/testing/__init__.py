"""For tests of plugins: guests in the real sandbox (or, in Python, in this process) with a host that lives
in memory, extensions with the kernel's own dispatcher and fake services.

In a plugin's ``tests/conftest.py``::

    from plugin_sdk.testing.fixtures import guest, pytest_pyfunc_call

and in a test::

    async def test_names_are_tidied(guest: Guest) -> None:
        answer = await guest.filter("user_creating", {"email": "ann@example.com", "name": " Ann "})
        assert answer.payload["name"] == "Ann"
"""

from plugin_sdk.testing.chaos import Chaos
from plugin_sdk.testing.contract import Check, contract_checks
from plugin_sdk.testing.control import ControlledClock, ControlledRandom
from plugin_sdk.testing.extension import Extension
from plugin_sdk.testing.fakes import FakeKv, FakeTransaction
from plugin_sdk.testing.guest import Filtered, Guest, GuestRefused, Observed
from plugin_sdk.testing.samples import sample_event, sample_payload
from plugin_sdk.testing.tape import WebRequest
from plugin_sdk.testing.web import FakeWeb

__all__ = [
    "Chaos",
    "Check",
    "ControlledClock",
    "ControlledRandom",
    "Extension",
    "FakeKv",
    "FakeTransaction",
    "FakeWeb",
    "Filtered",
    "Guest",
    "GuestRefused",
    "Observed",
    "WebRequest",
    "contract_checks",
    "sample_event",
    "sample_payload",
]
