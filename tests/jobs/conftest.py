"""Offices over either database, each its own."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from basert.config import AppConfig
from basert.jobs.office import Office, open_office, prepare
from tests.postgres import Postgres


@pytest.fixture(params=["sqlite", "postgresql"])
def database_url(request: pytest.FixtureRequest) -> str | None:
    """None: SQLite's in the folder of files."""
    if request.param == "sqlite":
        return None
    server: Postgres = request.getfixturevalue("postgres")
    return server.database()


Opener = Callable[..., Office]


@pytest.fixture
def opened(tmp_path: Path, database_url: str | None) -> Iterator[Opener]:
    """Opens an office, as one process of a server would: all of them in one folder."""
    offices = []

    def opener(**settings: Any) -> Office:
        config = AppConfig(files_dir=tmp_path / "files", database_url=database_url, **settings)
        prepare(config)
        offices.append(open_office(config, tmp_path / "files"))
        return offices[-1]

    yield opener
    for office in offices:
        office.database.close()


@pytest.fixture
def office(opened: Opener) -> Office:
    return opened()
