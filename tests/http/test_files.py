"""/v1/files over HTTP: what is kept, told, sent in parts, deleted, and refused."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from falcon.testing import ASGIConductor, Result

from basert.config import AppConfig
from basert.jobs import contents
from basert.jobs.office import Office, open_office, prepare
from tests.http.fakes import FakeModels, fake_app

BOUNDARY = "x7x"
KIND = f"multipart/form-data; boundary={BOUNDARY}"
KEYS = ("one", "other")


def form(content: bytes, fields: dict[str, str], filename: str = "a.txt") -> bytes:
    parts = [
        f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="{name}"\r\n\r\n{value}\r\n'.encode()
        for name, value in fields.items()
    ]
    head = f'Content-Disposition: form-data; name="file"; filename="{filename}"\r\n\r\n'
    parts.append(f"--{BOUNDARY}\r\n{head}".encode() + content + b"\r\n")
    return b"".join(parts) + f"--{BOUNDARY}--\r\n".encode()


class Client:
    """Of a server that keeps files."""

    def __init__(self, conductor: ASGIConductor, folder: Path) -> None:
        self.folder = folder
        self._conductor = conductor

    async def ask(self, method: str, path: str, key: str = "one", **options: Any) -> Result:
        headers = {"Authorization": f"Bearer {key}"} | options.pop("headers", {})
        return await self._conductor.simulate_request(method, path, headers=headers, **options)

    async def post(
        self, content: bytes = b"hello", key: str = "one", filename: str = "a.txt", **fields: str
    ) -> Result:
        body = form(content, {"purpose": "user_data"} | fields, filename)
        return await self.ask("POST", "/v1/files", key, body=body, headers={"Content-Type": KIND})

    async def put(self, content: bytes = b"hello", key: str = "one", **fields: str) -> dict[str, Any]:
        result = await self.post(content, key, **fields)
        assert result.status_code == 200, result.text
        told: dict[str, Any] = result.json
        return told

    async def listed(self, key: str = "one", **params: Any) -> dict[str, Any]:
        result = await self.ask("GET", "/v1/files", key, params=params)
        assert result.status_code == 200, result.text
        told: dict[str, Any] = result.json
        return told

    def on_disk(self) -> set[str]:
        return {path.name for path in (self.folder / contents.CONTENTS).iterdir()}


async def _client(models: FakeModels, folder: Path, **settings: Any) -> AsyncIterator[Client]:
    settings = {"api_key": KEYS, "files_dir": folder} | settings
    prepare(AppConfig(**settings))
    async with ASGIConductor(fake_app(models, **settings)) as conductor:
        yield Client(conductor, folder)


@pytest.fixture
async def client(models: FakeModels, tmp_path: Path) -> AsyncIterator[Client]:
    async for client in _client(models, tmp_path / "files"):
        yield client


@pytest.fixture
async def tight(models: FakeModels, tmp_path: Path) -> AsyncIterator[Client]:
    limits = {"files_max_bytes": 2048, "files_quota_bytes": 5000, "files_key_quota_bytes": 3000}
    async for client in _client(models, tmp_path / "files", **limits):
        yield client


@pytest.fixture
def office(client: Client) -> Office:
    """As another process of the same server has it."""
    return open_office(AppConfig(), client.folder)


def error(result: Result, status: int) -> dict[str, Any]:
    assert result.status_code == status, result.text
    told: dict[str, Any] = result.json["error"]
    assert set(told) == {"message", "type", "param", "code"}
    return told


async def test_what_is_uploaded_is_told_listed_sent_and_deleted(client: Client) -> None:
    told = await client.put(b"some\r\n\0bytes", purpose="assistants")
    assert told["object"] == "file"
    assert (told["bytes"], told["purpose"], told["filename"], told["status"]) == (
        *(12, "assistants", "a.txt", "processed"),
    )
    assert told["expires_at"] - told["created_at"] == 30 * 86400
    assert client.on_disk() == {told["id"]}
    path = f"/v1/files/{told['id']}"
    assert (await client.ask("GET", path)).json == told
    assert (await client.listed())["data"] == [told]
    sent = await client.ask("GET", f"{path}/content")
    assert sent.content == b"some\r\n\0bytes"
    assert sent.headers["content-type"] == "application/octet-stream"
    assert (await client.ask("DELETE", path)).json == {"id": told["id"], "object": "file", "deleted": True}
    for method, where in (("GET", path), ("GET", f"{path}/content"), ("DELETE", path)):
        assert error(await client.ask(method, where), 404)["message"] == f"No such file: '{told['id']}'."
    assert client.on_disk() == set()


async def test_a_file_is_nobody_elses(client: Client) -> None:
    path = f"/v1/files/{(await client.put())['id']}"
    for method, where in (("GET", path), ("GET", f"{path}/content"), ("DELETE", path)):
        error(await client.ask(method, where, "other"), 404)
    assert (await client.listed("other"))["data"] == []
    assert len((await client.listed("one"))["data"]) == 1


async def test_lists_go_a_page_at_a_time(client: Client) -> None:
    names = [(await client.put(purpose=purpose))["id"] for purpose in ["vision", "evals"] * 3]
    seen, after = [], {}
    while True:
        page = await client.listed(limit=4, order="asc", **after)
        seen += [one["id"] for one in page["data"]]
        assert (page["first_id"], page["last_id"]) == (page["data"][0]["id"], page["data"][-1]["id"])
        if not page["has_more"]:
            break
        after = {"after": page["last_id"]}
    assert seen == names
    assert [one["id"] for one in (await client.listed())["data"]] == names[::-1]
    assert [one["id"] for one in (await client.listed(purpose="evals", order="asc"))["data"]] == names[1::2]
    assert await client.listed(purpose="none") == {
        **{"object": "list", "data": [], "first_id": None, "last_id": None, "has_more": False}
    }


@pytest.mark.parametrize(
    ("params", "param"),
    [
        ({"order": "up"}, "order"),
        ({"after": "file-0"}, "after"),
        ({"after": "file-" + "0" * 32}, "after"),
        ({"after": "\0"}, "after"),
        ({"purpose": "\0"}, "purpose"),
    ],
)
async def test_lists_that_cannot_be(client: Client, params: dict[str, str], param: str) -> None:
    assert error(await client.ask("GET", "/v1/files", params=params), 400)["param"] == param


@pytest.mark.parametrize("limit", ["0", "10001", "x"])
async def test_limits_of_lists(client: Client, limit: str) -> None:
    assert "limit" in error(await client.ask("GET", "/v1/files", params={"limit": limit}), 400)["message"]


@pytest.mark.parametrize(
    ("wanted", "status", "got", "range_"),
    [
        ("bytes=0-3", 206, b"0123", "bytes 0-3/10"),
        ("bytes=4-", 206, b"456789", "bytes 4-9/10"),
        ("bytes=-3", 206, b"789", "bytes 7-9/10"),
        ("bytes=-30", 206, b"0123456789", "bytes 0-9/10"),
        ("bytes=8-99", 206, b"89", "bytes 8-9/10"),
        ("bytes=0-1,3-4", 200, b"0123456789", None),
        ("lines=0-1", 200, b"0123456789", None),
        ("bytes=5-2", 200, b"0123456789", None),
        ("nonsense", 200, b"0123456789", None),
    ],
)
async def test_ranges(client: Client, wanted: str, status: int, got: bytes, range_: str | None) -> None:
    path = f"/v1/files/{(await client.put(b'0123456789'))['id']}/content"
    sent = await client.ask("GET", path, headers={"Range": wanted})
    assert (sent.status_code, sent.content, sent.headers.get("content-range")) == (status, got, range_)
    assert sent.headers["accept-ranges"] == "bytes"
    assert sent.headers["content-length"] == str(len(got))


async def test_a_range_behind_the_end(client: Client) -> None:
    path = f"/v1/files/{(await client.put(b'0123456789'))['id']}/content"
    refused = await client.ask("GET", path, headers={"Range": "bytes=10-"})
    error(refused, 416)
    assert refused.headers["content-range"] == "bytes */10"


async def test_a_range_of_what_the_client_has_in_part(client: Client) -> None:
    path = f"/v1/files/{(await client.put(b'0123456789'))['id']}/content"
    etag = (await client.ask("GET", path)).headers["etag"]
    same = await client.ask("GET", path, headers={"Range": "bytes=5-", "If-Range": etag})
    assert (same.status_code, same.content) == (206, b"56789")
    other = await client.ask("GET", path, headers={"Range": "bytes=5-", "If-Range": '"other"'})
    assert (other.status_code, other.content) == (200, b"0123456789")


async def test_an_empty_file(client: Client) -> None:
    told = await client.put(b"")
    assert (await client.ask("GET", f"/v1/files/{told['id']}/content")).content == b""


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"purpose": "batch_output"}, "purpose"),
        ({"purpose": "anything"}, "purpose"),
        ({"purpose": ""}, "purpose"),
        ({"expires_after[anchor]": "created_at"}, "expires_after.seconds"),
        ({"expires_after[seconds]": "3600"}, "expires_after.anchor"),
        ({"expires_after[anchor]": "now", "expires_after[seconds]": "3600"}, "expires_after.anchor"),
        ({"expires_after[anchor]": "created_at", "expires_after[seconds]": "60"}, "expires_after.seconds"),
        ({"expires_after[anchor]": "created_at", "expires_after[seconds]": "x"}, "expires_after.seconds"),
    ],
)
async def test_fields_that_are_refused(client: Client, fields: dict[str, str], param: str) -> None:
    assert error(await client.post(**fields), 400)["param"] == param
    assert client.on_disk() == set()


@pytest.mark.parametrize("name", ["a\tb", "x" * 513])
async def test_names_that_are_refused(client: Client, name: str) -> None:
    assert error(await client.post(filename=name), 400)["param"] == "file"


@pytest.mark.parametrize("name", ["../../etc/passwd", "/etc/passwd", "Grüße.jsonl", "a'b"])
async def test_names_are_only_told(client: Client, name: str) -> None:
    told = await client.put(filename=name)
    assert told["filename"] == name
    assert client.on_disk() == {told["id"]}


async def test_a_form_without_a_file(client: Client) -> None:
    body = form(b"", {}).partition(b"--x7x\r\n")[0] + b"--x7x--\r\n"
    refused = await client.ask("POST", "/v1/files", body=body, headers={"Content-Type": KIND})
    assert error(refused, 400)["param"] == "file"


async def test_an_upload_that_breaks_off_leaves_nothing(client: Client) -> None:
    body = form(b"x" * 100_000, {"purpose": "batch"})[:50_000]
    error(await client.ask("POST", "/v1/files", body=body, headers={"Content-Type": KIND}), 400)
    assert client.on_disk() == set()


async def test_limits_and_quotas(tight: Client) -> None:
    told = error(await tight.post(b"x" * 2049), 413)
    assert told["message"].startswith("The upload is larger than 2048 bytes")
    first = await tight.put(b"x" * 2000)
    mine = error(await tight.post(b"x" * 1001), 413)
    assert mine["code"] == "storage_quota_exceeded"
    assert mine["message"] == "Your files may take 3000 bytes here, and 2000 are taken; delete some first."
    await tight.put(b"x" * 1000)
    await tight.put(b"x" * 2000, "other")
    others = error(await tight.post(b"x", "other"), 413)
    assert others["message"].startswith("All files may take 5000 bytes here")
    assert len(tight.on_disk()) == 3
    await tight.ask("DELETE", f"/v1/files/{first['id']}")
    await tight.put(b"x", "other")


async def test_quotas_hold_for_uploads_at_the_same_time(tight: Client) -> None:
    results = await asyncio.gather(*(tight.post(b"x" * 1000) for _ in range(6)))
    assert sorted(result.status_code for result in results) == [200] * 3 + [413] * 3
    assert len(tight.on_disk()) == 3


async def test_what_has_expired_is_not_found_and_swept_away(client: Client, office: Office) -> None:
    fields = {"expires_after[anchor]": "created_at", "expires_after[seconds]": "3600"}
    told = await client.put(**fields)
    kept = await client.put()
    assert told["expires_at"] == told["created_at"] + 3600
    with office.database.writing() as tx:
        tx.exec_driver_sql(f"UPDATE basert_files SET expires_at = 1 WHERE id = '{told['id']}'")
    error(await client.ask("GET", f"/v1/files/{told['id']}"), 404)
    error(await client.ask("GET", f"/v1/files/{told['id']}/content"), 404)
    assert [one["id"] for one in (await client.listed())["data"]] == [kept["id"]]
    assert office.files.sweep() == 1
    assert client.on_disk() == {kept["id"]}
    office.database.close()


async def test_content_that_somebody_took_away(client: Client) -> None:
    told = await client.put()
    (client.folder / contents.CONTENTS / told["id"]).unlink()
    gone = error(await client.ask("GET", f"/v1/files/{told['id']}/content"), 404)
    assert gone["message"].endswith("is gone; upload it again.")
    assert (await client.ask("DELETE", f"/v1/files/{told['id']}")).status_code == 200


async def test_a_disk_that_is_full(client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    told = error(await client.post(), 503)
    assert told["message"] == "The server's disk for files is full; delete files, then try again."
    assert client.on_disk() == set()


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("POST", "/v1/files"),
        ("GET", "/v1/files"),
        ("GET", "/v1/files/file-1"),
        ("DELETE", "/v1/files/file-1"),
        ("GET", "/v1/files/file-1/content"),
        ("POST", "/v1/batches"),
        ("GET", "/v1/batches"),
        ("GET", "/v1/batches/batch_1"),
        ("POST", "/v1/batches/batch_1/cancel"),
    ],
)
async def test_a_server_without_a_folder_says_so(models: FakeModels, method: str, path: str) -> None:
    async with ASGIConductor(fake_app(models)) as conductor:
        told = error(await conductor.simulate_request(method, path), 404)
    assert told["message"] == "This server keeps no files and runs no batches; start it with --files-dir."
