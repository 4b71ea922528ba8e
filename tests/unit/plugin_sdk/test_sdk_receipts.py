"""Receipts, checked offline: what was signed is read, and whatever was changed since is found."""

from __future__ import annotations

import copy
import json

import pytest
from joserfc import jws
from joserfc.jwk import OKPKey

from plugin_sdk.receipts import ALGORITHM, CONSENT, ReceiptsDamaged, check_receipts, digest_of, read_statement

KEY, OTHER = (OKPKey.generate_key("Ed25519", {"kid": name}) for name in ("one", "two"))


def public(*keys: OKPKey) -> dict:
    return {"keys": [key.as_dict(private=False) for key in keys]}


def signed(body: object, key: OKPKey = KEY, kind: str = CONSENT, algorithm: str = ALGORITHM) -> str:
    header = {"alg": algorithm, "kid": key.kid, "typ": kind}
    return jws.serialize_compact(header, json.dumps(body).encode(), key, algorithms=[algorithm])


def export(count: int = 3) -> dict:
    receipts: list[str] = []
    for number in range(1, count + 1):
        previous = digest_of(receipts[-1]) if receipts else None
        receipts.append(signed({"tenant": "acme", "number": number, "previous": previous, "granted": [str(number)]}))
    return {"format": 1, "tenant": "acme", "receipts": receipts, "keys": public(KEY)}


@pytest.mark.parametrize("count", [0, 1, 3])
def test_a_whole_export_is_read(count):
    said = check_receipts(export(count), public(OTHER, KEY))
    assert [s["granted"] for s in said] == [[str(n)] for n in range(1, count + 1)]


def without(*positions: int):
    def change(document: dict) -> None:
        document["receipts"] = [r for n, r in enumerate(document["receipts"]) if n not in positions]

    return change


def swapped(document: dict) -> None:
    document["receipts"][1:] = reversed(document["receipts"][1:])


def twice(document: dict) -> None:
    document["receipts"].insert(1, document["receipts"][0])


def put_in(document: dict) -> None:
    """One that the platform never signed."""
    document["receipts"][1] = signed({"tenant": "acme", "number": 2, "previous": None}, OTHER)


def edited(document: dict) -> None:
    header, _, signature = document["receipts"][1].split(".")
    document["receipts"][1] = f"{header}.{signed({'tenant': 'acme'}).split('.')[1]}.{signature}"


def renamed(document: dict) -> None:
    document["tenant"] = "globex"


def of_another_kind(document: dict) -> None:
    document["receipts"] = [signed({"tenant": "acme", "number": 1, "previous": None}, kind="at+jwt")]


def no_object(document: dict) -> None:
    document["receipts"] = [signed(["tenant"])]


def no_receipt(document: dict) -> None:
    document["receipts"] = ["not.a.receipt"]


def not_a_list(document: dict) -> None:
    document["receipts"] = "all"


def another_format(document: dict) -> None:
    document["format"] = 2


@pytest.mark.parametrize(
    "change",
    [
        without(0),
        without(1),
        swapped,
        twice,
        put_in,
        edited,
        renamed,
        of_another_kind,
        no_object,
        no_receipt,
        not_a_list,
        another_format,
    ],
)
def test_whatever_was_changed_is_found(change):
    document = export()
    check_receipts(copy.deepcopy(document), public(KEY))
    change(document)
    with pytest.raises(ReceiptsDamaged):
        check_receipts(document, public(KEY))


def test_keys_that_came_along_are_not_the_ones_that_are_trusted():
    document = {**export(), "keys": public(OTHER)}
    assert len(check_receipts(document, public(KEY))) == 3
    with pytest.raises(ReceiptsDamaged):
        check_receipts(document)
    with pytest.raises(ReceiptsDamaged):
        check_receipts(export(), public(OTHER))
    for keys in ({}, {"keys": "none"}, {"keys": [{"kty": "oct"}]}):
        with pytest.raises(ReceiptsDamaged):
            read_statement(export()["receipts"][0], keys, CONSENT)


@pytest.mark.parametrize("document", [None, [], "text", 1, {}])
def test_what_is_no_export_is_refused(document):
    with pytest.raises(ReceiptsDamaged):
        check_receipts(document)
