"""`python -m basert.jobs RUN_FOLDER`: the process that runs batches, with the HTTP app but no port.

Each line of a batch is a request to that app, in this process: so it is answered as it would be over the
wire, and the HTTP workers have no more to do.
"""

from __future__ import annotations

import asyncio
import dataclasses
import logging
import os
import signal
import sys
from pathlib import Path

from basert import config, logs
from basert.config import ServeConfig
from basert.errors import ConfigError
from basert.http.app import create_app
from basert.http.caller import for_key
from basert.http.models import Models
from basert.jobs.office import Office, open_office
from basert.jobs.running import Room
from basert.jobs.worker import Gates, Worker
from basert.resources.batches import check_model
from basert.supervisor.folder import CONFIG, CONTROL, RESPONSES

_log = logging.getLogger(__name__)


async def serve(settings: ServeConfig, folder: Path) -> None:
    """Until SIGTERM, or the supervisor's end. Raises ConfigError."""
    if settings.files_dir is None:
        raise ConfigError("Batches need --files-dir.")
    stopped = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stopped.set)
    office, again = (open_office(settings, settings.files_dir) for _ in range(2))
    models = Models(folder / CONTROL, on_orphaned=stopped.set, listens=False)
    gates = Gates(models, settings.batch_lines, settings.restart_limit)
    await models.start()
    try:
        room = _room(settings, folder, office, models, gates)
        await Worker(room, again.database).run(stopped)
    finally:
        gates.close()
        await models.stop()
        office.database.close()
        again.database.close()


def _room(settings: ServeConfig, folder: Path, office: Office, models: Models, gates: Gates) -> Room:
    unlimited = dataclasses.replace(settings, request_timeout=0.0)  # a line has the time that its batch has
    app = create_app(unlimited, models, folder / RESPONSES, folder)

    def check(model: str, endpoint: str, owner: str) -> None:
        with for_key(app.keys.of(owner)):
            check_model(model, endpoint, models)

    return Room(
        office.database,
        office.contents,
        office.files,
        settings,
        app,
        gates,
        check,
    )


def main() -> None:
    folder = Path(sys.argv[1])
    settings = config.from_json((folder / CONFIG).read_bytes())
    logs.setup("jobs", settings.log_format, settings.log_level)
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")  # the other CPUs are the engines'
    asyncio.run(serve(settings, folder))


if __name__ == "__main__":
    main()
