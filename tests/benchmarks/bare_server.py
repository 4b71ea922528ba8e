"""The baseline of ``api.list_users``: a bare FastAPI route with the same query on the same server.

Usage: ``python -m tests.benchmarks.bare_server DATABASE TENANT``; prints its port.
"""

from __future__ import annotations

import socket
import sys
from datetime import datetime
from typing import Any

import uvicorn
from fastapi import FastAPI
from pydantic import BaseModel
from sqlalchemy import JSON, Column, DateTime, Integer, MetaData, String, Table, select
from sqlalchemy.ext.asyncio import create_async_engine

users = Table(
    "users",
    MetaData(),
    Column("tenant_id", String, primary_key=True),
    Column("id", String, primary_key=True),
    Column("email", String),
    Column("name", String),
    Column("attributes", JSON),
    Column("preferences", JSON),
    Column("version", Integer),
    Column("created_at", DateTime),
    Column("updated_at", DateTime),
)


class UserOut(BaseModel):
    """The same answer."""

    id: str
    email: str
    name: str
    attributes: dict[str, Any]
    preferences: dict[str, Any]
    version: int
    created_at: datetime
    updated_at: datetime


class Page(BaseModel):
    """The same page."""

    items: list[UserOut]
    next: str | None


def main(database: str, tenant: str) -> None:
    """Serve until killed."""
    engine = create_async_engine(f"sqlite+aiosqlite:///{database}")
    app = FastAPI()
    columns = [c for c in users.c if c.name != "tenant_id"]

    @app.get("/api/v1/users")
    async def list_users(limit: int = 20) -> Page:
        async with engine.connect() as connection:
            query = select(*columns).where(users.c.tenant_id == tenant).order_by(users.c.id).limit(limit)
            rows = (await connection.execute(query)).all()
        items = [UserOut(**row._mapping) for row in rows]
        return Page(items=items, next=items[-1].id if len(items) == limit else None)

    listener = socket.socket()
    listener.bind(("127.0.0.1", 0))
    print(listener.getsockname()[1], flush=True)
    config = uvicorn.Config(app, log_config=None, access_log=False, lifespan="off", server_header=False)
    uvicorn.Server(config).run(sockets=[listener])


if __name__ == "__main__":
    main(*sys.argv[1:3])
