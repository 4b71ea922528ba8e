"""The keys of the log and of receipts: which ones count, and handing over from one to the next.

Both sign without people, and TUF says which they are. A handover is one transaction: the old key signs that the new one
follows it, the log has that as an entry under a checkpoint which both keys signed, and TUF vouches for the new key.
Cut short at any moment, the old key goes on.
"""

from __future__ import annotations

import json
from typing import Any, Literal, get_args

import sqlalchemy as sa

from kernel.errors import ValidationFailed
from marketplace.ceremony import RoleKeys, Rotation
from marketplace.errors import KeyMissing, RegistryDamaged
from marketplace.keys import SigningKey, public_key
from marketplace.log.entry import handover_entry, statement_digest
from marketplace.log.key import KEYS_TARGET, log_member
from marketplace.moments import utc_text
from marketplace.registry.log import LogRows
from marketplace.registry.metadata import MetadataRows, current_target
from marketplace.registry.tables import Tables
from marketplace.signing import HANDOVER, STATEMENT_PAYLOAD, add_signatures, canonical_json, sign_statement
from marketplace.tuf_repository import RepositoryKeys, TufRepository

Handed = Literal["log", "receipts"]
HANDED: tuple[str, ...] = get_args(Handed)


def present_key(connection: sa.Connection, keys: RepositoryKeys, role: Handed) -> SigningKey:
    """The key of ``role`` that counts now. Raises KeyMissing if it is not on this machine."""
    return keys.online_of(role, [_present_id(_document(connection), role)])


def receipts_key(tables: Tables, keys: RepositoryKeys) -> SigningKey:
    """The key that signs receipts now, looked up by itself. Raises as :func:`present_key`."""
    with tables.read() as connection:
        return present_key(connection, keys, "receipts")


def handed_roles(connection: sa.Connection, keys: RepositoryKeys) -> list[RoleKeys]:
    """Both roles, as ``ceremony.status`` has the others. Their keys do not expire."""
    document, found = _document(connection), []
    for role in HANDED:
        wanted = _present_id(document, role)
        try:
            here: tuple[str, ...] = (keys.online_of(role, [wanted]).id,)
        except KeyMissing:
            here = ()
        had = document["log"].get("earlier", ()) if role == "log" else document["receipts"][1:]
        found.append(RoleKeys(role, 1 + len(had), 1, (wanted,), here, None, None))
    return found


def hand_over(rows: MetadataRows, repository: TufRepository, role: str) -> Rotation:
    """A new key for the log or for receipts, in the caller's transaction.

    Raises KeyMissing: the log's old key must be here, and sign; for receipts, the log's must. ValidationFailed for
    another role.
    """
    if role not in HANDED:
        raise ValidationFailed(f"{role!r} does not hand over.", expected=" or ".join(HANDED), found=role)
    keys, document, at = repository.keys, _document(rows.connection), utc_text(rows.now)
    log, signing = LogRows(rows.connection, rows.now), present_key(rows.connection, keys, "log")
    old = signing if role == "log" else _if_here(keys, role, _present_id(document, role))
    new, last = keys.add_online(role), log.checkpoint()
    retired = _present_id(document, role)
    number = 2 + (len(document["log"].get("earlier", ())) if role == "log" else len(document["receipts"]) - 1)
    name = f"{role}-{number}"
    told = {"origin": last.origin, "previous": retired, "size": last.size, "root": last.root.hex(), "at": at}
    signed = sign_statement(HANDOVER, {name: new.id}, told, new)
    if old is not None:
        signed = add_signatures(signed, STATEMENT_PAYLOAD, [old])
    statement = json.loads(signed)
    entry = handover_entry(last.origin, name, new.id, statement_digest(statement), at)
    log.append([entry], {0: statement}, signing, *([new] if role == "log" else []))
    if role == "log":
        said = document["log"]
        before = {"key": said["key"], "handover": statement}
        document["log"] = log_member(last.origin, new, [*said.get("earlier", ()), before])
    else:
        first, *others = document["receipts"]
        document["receipts"] = [{**new.public.to_dict(), "since": at}, {**first, "until": at}, *others]
    repository.commit(rows, {KEYS_TARGET: canonical_json(document)})
    return Rotation(role, (retired,), (new.id,), repository.root_version(rows))


def _if_here(keys: RepositoryKeys, role: str, wanted: str) -> SigningKey | None:
    try:
        return keys.online_of(role, [wanted])
    except KeyMissing:
        return None


def _present_id(document: dict[str, Any], role: str) -> str:
    """The newest receipts' key is the first on the list."""
    return public_key(document["log"]["key"] if role == "log" else document["receipts"][0]).keyid


def _document(connection: sa.Connection) -> dict[str, Any]:
    body = current_target(connection, KEYS_TARGET)
    if body is None:
        raise RegistryDamaged(
            "The registry does not say which keys sign its log and receipts.",
            file=KEYS_TARGET,
            fix="Start the marketplace once, or restore its folder from a backup.",
        )
    found: dict[str, Any] = json.loads(body)
    return found
