"""Installing straight from a bundle, where the marketplace cannot be reached: REST."""

from __future__ import annotations

import asyncio
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Annotated

from fastapi import APIRouter, File, Form, UploadFile

from plugin_sdk.services import BundleOpener
from plugins.builtin.catalog.operations import Operations, describe
from plugins.builtin.catalog.rest import Installs, PluginOut, planned


def bundles_router(operations: Operations, bundles: Callable[[], BundleOpener]) -> APIRouter:
    """One route, for operators. A path of its own: its body may be as large as a bundle."""
    router = APIRouter(prefix="/bundles", tags=["plugins"])

    @router.post("/install", summary="Install a plugin and what it requires from a bundle, frozen when it was made")
    async def install(
        context: Installs,
        bundle: Annotated[UploadFile, File()],
        plugin: Annotated[str, Form(max_length=200)],
        version: Annotated[str, Form(max_length=200)] = "*",
        dry_run: Annotated[bool, Form()] = False,
        older: Annotated[bool, Form()] = False,
    ) -> list[PluginOut]:
        with tempfile.TemporaryDirectory(prefix="keelstone-bundle-") as folder:
            file = Path(folder) / "bundle"
            await asyncio.to_thread(_keep, bundle, file)
            async with bundles().opened(file, older=older) as market:
                if dry_run:
                    return [planned(m) for m in await operations.plan(plugin, version, market)]
                return [PluginOut(**describe(r)) for r in await operations.install(context, plugin, version, market)]

    return router


def _keep(upload: UploadFile, file: Path) -> None:
    with file.open("wb") as out:
        shutil.copyfileobj(upload.file, out)
