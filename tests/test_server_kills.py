"""A server that is killed and started again, as systemd and Docker do it, and one without memory."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cv2
import forkserver
import numpy as np
import pytest
import small_models

pytest.importorskip("fastapi", reason="needs the extra 'studio'")
pytest.importorskip("python_multipart", reason="needs the extra 'studio'")

import httpx2
from listening import wait_until

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(sys.platform != "linux", reason="needs Linux"),
]


@contextlib.contextmanager
def started(model: Path, folder: Path, port: int) -> Iterator[subprocess.Popen[str]]:
    """A server on that port, whose files of requests lie in `folder`; it is up."""
    command = ["-m", "gancolor", "serve", "--run", str(model), "--port", str(port)]
    environment = {**os.environ, "TMPDIR": str(folder)}
    with forkserver.Popen(
        [*command, "--concurrency", "4", "--api-only"],
        stdout=subprocess.PIPE,
        text=True,
        env=environment,
    ) as server:
        try:
            assert server.stdout is not None
            while "serving on" not in (line := server.stdout.readline()):
                assert line, "the server ended"
            assert httpx2.get(f"http://127.0.0.1:{port}/healthz", timeout=120).status_code == 200
            yield server
        finally:
            server.kill()


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])


def picture(height: int, width: int) -> bytes:
    """A gray picture as PNG."""
    values = np.linspace(0, 255, width, dtype=np.uint8)
    done, data = cv2.imencode(".png", np.broadcast_to(values, (height, width)))
    assert done
    return bytes(data)


def files_in(folder: Path) -> list[str]:
    """The names of requests' files."""
    found = os.walk(folder)  # what vanishes meanwhile is no error
    return [name for _, _, names in found for name in names if name != "lock"]


class Clients:
    """Clients that send pictures until they are told to stop; each comes back when it is refused a
    connection, or loses it.
    """

    def __init__(self, port: int, count: int) -> None:
        self.address, self.stopped = f"http://127.0.0.1:{port}", threading.Event()
        self.statuses: list[int] = []
        self.lost = 0
        self.threads = [threading.Thread(target=self._send) for _ in range(count)]
        for thread in self.threads:
            thread.start()

    def _send(self) -> None:
        files = {"picture": ("old.png", picture(200, 200))}
        with httpx2.Client(base_url=self.address, timeout=120) as session:
            while not self.stopped.wait(0.1):
                try:
                    self.statuses.append(session.post("/v1/color", files=files).status_code)
                except httpx2.TransportError:
                    self.lost += 1

    def wait_for(self, more: int) -> None:
        """Wait until so many more pictures came."""
        goal = self.statuses.count(200) + more
        wait_until(lambda: self.statuses.count(200) >= goal, 300)

    def stop(self) -> None:
        self.stopped.set()
        for thread in self.threads:
            thread.join()


def test_a_killed_server_leaves_nothing_that_the_next_one_does_not_remove(tmp_path: Path) -> None:
    pytest.importorskip("av")
    import clips

    model = small_models.write(tmp_path / "m.safetensors")
    folder, port = tmp_path / "temporary", free_port()
    folder.mkdir()
    (folder / "somebody-elses").write_text("stays")
    clips.film(tmp_path / "old.mkv", frames=400)
    with contextlib.ExitStack() as stack:
        with started(model, folder, port) as server:
            clients = Clients(port, 6)
            stack.callback(clients.stop)
            (root,) = folder.glob("gancolor-serve-*")
            clients.wait_for(3)
            film = {"film": ("old.mkv", (tmp_path / "old.mkv").read_bytes())}
            taken = httpx2.post(f"{clients.address}/v1/films", files=film, timeout=120)
            assert taken.status_code == 202, taken.text
            wait_until(lambda: "picture.png" in files_in(folder))
            server.kill()
            assert server.wait() == -signal.SIGKILL
        assert "film.mkv" in files_in(root)
        with started(model, folder, port) as server:
            assert not root.exists()
            clients.wait_for(3)
            clients.stop()
            gone = httpx2.get(f"{clients.address}{taken.json()['self']}")
            assert gone.status_code == 404
            server.terminate()
            assert server.wait() == -signal.SIGTERM  # in order, and then by the signal
    assert clients.lost > 0
    assert set(clients.statuses) <= {200, 429}
    assert [path.name for path in folder.iterdir()] == ["somebody-elses"]


def test_without_memory_a_picture_is_refused_and_others_are_served(tmp_path: Path) -> None:
    import resource

    model = small_models.write(tmp_path / "m.safetensors")
    folder, port = tmp_path / "temporary", free_port()
    folder.mkdir()
    small, large = ({"picture": ("a.png", picture(side, side))} for side in (200, 8000))
    address = f"http://127.0.0.1:{port}/v1/color"
    with started(model, folder, port) as server:
        assert httpx2.post(address, files=small, timeout=120).status_code == 200
        status = Path(f"/proc/{server.pid}/status").read_text()
        now = re.search(r"VmSize:\s+(\d+) kB", status)
        assert now is not None
        limit = int(now[1]) * 1024 + (60 << 20)
        resource.prlimit(server.pid, resource.RLIMIT_AS, (limit, limit))
        for _ in range(3):
            answer: Any = httpx2.post(address, files=large, timeout=120)
            assert answer.status_code == 503
            assert "memory" in answer.json()["detail"] and answer.headers["retry-after"] == "30"
            assert httpx2.post(address, files=small, timeout=120).status_code == 200
        wait_until(lambda: files_in(folder) == [])
        server.terminate()
        assert server.wait() == -signal.SIGTERM
