"""A model hub on 127.0.0.1 that serves one folder as org/model, as far as huggingface_hub asks."""

from __future__ import annotations

import hashlib
import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, Self

COMMIT = "0123456789abcdef0123456789abcdef01234567"
REFUSED = {  # repository -> (status, X-Error-Code)
    "org/gated": (403, "GatedRepo"),
    "org/unknown": (404, "RepoNotFound"),
}


class Hub(ThreadingHTTPServer):
    """`with Hub(folder) as hub:` then HF_ENDPOINT=hub.url; `hub.downloads` names the files that were sent."""

    def __init__(self, folder: Path) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.folder = folder
        self.downloads: list[str] = []
        self.url = f"http://127.0.0.1:{self.server_port}"

    def __enter__(self) -> Self:
        threading.Thread(target=self.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self.shutdown()
        self.server_close()


class _Handler(BaseHTTPRequestHandler):
    server: Hub

    def do_HEAD(self) -> None:
        self.do_GET(body=False)

    def do_GET(self, body: bool = True) -> None:
        path = self.path.partition("?")[0]
        for repo, (status, code) in REFUSED.items():
            if f"/{repo}/" in f"{path}/":
                return self._answer(status, b"{}", {"X-Error-Code": code, "X-Error-Message": "refused"})
        if path.startswith("/api/models/org/model/revision/"):
            if path.endswith("/nowhere"):
                return self._answer(404, b"{}", {"X-Error-Code": "RevisionNotFound"})
            return self._answer(200, _json({"id": "org/model", "sha": COMMIT, "siblings": []}))
        if path.startswith("/api/models/org/model/tree/"):
            return self._answer(200, _json([_entry(file) for file in sorted(self.server.folder.iterdir())]))
        return self._file(path.rpartition("/")[2], body)

    def _file(self, name: str, body: bool) -> None:
        path = self.server.folder / name
        if not path.is_file():
            return self._answer(404, b"{}", {"X-Error-Code": "EntryNotFound"})
        content = path.read_bytes()
        if body:
            self.server.downloads.append(name)
        headers = {"ETag": f'"{hashlib.sha1(content).hexdigest()}"', "X-Repo-Commit": COMMIT}
        return self._answer(200, content, headers, body)

    def _answer(
        self, status: int, content: bytes, headers: dict[str, str] | None = None, body: bool = True
    ) -> None:
        self.send_response(status)
        for name, value in {**(headers or {}), "Content-Length": str(len(content))}.items():
            self.send_header(name, value)
        self.end_headers()
        if body:
            self.wfile.write(content)

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002
        pass


def _entry(file: Path) -> dict[str, Any]:
    content = file.read_bytes()
    return {"type": "file", "path": file.name, "size": len(content), "oid": hashlib.sha1(content).hexdigest()}


def _json(value: Any) -> bytes:
    return json.dumps(value).encode()
