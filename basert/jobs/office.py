"""What a process has that keeps files and batches: the database, the folder, and what is done with both."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from basert.config import AppConfig
from basert.jobs.batches import Batches
from basert.jobs.contents import Contents
from basert.jobs.database import Database
from basert.jobs.files import Files

DATABASE = "basert.sqlite"


@dataclass(frozen=True)
class Office:
    database: Database
    contents: Contents
    files: Files
    batches: Batches


def open_office(config: AppConfig, folder: Path) -> Office:
    """folder: --files-dir. Touches nothing yet. Raises ConfigError."""
    database = Database(config.database_url or f"sqlite:///{folder.absolute() / DATABASE}")
    contents = Contents(folder.absolute())
    return Office(database, contents, Files(database, contents, config), Batches(database, config))


def prepare(config: AppConfig) -> None:
    """Make folder and tables before any process needs them. Raises ConfigError."""
    if config.files_dir is None:
        return
    office = open_office(config, config.files_dir)
    try:
        office.contents.prepare()
        office.contents.belong_to(office.database.prepare())
    finally:
        office.database.close()
