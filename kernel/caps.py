"""Caps on what a guest's call may use, set by the operator for everybody or for one plan's tenants."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field


class Caps(BaseModel):
    """Upper bounds, in the manifest's words and units; what is left out is not bounded here.

    ``fuel`` has no counterpart in the manifest: WebAssembly instructions that a call may execute,
    roughly. Counting them costs every call some of its speed, so it is counted only where it is set.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    time_ms: int | None = Field(default=None, ge=1)
    memory_mb: int | None = Field(default=None, ge=1)
    input_kb: int | None = Field(default=None, ge=1)
    output_kb: int | None = Field(default=None, ge=1)
    host_calls: int | None = Field(default=None, ge=0)
    http_kb: int | None = Field(default=None, ge=0)
    kv_kb: int | None = Field(default=None, ge=0)
    kv_keys: int | None = Field(default=None, ge=0)
    events: int | None = Field(default=None, ge=0)
    log_lines: int | None = Field(default=None, ge=0)
    concurrency: int | None = Field(default=None, ge=1)
    ai_tokens: int | None = Field(default=None, ge=0)
    notices: int | None = Field(default=None, ge=0)
    tables: int | None = Field(default=None, ge=1)
    table_elements: int | None = Field(default=None, ge=0)
    instances: int | None = Field(default=None, ge=1)
    fuel: int | None = Field(default=None, ge=1_000)
