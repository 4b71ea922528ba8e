"""Users: registration, profiles, preferences. Wiring, REST and GraphQL."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any

import strawberry
from fastapi import APIRouter, Query
from pydantic import BaseModel, ConfigDict, Field, SecretStr
from strawberry.scalars import JSON

from plugin_sdk import Context, GraphQL, PluginContext, Routes, ServiceMethod, hookimpl
from plugin_sdk.data import Schema
from plugin_sdk.services import CredentialStore, Database, UserDirectory
from plugin_sdk.web import MAX_PAGE, Page, authorize, graphql_context, requires
from plugins.builtin.users import services
from plugins.builtin.users.application import Users
from plugins.builtin.users.domain import User
from plugins.builtin.users.infrastructure import SCHEMA, SqlUsers


class UserIn(BaseModel):
    """A person to register."""

    model_config = ConfigDict(extra="forbid")
    email: str = Field(min_length=3, max_length=254, examples=["ada@example.com"])
    name: str = Field(min_length=1, max_length=200, examples=["Ada Lovelace"])
    attributes: dict[str, Any] = {}
    password: SecretStr | None = Field(default=None, min_length=12, max_length=200)
    roles: list[str] = []


class UserPatch(BaseModel):
    """What to change; fields left out stay. ``version`` guards against lost updates."""

    model_config = ConfigDict(extra="forbid")
    email: str | None = Field(default=None, min_length=3, max_length=254)
    name: str | None = Field(default=None, min_length=1, max_length=200)
    attributes: dict[str, Any] | None = None
    version: int | None = None


class UserOut(BaseModel):
    """A person."""

    model_config = ConfigDict(from_attributes=True)
    id: str
    email: str
    name: str
    attributes: dict[str, Any]
    preferences: dict[str, Any]
    version: int
    created_at: datetime
    updated_at: datetime


@strawberry.type(name="User", description="A person of the tenant.")
class UserType:
    """A person, for GraphQL."""

    id: strawberry.ID
    email: str
    name: str
    attributes: JSON
    preferences: JSON
    version: int
    created_at: datetime
    updated_at: datetime


def _graphql(user: User) -> UserType:
    return UserType(
        id=strawberry.ID(user.id),
        email=user.email,
        name=user.name,
        attributes=JSON(dict(user.attributes)),
        preferences=JSON(dict(user.preferences)),
        version=user.version,
        created_at=user.created_at,
        updated_at=user.updated_at,
    )


class UsersPlugin:
    """Hook implementations."""

    def __init__(self, users: Users) -> None:
        self._users = users

    @hookimpl
    def contribute_tables(self) -> Schema:
        return SCHEMA

    @hookimpl
    def contribute_routes(self) -> Routes:
        return Routes(_router(self._users))

    @hookimpl
    def contribute_graphql(self) -> GraphQL:
        return _graphql_types(self._users)

    @hookimpl
    def contribute_services(self) -> list[ServiceMethod]:
        return services.methods(self._users)


def _router(users: Users) -> APIRouter:
    router = APIRouter(prefix="/users", tags=["users"])

    @router.get("", summary="List people")
    async def list_users(
        context: Annotated[Context, requires("users:read")],
        limit: Annotated[int, Query(ge=1, le=MAX_PAGE)] = 20,
        after: Annotated[str | None, Query(max_length=64)] = None,
        email: Annotated[str | None, Query(max_length=254)] = None,
    ) -> Page[UserOut]:
        found = await users.page(context, after, limit, email)
        more = found[-1].id if len(found) == limit and email is None else None
        return Page(items=[UserOut.model_validate(u) for u in found], next=more)

    @router.post("", status_code=201, summary="Register a person")
    async def create_user(context: Annotated[Context, requires("users:write")], body: UserIn) -> UserOut:
        password = body.password.get_secret_value() if body.password else None
        user = await users.create(
            context, body.email, body.name, password=password, roles=body.roles, attributes=body.attributes
        )
        return UserOut.model_validate(user)

    @router.get("/{user}", summary="One person")
    async def get_user(context: Annotated[Context, requires("users:read")], user: str) -> UserOut:
        return UserOut.model_validate(await users.get(context, user))

    @router.patch("/{user}", summary="Change a profile")
    async def change_user(context: Annotated[Context, requires("users:write")], user: str, body: UserPatch) -> UserOut:
        changed = await users.change(
            context, user, email=body.email, name=body.name, attributes=body.attributes, seen=body.version
        )
        return UserOut.model_validate(changed)

    @router.put("/{user}/preferences", summary="Merge preferences (null removes a key)")
    async def prefer(context: Annotated[Context, requires("users:write")], user: str, body: dict[str, Any]) -> UserOut:
        return UserOut.model_validate(await users.prefer(context, user, body))

    @router.delete("/{user}", status_code=204, summary="Remove a person and their credentials")
    async def remove_user(context: Annotated[Context, requires("users:write")], user: str) -> None:
        await users.remove(context, user)

    return router


def _graphql_types(users: Users) -> GraphQL:
    @strawberry.type
    class Query:
        @strawberry.field(description="People of the tenant, in order of registration.")
        async def users(self, info: strawberry.Info, limit: int = 20, after: str | None = None) -> list[UserType]:
            context = await authorize(graphql_context(info), "users:read")
            page = await users.page(context, after, max(1, min(limit, MAX_PAGE)))
            return [_graphql(u) for u in page]

        @strawberry.field(description="One person.")
        async def user(self, info: strawberry.Info, id: strawberry.ID) -> UserType:
            context = await authorize(graphql_context(info), "users:read")
            return _graphql(await users.get(context, str(id)))

    @strawberry.type
    class Mutation:
        @strawberry.mutation(description="Register a person.")
        async def create_user(
            self, info: strawberry.Info, email: str, name: str, attributes: JSON | None = None
        ) -> UserType:
            context = await authorize(graphql_context(info), "users:write")
            given: Any = attributes
            return _graphql(await users.create(context, email, name, attributes=given))

    return GraphQL(query=Query, mutation=Mutation)


def start(platform: PluginContext) -> UsersPlugin:
    """Wire the plugin and publish UserDirectory."""
    services = platform.services
    users = Users(services.get(Database), SqlUsers(), platform.hooks, lambda: services.find(CredentialStore))
    services.publish(UserDirectory, users)
    return UsersPlugin(users)
