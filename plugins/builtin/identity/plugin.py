"""Identity: the embedded issuer. Wiring and REST."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Annotated, Any

from fastapi import APIRouter, Request
from pydantic import BaseModel, ConfigDict, Field, SecretStr

from plugin_sdk import Context, Permission, PluginContext, Routes, Text, hookimpl, roles_table
from plugin_sdk.data import Schema
from plugin_sdk.services import (
    Authenticator,
    CredentialStore,
    Database,
    KeyProvider,
    PermissionCatalogue,
    StatementSigner,
    UserDirectory,
)
from plugin_sdk.web import context_of, requires
from plugins.builtin.identity.application import AccessTokens, Identity, TokenPair
from plugins.builtin.identity.infrastructure import SCHEMA, Argon2Passwords, SqlCredentials, load_signing_keys
from plugins.builtin.identity.tokens import TokenSigner


class SignIn(BaseModel):
    """A person's sign-in."""

    model_config = ConfigDict(extra="forbid")
    tenant: str = Field(max_length=64, examples=["acme"])
    email: str = Field(max_length=254)
    password: SecretStr


class Refresh(BaseModel):
    """A refresh token to use or end."""

    model_config = ConfigDict(extra="forbid")
    refresh_token: SecretStr


class Tokens(BaseModel):
    """A token pair. ``expires_in`` is in seconds."""

    access_token: str
    refresh_token: str
    token_type: str = "Bearer"  # noqa: S105 - the scheme's name
    expires_in: int


class Me(BaseModel):
    """Who the caller is."""

    id: str
    kind: str
    tenant: str
    roles: list[str]
    permissions: list[str]


class Roles(BaseModel):
    """A user's roles."""

    model_config = ConfigDict(extra="forbid")
    roles: list[str]


class KeyIn(BaseModel):
    """An API key to make."""

    model_config = ConfigDict(extra="forbid")
    name: Text = Field(min_length=1, max_length=100)
    roles: list[str] = Field(min_length=1)
    days: int | None = Field(default=90, ge=1, le=3650)


class KeyOut(BaseModel):
    """An API key; ``key`` is there once, when it has just been made."""

    model_config = ConfigDict(from_attributes=True)
    id: str
    name: str
    roles: list[str]
    created_by: str
    created_at: datetime
    expires_at: datetime | None
    revoked_at: datetime | None
    key: str | None = None


class _Statements:
    """Implements ``StatementSigner`` with the keys that sign access tokens."""

    def __init__(self, signer: Callable[[], TokenSigner]) -> None:
        self._signer = signer

    def sign(self, kind: str, statement: Mapping[str, Any]) -> str:
        """A JWS in compact form."""
        return self._signer().sign_statement(kind, statement)

    def public_keys(self) -> Mapping[str, Any]:
        """The key set."""
        return self._signer().public_keys()


class IdentityPlugin:
    """Hook implementations."""

    def __init__(self, platform: PluginContext) -> None:
        services = platform.services
        self._database = services.get(Database)
        self._keys = services.get(KeyProvider)
        self._lifetime = platform.settings.access_token_minutes * 60
        self._signer: TokenSigner | None = None
        self._catalogue = services.get(PermissionCatalogue)
        self._identity = Identity(
            self._database,
            SqlCredentials(),
            Argon2Passwords(),
            self._tokens,
            self._permissions,
            timedelta(days=platform.settings.refresh_token_days),
            lambda: services.find(UserDirectory),
        )
        services.publish(Authenticator, self._identity)
        services.publish(CredentialStore, self._identity)
        services.publish(StatementSigner, _Statements(self._ready))

    def _tokens(self) -> AccessTokens:
        return self._ready()

    def _ready(self) -> TokenSigner:
        if self._signer is None:
            raise RuntimeError("identity was used before the platform was started")
        return self._signer

    def _permissions(self) -> Sequence[Permission]:
        return self._catalogue.permissions()

    @hookimpl
    def contribute_tables(self) -> Schema:
        return SCHEMA

    @hookimpl
    async def starting(self) -> None:
        self._signer = TokenSigner(await load_signing_keys(self._database, self._keys), self._lifetime)

    @hookimpl
    def contribute_routes(self) -> list[Routes]:
        return [Routes(self._auth()), Routes(_roles(self._identity, self._permissions)), Routes(_keys(self._identity))]

    def _auth(self) -> APIRouter:
        router = APIRouter(prefix="/auth", tags=["identity"])
        identity = self._identity

        @router.post("/token", summary="Sign in with a password")
        async def sign_in(request: Request, body: SignIn) -> Tokens:
            correlation = context_of(request).correlation_id
            return _pair(await identity.sign_in(body.tenant, body.email, body.password.get_secret_value(), correlation))

        @router.post("/refresh", summary="Trade a refresh token for a new pair")
        async def refresh(request: Request, body: Refresh) -> Tokens:
            token = body.refresh_token.get_secret_value()
            return _pair(await identity.refresh(token, context_of(request).correlation_id))

        @router.post("/revoke", status_code=204, summary="Sign out")
        async def revoke(body: Refresh) -> None:
            await identity.revoke(body.refresh_token.get_secret_value())

        @router.get("/jwks.json", summary="Public keys that check access tokens")
        async def jwks() -> dict[str, Any]:
            signer = self._signer
            return dict(signer.public_keys()) if signer else {"keys": []}

        @router.get("/me", summary="Who am I")
        async def me(context: Annotated[Context, requires("self:read")]) -> Me:
            who = context.principal
            return Me(
                id=who.id,
                kind=who.kind,
                tenant=who.tenant,
                roles=sorted(who.roles),
                permissions=sorted(who.permissions),
            )

        return router


def _pair(pair: TokenPair) -> Tokens:
    return Tokens(access_token=pair.access_token, refresh_token=pair.refresh_token, expires_in=pair.expires_in)


def _roles(identity: Identity, permissions: Any) -> APIRouter:
    router = APIRouter(prefix="/roles", tags=["identity"])

    @router.get("", summary="Roles and what they may")
    async def list_roles(context: Annotated[Context, requires("roles:read")]) -> dict[str, list[str]]:
        return dict(roles_table(permissions()))

    @router.get("/users/{user}", summary="A person's roles")
    async def roles_of(context: Annotated[Context, requires("roles:read")], user: str) -> Roles:
        return Roles(roles=list(await identity.roles_of(context, user)))

    @router.put("/users/{user}", summary="Replace a person's roles")
    async def assign(context: Annotated[Context, requires("roles:assign")], user: str, body: Roles) -> Roles:
        return Roles(roles=list(await identity.give_roles(context, user, body.roles)))

    return router


def _keys(identity: Identity) -> APIRouter:
    router = APIRouter(prefix="/api-keys", tags=["identity"])

    @router.post("", status_code=201, summary="Make an API key")
    async def create(context: Annotated[Context, requires("api-keys:manage")], body: KeyIn) -> KeyOut:
        key, text = await identity.create_key(context, body.name, body.roles, body.days)
        return KeyOut.model_validate(key).model_copy(update={"key": text})

    @router.get("", summary="API keys, without their secrets")
    async def list_keys(context: Annotated[Context, requires("api-keys:manage")]) -> list[KeyOut]:
        return [KeyOut.model_validate(k) for k in await identity.keys(context)]

    @router.delete("/{key}", status_code=204, summary="Revoke an API key")
    async def revoke(context: Annotated[Context, requires("api-keys:manage")], key: str) -> None:
        await identity.revoke_key(context, key)

    return router


def start(platform: PluginContext) -> IdentityPlugin:
    """Wire the plugin and publish Authenticator and CredentialStore."""
    return IdentityPlugin(platform)
