"""The vowel counter in the real sandbox."""

from typing import Any

import pytest

from kernel.errors import KeelstoneError
from plugin_sdk.testing import Guest


async def counted(guest: Guest, name: str, **attributes: Any) -> dict[str, Any]:
    draft = {"email": "ann@example.com", "name": name, "attributes": attributes}
    answer = await guest.filter("user_creating", draft)
    found: dict[str, Any] = answer.payload["attributes"]
    return found


async def test_the_vowels_of_a_name_are_counted_and_summed(guest: Guest) -> None:
    assert await counted(guest, "Ada Lovelace") == {"vowels": {"count": 6, "total": 6, "letters": "aeiouAEIOU"}}
    assert (await counted(guest, "Tim"))["vowels"] == {"count": 1, "total": 7, "letters": "aeiouAEIOU"}
    assert guest.stored == {"total": "7"}
    assert guest.log_text == "counted 6\ncounted 1"


async def test_the_tenant_says_which_letters_count(guest: Guest) -> None:
    guest.settings = {"vowels": "yY"}
    assert (await counted(guest, "Yvy"))["vowels"]["count"] == 2


async def test_what_else_is_known_of_the_person_stays(guest: Guest) -> None:
    assert (await counted(guest, "Tim", plan="team"))["plan"] == "team"


async def test_a_call_that_fails_counts_nothing(guest: Guest) -> None:
    await counted(guest, "Tim")
    guest.chaos("trap at log.write", times=1)
    with pytest.raises(KeelstoneError):
        await counted(guest, "Ada")
    assert guest.stored == {"total": "1"}
