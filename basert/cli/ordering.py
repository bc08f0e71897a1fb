"""What `load`, `unload` and `swap` share: an order to a running server, and how far it is while one waits."""

from __future__ import annotations

import asyncio
import contextlib
from typing import Any

from basert import progress
from basert.client import Client, RequestFailed
from basert.config import ServeConfig

POLL_SECONDS = 0.2
HERE = f"http://{ServeConfig.host}:{ServeConfig.port}"  # where a server is that nothing was said to


def ordered(
    url: str | None, api_key: str | None, path: str, body: dict[str, str], label: str, name: str = ""
) -> Any:
    """The answer to an order, after a bar. Raises RequestFailed.

    name: the model that is loaded meanwhile, if one is.
    """
    return asyncio.run(_ordered(url or HERE, api_key, path, body, label, name))


async def _ordered(
    url: str, api_key: str | None, path: str, body: dict[str, str], label: str, name: str
) -> Any:
    async with Client(url, api_key) as client:
        with progress.task(label, unit="%") as show:
            watching = asyncio.create_task(_watch(client, name, show)) if name else None
            try:
                return await client.post(path, body)
            finally:
                if watching is not None:
                    watching.cancel()
                    await asyncio.wait([watching])


async def _watch(client: Client, name: str, show: progress.Show) -> None:
    """Show how far a model is, once the server knows it."""
    while True:
        await asyncio.sleep(POLL_SECONDS)
        with contextlib.suppress(RequestFailed):
            card = await client.model(name)
            show((card.next or card).percent, 100)
