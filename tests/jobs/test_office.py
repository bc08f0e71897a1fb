"""What is refused before a server starts, and what two of them find there that start at once."""

from __future__ import annotations

import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from basert.config import AppConfig
from basert.errors import ConfigError
from basert.jobs.office import DATABASE, open_office, prepare
from basert.jobs.tables import VERSION, schema
from tests.jobs.conftest import Opener
from tests.postgres import Postgres


def refused(folder: Path, **settings: Any) -> str:
    with pytest.raises(ConfigError) as caught:
        prepare(AppConfig(files_dir=folder, **settings))
    return str(caught.value)


def test_a_folder_that_is_none(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    assert refused(tmp_path / "file").endswith("cannot be written (Not a directory); name another.")


def test_a_database_that_is_none(tmp_path: Path) -> None:
    (tmp_path / DATABASE).write_text("nonsense " * 1000)
    assert refused(tmp_path) == (
        "The database of files and batches cannot be used (file is not a database); "
        f"mend or remove {tmp_path / DATABASE}."
    )


def test_a_url_that_is_none(tmp_path: Path) -> None:
    assert (
        refused(tmp_path, database_url="postgresql+psycopg://u@:bad")
        == "--database-url is no URL of a database."
    )


def test_a_database_that_is_not_there(tmp_path: Path) -> None:
    said = refused(tmp_path, database_url=f"postgresql+psycopg://u@/x?host={tmp_path}")
    assert said.startswith("The database of files and batches cannot be used (connection ")
    assert said.endswith("; mend --database-url, or the database.")
    assert "\n" not in said


def test_tables_of_a_newer_version(opened: Opener) -> None:
    office = opened()
    with office.database.writing() as tx:
        tx.execute(sa.update(schema).values(version=VERSION + 1))
    with pytest.raises(ConfigError, match="was made by a newer basert"):
        office.database.prepare()


def test_a_folder_of_another_database(tmp_path: Path, postgres: Postgres) -> None:
    """Whose records do not tell of what is in it: it would be swept away."""
    prepare(AppConfig(files_dir=tmp_path))
    prepare(AppConfig(files_dir=tmp_path))
    said = refused(tmp_path, database_url=postgres.database())
    assert said == (
        f"--files-dir {tmp_path} has the files of another database; name another folder, or remove "
        f"{tmp_path / 'database'} to give these files up."
    )


def test_many_that_start_at_once(tmp_path: Path, database_url: str | None) -> None:
    config = AppConfig(files_dir=tmp_path, database_url=database_url)
    with ThreadPoolExecutor(6) as threads:
        list(threads.map(prepare, [config] * 6))
    office = open_office(config, tmp_path)
    with office.database.reading() as tx:
        assert list(tx.scalars(sa.select(schema.c.version))) == [VERSION]
    office.database.close()


def test_a_server_without_files_loads_no_database() -> None:
    code = "import sys, basert.http.worker, basert.supervisor.run, basert.cli.serve; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "sqlalchemy" not in done.stdout.split()
