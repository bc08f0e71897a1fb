"""Waiting for something to become true: whoever changes anything tells, and whoever waits looks again."""

from __future__ import annotations

import asyncio
from collections.abc import Callable


class News:
    def __init__(self) -> None:
        self._event = asyncio.Event()

    def tell(self) -> None:
        """Something has changed."""
        self._event.set()
        self._event = asyncio.Event()

    async def until(self, true: Callable[[], bool], seconds: float | None = None) -> bool:
        """Wait until it is true; False if that has taken too long. Without `seconds` it may take for ever."""
        try:
            async with asyncio.timeout(seconds):
                while not true():
                    await self._event.wait()
        except TimeoutError:
            return False
        return True
