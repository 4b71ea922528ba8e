"""First steps of a new platform: an operator; and, when asked for, example tenants and plugins."""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.resources import as_file, files

from api.bootstrap import Platform
from api.cli.connection import Credentials
from kernel.context import PLATFORM_TENANT, system_context
from kernel.errors import Conflict
from kernel.manifest import MANIFEST_FILE, load_manifest
from marketplace.keys import publisher_keys
from marketplace.package import component_path
from marketplace.publishing import publish_folder
from plugin_sdk.services import CredentialStore, TenantDirectory, UserDirectory

EXAMPLES_PUBLISHER = "keelstone-examples"
TENANTS = (("acme", "Acme"), ("globex", "Globex"))


@dataclass(frozen=True, slots=True)
class SignIn:
    """A sign-in that a person needs to get going."""

    tenant: str
    email: str
    password: str
    role: str


async def ensure_operator(platform: Platform) -> SignIn | None:
    """The first operator, with a generated password kept in the data folder; None if there is one."""
    return await _ensure_person(platform, PLATFORM_TENANT, "operator@keelstone.example", "Operator", "operator")


async def seed(platform: Platform) -> list[SignIn]:
    """Two tenants with an admin each, and the example plugins. Doing it again changes nothing."""
    await publish_examples(platform)
    directory = platform.services.find(TenantDirectory)
    if directory is None:
        return []
    made = []
    for tenant, name in TENANTS:
        if not await directory.exists(tenant):
            await directory.provision(system_context(tenant), tenant, name)
        person = await _ensure_person(platform, tenant, f"admin@{tenant}.example", f"{name} admin", "admin")
        if person is not None:
            made.append(person)
    return made


async def publish_examples(platform: Platform) -> list[str]:
    """Publish the example plugins whose components are built into the embedded marketplace; their ids."""
    if platform.registry is None:
        return []
    key = publisher_keys(platform.settings.home).load_or_create(EXAMPLES_PUBLISHER)
    published = []
    with as_file(files("plugin_sdk") / "examples") as examples:
        for folder in sorted(p for p in examples.iterdir() if (p / MANIFEST_FILE).exists()):
            component = component_path(folder, load_manifest(folder).short_name)
            if component.exists():
                receipt = await publish_folder(platform.registry, folder, component, key)
                published.append(receipt.plugin)
    return published


async def _ensure_person(platform: Platform, tenant: str, email: str, name: str, role: str) -> SignIn | None:
    users = platform.services.find(UserDirectory)
    kept = Credentials(platform.settings.home)
    if users is None or platform.services.find(CredentialStore) is None or tenant in kept.load():
        return None
    password = secrets.token_urlsafe(15)
    try:
        await users.register(system_context(tenant), email, name, password=password, roles=[role])
    except Conflict:
        # Another process that shares the database made the person, and knows the password.
        return None
    kept.save(tenant, email, password)
    return SignIn(tenant, email, password, role)


def known_sign_ins(platform: Platform, tenants: Sequence[str] = ()) -> list[SignIn]:
    """The sign-ins kept in the data folder."""
    known = Credentials(platform.settings.home).load()
    wanted = tenants or tuple(known)
    return [
        SignIn(t, known[t]["email"], known[t]["password"], "operator" if t == PLATFORM_TENANT else "admin")
        for t in wanted
        if t in known
    ]
