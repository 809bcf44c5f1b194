"""Tiny sets in shards for tests: pictures of one colour each that tells their number, and a server
that misbehaves.
"""

from __future__ import annotations

import functools
import http.server
import io
import json
import tarfile
import tempfile
from pathlib import Path

import cv2
import numpy as np
from serving import LocalServer

from gancolor.data import shard_packer


def jpeg(number: int, size: int = 16) -> bytes:
    """A JPEG file of one colour; `number_of` finds the number (below 625) in it."""
    rgb = np.empty((size, size, 3), np.uint8)
    rgb[:] = (10 * (number // 25) + 5, 10 * (number % 25) + 5, 128)
    return cv2.imencode(".jpg", rgb[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, 95])[1].tobytes()


def number_of(rgb) -> int:
    """The number of a picture, (3, H, W) or (H, W, 3), whatever was cut out of it."""
    values = np.asarray(rgb)
    red, green, blue = values[:, 0, 0] if values.shape[0] == 3 else values[0, 0]
    assert abs(int(blue) - 128) < 4
    return int(red) // 10 * 25 + int(green) // 10


def folder_of(folder: Path, train: int, val: int = 2, test: int = 2) -> Path:
    """A folder of numbered pictures, the first `train` of them for training, as its manifest says."""
    folder.mkdir()
    splits = ["train"] * train + ["val"] * val + ["test"] * test
    for number in range(len(splits)):
        (folder / f"{number:03d}.jpg").write_bytes(jpeg(number))
    rows = "".join(f"{number:03d}.jpg,{split}\n" for number, split in enumerate(splits))
    (folder / "manifest.csv").write_text("path,split\n" + rows)
    return folder


def packed(
    tmp_path: Path, train: int, shard_pictures: int = 20, broken: tuple[int, ...] = ()
) -> Path:
    """A packed set of `train` pictures to train on; the `broken` ones are damaged where they lie in
    their shards. It is packed once in a process.
    """
    out = tmp_path / f"shards-{train}"
    out.mkdir()
    for name, data in _pack(train, shard_pictures, broken, shard_packer.STRIDE).items():
        (out / name).write_bytes(data)
    return out


@functools.cache
def _pack(
    train: int, shard_pictures: int, broken: tuple[int, ...], stride: int
) -> dict[str, bytes]:
    with tempfile.TemporaryDirectory() as folder:
        out = _pack_into(Path(folder), train, shard_pictures, broken)
        return {path.name: path.read_bytes() for path in out.iterdir()}


def _pack_into(tmp_path: Path, train: int, shard_pictures: int, broken: tuple[int, ...]) -> Path:
    folder = tmp_path / f"set-{train}"
    out = tmp_path / f"shards-{train}"
    shard_packer.pack(str(folder_of(folder, train)), out, shard_pictures=shard_pictures)
    for shard in sorted(out.glob("*.tar")) if broken else []:
        with tarfile.open(shard) as tar:
            members = tar.getmembers()
            names = {
                m.name: json.loads(tar.extractfile(m).read())["path"]
                for m in members
                if m.name.endswith("json")
            }
        for member in members:
            if names.get(member.name.replace("jpg", "json")) in {
                f"{number:03d}.jpg" for number in broken
            }:
                if member.name.endswith("jpg"):
                    with shard.open("r+b") as file:
                        file.seek(member.offset_data)
                        file.write(bytes(member.size))
    return out


def write_tar(
    path: Path, members: list[tuple[str, bytes]], format: int = tarfile.PAX_FORMAT
) -> Path:
    """A tar file as others write it."""
    path.parent.mkdir(exist_ok=True)
    with tarfile.open(path, "w", format=format) as tar:
        for name, data in members:
            member = tarfile.TarInfo(name)
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data))
    return path


class ShardServer:
    """Serves a folder on 127.0.0.1. `requests`: (path, first byte asked for).

    `cut`: bytes after which every answer breaks off; `ranges`: whether it knows them; `statuses`:
    sent first, in turn.
    """

    def __init__(self, folder: Path, cut: int | None = None, ranges: bool = True) -> None:
        self.requests: list[tuple[str, int]] = []
        self.statuses: list[int] = []
        self.cut, self.ranges = cut, ranges
        owner = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                name = self.path.partition("?")[0].lstrip("/")
                asked = self.headers.get("Range", "bytes=0-")
                first = int(asked.removeprefix("bytes=").rstrip("-")) if owner.ranges else 0
                owner.requests.append((name, first))
                path = folder / name
                status = owner.statuses.pop(0) if owner.statuses else 200 if path.is_file() else 404
                if status != 200:
                    self.send_error(status)
                    return
                data = path.read_bytes()
                self.send_response(206 if first else 200)
                if first:
                    self.send_header("Content-Range", f"bytes {first}-{len(data) - 1}/{len(data)}")
                self.send_header("Content-Length", str(len(data) - first))
                self.end_headers()
                cut = owner.cut if name.endswith(".tar") else None
                try:
                    self.wfile.write(data[first:][:cut])
                except OSError:  # the reader has what it wanted
                    pass

            def log_message(self, *_: object) -> None:
                pass

        server = LocalServer(Handler)
        self.url, self.stop = server.address, server.stop
