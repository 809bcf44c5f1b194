"""A stand-in for the Hub's data sets on this machine: one repository of files at one commit."""

from __future__ import annotations

import hashlib
import json
from http.server import BaseHTTPRequestHandler
from typing import Any
from urllib.parse import unquote, urlsplit

from serving import LocalServer

COMMIT = "c" * 40


class DatasetHub(LocalServer):
    """Serves `files` by their paths as those of the data set owner/name."""

    def __init__(self, files: dict[str, bytes]) -> None:
        self.files, self.asked = files, list[str]()
        super().__init__(_Handler)


class _Handler(BaseHTTPRequestHandler):
    server: DatasetHub

    def _answer(self) -> None:
        path = unquote(urlsplit(self.path).path)
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        self.server.asked.append(f"{self.command} {path}")
        repository = "/api/datasets/owner/name"
        if path.startswith("/datasets/owner/name/resolve/"):
            self._resolve(path.split("/", 6)[6])
        elif path.startswith(f"{repository}/tree/"):
            self._json(self._tree(path.split("/", 7)[7] if path.count("/") > 6 else ""))
        elif path.startswith(f"{repository}/paths-info/"):
            asked = json.loads(body)["paths"] if body.startswith(b"{") else []
            self._json([each for name in asked for each in self._about(name)])
        elif path == repository or path.startswith(f"{repository}/revision/"):
            self._json({"id": "owner/name", "sha": COMMIT, "siblings": []})
        else:
            self._send(404, b"{}", {"X-Error-Code": "RepoNotFound"})

    do_GET = do_POST = do_HEAD = _answer

    def _about(self, path: str) -> list[dict[str, Any]]:
        if path in self.server.files:
            data = self.server.files[path]
            oid = hashlib.sha1(data).hexdigest()
            return [{"type": "file", "path": path, "size": len(data), "oid": oid}]
        if any(name.startswith(f"{path}/") for name in self.server.files):
            return [{"type": "directory", "path": path, "size": 0, "oid": "d" * 40}]
        return []

    def _tree(self, folder: str) -> list[dict[str, Any]]:
        inside = f"{folder}/" if folder else ""
        names = {
            inside + name.removeprefix(inside).split("/")[0]
            for name in self.server.files
            if name.startswith(inside)
        }
        return [each for name in sorted(names) for each in self._about(name)]

    def _resolve(self, path: str) -> None:
        data = self.server.files.get(path)
        if data is None:
            self._send(404, b"", {"X-Error-Code": "EntryNotFound"})
            return
        headers = {"ETag": f'"{hashlib.sha1(data).hexdigest()}"', "X-Repo-Commit": COMMIT}
        asked = self.headers.get("Range", "")
        if asked:
            first, _, last = asked.removeprefix("bytes=").partition("-")
            end = min(int(last) + 1 if last else len(data), len(data))
            headers["Content-Range"] = f"bytes {first}-{end - 1}/{len(data)}"
            data = data[int(first) : end]
        self._send(206 if asked else 200, data, headers)

    def _json(self, content: Any) -> None:
        self._send(200, json.dumps(content).encode(), {"Content-Type": "application/json"})

    def _send(self, status: int, body: bytes, headers: dict[str, str]) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        """Quiet."""
