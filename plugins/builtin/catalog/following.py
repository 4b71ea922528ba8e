"""Asking the marketplace again and again, in the background, for as long as the platform runs."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable

from plugin_sdk import Background, KeelstoneError

logger = logging.getLogger(__name__)
EVERY_SECONDS = 900.0
FIRST_REST, LONGEST_REST = 5.0, 900.0
"""Seconds before a marketplace that does not answer is asked again, doubling."""


def follower(work: Callable[[], Awaitable[object]], what: str) -> Background:
    """Does ``work`` every quarter of an hour once it is started; ``what`` names it in the log."""

    async def run() -> None:
        rest = FIRST_REST
        while True:
            try:
                await work()
                rest = FIRST_REST
                await asyncio.sleep(EVERY_SECONDS)
                continue
            except KeelstoneError as error:
                logger.warning("%s can't be read (tried again in %.0f s): %s", what, rest, error)
            except Exception:
                logger.exception("%s could not be read; tried again in %.0f s", what, rest)
            await asyncio.sleep(rest)
            rest = min(rest * 2, LONGEST_REST)

    return Background(run, what)
