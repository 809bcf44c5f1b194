"""A stand-in for the Hub on this machine: repositories with commits, private ones, redirects, and
faults on request.
"""

from __future__ import annotations

import base64
import hashlib
import json
import sys
import traceback
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler
from typing import Any
from urllib.parse import unquote, urlsplit

from serving import LocalServer

TOKEN = "hf_good"


@dataclass
class Repository:
    """Commits by their names, each the files by theirs; `heads`: what branches and tags stand for."""

    private: bool = False
    heads: dict[str, str] = field(default_factory=dict)
    commits: dict[str, dict[str, bytes]] = field(default_factory=dict)

    def commit(self, files: dict[str, bytes]) -> str:
        """Add files on top of main; returns the new commit."""
        whole = {**self.commits.get(self.heads.get("main", ""), {}), **files}
        seed = repr(
            (
                self.heads.get("main"),
                sorted((name, hashlib.sha1(body).hexdigest()) for name, body in whole.items()),
            )
        )
        name = hashlib.sha1(seed.encode()).hexdigest()
        self.commits[name] = whole
        self.heads["main"] = name
        return name


class Hub(LocalServer):
    """`repositories` by owner/name. The rest says what goes wrong."""

    def __init__(self) -> None:
        super().__init__(_Handler)
        self.repositories: dict[str, Repository] = {}
        self.blobs: dict[str, bytes] = {}  # what was uploaded, by SHA-256
        self.asked: list[tuple[str, str, str | None]] = []  # method, path, Authorization
        self.elsewhere = ""  # an address to which files are redirected; "" serves them itself
        self.cut = 0  # bytes after which files end
        self.says_sums = True
        self.other: bytes | None = None  # sent instead of every file of a model
        self.status: dict[str, int] = {}  # part of a path -> answered instead
        self.answer: bytes | None = None  # instead of what is told of a model
        self.before_commit: Any = None  # called when a commit arrives

    def handle_error(self, request: object, client_address: object) -> None:
        """A client that hangs up is no news."""
        if not isinstance(sys.exception(), ConnectionError):
            traceback.print_exc()


class _Handler(BaseHTTPRequestHandler):
    server: Hub

    def do_GET(self) -> None:
        if not (parts := self._begin()):
            return
        if parts[:2] == ["api", "models"]:
            self._tell("/".join(parts[2:4]), unquote(parts[5]) if len(parts) > 5 else "main")
        elif len(parts) == 5 and parts[2] == "resolve":
            self._resolve("/".join(parts[:2]), parts[3], parts[4])
        elif parts[0] == "cdn":
            self._send(self.server.blobs[parts[1]])
        else:
            self._refuse(404)

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        if not (parts := self._begin()):
            return
        if self.headers.get("Authorization") != f"Bearer {TOKEN}":
            self._refuse(401, "RepoNotFound")
        elif parts == ["api", "repos", "create"]:
            self._create(json.loads(body))
        elif parts == ["api", "validate-yaml"]:
            self._json({"errors": [], "warnings": []})
        elif parts[4:5] == ["preupload"]:
            files = json.loads(body)["files"]
            modes = (
                "lfs" if file["path"].endswith(".safetensors") else "regular" for file in files
            )
            told = [
                {"path": f["path"], "uploadMode": m, "shouldIgnore": False}
                for f, m in zip(files, modes, strict=True)
            ]
            self._json({"files": told})
        elif parts[2:] == ["info", "lfs", "objects", "batch"]:
            objects = [
                {
                    **item,
                    "actions": {
                        "upload": {
                            "href": f"{self.server.address}/upload/{item['oid']}",
                            "header": {},
                        }
                    },
                }
                for item in json.loads(body)["objects"]
            ]
            self._json({"transfer": "basic", "objects": objects})
        elif parts[4:5] == ["commit"]:
            self._commit("/".join(parts[2:4]), [json.loads(line) for line in body.splitlines()])
        else:
            self._refuse(404)

    def do_PUT(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        if parts := self._begin():
            assert hashlib.sha256(body).hexdigest() == parts[1]
            self.server.blobs[parts[1]] = body
            self._json({})

    def _begin(self) -> list[str] | None:
        self.server.asked.append((self.command, self.path, self.headers.get("Authorization")))
        for part, status in self.server.status.items():
            if part in self.path:
                self._refuse(status)
                return None
        return urlsplit(self.path).path.strip("/").split("/")

    def _open(self, name: str) -> Repository | None:
        found = self.server.repositories.get(name)
        if found is None or (
            found.private and self.headers.get("Authorization") != f"Bearer {TOKEN}"
        ):
            self._refuse(404 if self.headers.get("Authorization") else 401, "RepoNotFound")
            return None
        return found

    def _tell(self, name: str, revision: str) -> None:
        if (found := self._open(name)) is None:
            return
        commit = found.heads.get(revision, revision)
        if commit not in found.commits:
            self._refuse(404, "RevisionNotFound")
            return
        if self.server.answer is not None:
            self._send(self.server.answer)
            return
        siblings = []
        for file, body in found.commits[commit].items():
            told: dict[str, Any] = {"rfilename": file, "size": len(body)}
            if file.endswith(".safetensors") and self.server.says_sums:
                told["lfs"] = {
                    "sha256": hashlib.sha256(body).hexdigest(),
                    "size": len(body),
                    "pointerSize": 130,
                }
            siblings.append(told)
        self._json({"id": name, "sha": commit, "private": found.private, "siblings": siblings})

    def _resolve(self, name: str, commit: str, file: str) -> None:
        if (found := self._open(name)) is None:
            return
        body = found.commits[commit][file]
        if self.server.elsewhere and file.endswith(".safetensors"):
            digest = hashlib.sha256(body).hexdigest()
            self.server.blobs[digest] = body
            self.send_response(302)
            self.send_header("Location", f"{self.server.elsewhere}/cdn/{digest}")
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        self._send(body if self.server.other is None else self.server.other)

    def _create(self, asked: dict[str, Any]) -> None:
        name = f"{asked['organization']}/{asked['name']}"
        if name in self.server.repositories:
            self._json(
                {
                    "error": "You already created this model repo",
                    "url": f"{self.server.address}/{name}",
                },
                409,
            )
            return
        made = self.server.repositories[name] = Repository(asked.get("visibility") == "private")
        made.commit({".gitattributes": b"*.safetensors filter=lfs\n"})
        self._json({"url": f"{self.server.address}/{name}", "name": name, "id": "1"})

    def _commit(self, name: str, lines: list[dict[str, Any]]) -> None:
        if self.server.before_commit is not None:
            self.server.before_commit()
        found = self.server.repositories[name]
        if lines[0]["value"].get("parentCommit") != found.heads["main"]:
            self._json({"error": "A commit has happened since. Please refresh and try again."}, 412)
            return
        files = {}
        for line in lines[1:]:
            value = line["value"]
            lfs = line["key"] == "lfsFile"
            files[value["path"]] = (
                self.server.blobs[value["oid"]] if lfs else base64.b64decode(value["content"])
            )
        commit = found.commit(files)
        url = f"{self.server.address}/{name}/commit/{commit}"
        self._json({"success": True, "commitOid": commit, "commitUrl": url, "hookOutput": ""})

    def _json(self, value: object, status: int = 200) -> None:
        self._send(json.dumps(value).encode(), status)

    def _refuse(self, status: int, code: str = "") -> None:
        self.send_response(status)
        if code:
            self.send_header("X-Error-Code", code)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def _send(self, body: bytes, status: int = 200) -> None:
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.send_header("Content-Type", "application/json")
        self.end_headers()
        cut = self.server.cut if "resolve" in self.path or "cdn" in self.path else 0
        self.wfile.write(body[:cut] if cut else body)

    def log_message(self, format: str, *args: object) -> None:
        """Quiet."""
