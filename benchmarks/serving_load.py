"""`gancolor serve` under load: clients at once, torn bodies, and clients that hang up.

    OMP_WAIT_POLICY=passive python benchmarks/serving_load.py [--seconds 60] [--clients 50] [PICTURE...]

A server of its own with the model that comes with gancolor. Each client sends pictures one after
another and comes back when it is told to; beside them torn bodies are sent, and clients hang up
while they wait. Then: what was answered, how long it took, and what the server's process holds
before and after (Linux only). Without PICTURE it sends generated ones of 512 pixels.
"""

from __future__ import annotations

import argparse
import os
import random
import re
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from pathlib import Path

import cv2
import httpx2
from train_step import describe_machine

from gancolor import tables
from gancolor.data.still_life import composition

TORN, HANG_UPS = 500, 100
SIDE = 512


class Load:
    """What happened, added up by all threads."""

    def __init__(self, address: str, bodies: list[bytes]) -> None:
        self.address, self.bodies = address, bodies
        self.statuses, self.torn = Counter[int](), Counter[int]()
        self.seconds: list[float] = []
        self.lost = 0

    def come_back(self, number: int, end: float) -> None:
        """A client that sends pictures until `end`, and waits when it is told to."""
        with httpx2.Client(base_url=self.address, timeout=300) as session:
            while time.monotonic() < end:
                start = time.monotonic()
                body = self.bodies[number % len(self.bodies)]
                try:
                    answer = session.post("/v1/color", files={"picture": ("old.jpg", body)})
                except httpx2.HTTPError:
                    self.lost += 1
                    continue
                self.statuses[answer.status_code] += 1
                if answer.status_code == 200:
                    self.seconds.append(time.monotonic() - start)
                elif answer.status_code == 429:
                    wait = float(answer.headers["retry-after"])
                    time.sleep(max(0.0, min(wait, end - time.monotonic())))

    def send_torn(self) -> None:
        """Bodies that are cut off or changed."""
        rng = random.Random(0)
        with httpx2.Client(base_url=self.address, timeout=300) as session:
            request = session.build_request(
                "POST", "/v1/color", files={"picture": ("old.jpg", self.bodies[0][:4000])}
            )
            body, kind = request.read(), request.headers["content-type"]
            for number in range(TORN):
                torn = bytearray(body)
                if number % 2:
                    del torn[rng.randrange(len(torn) - 30) :]
                else:
                    for _ in range(20):
                        torn[rng.randrange(len(torn))] = rng.randrange(256)
                answer = session.post(
                    "/v1/color", content=bytes(torn), headers={"content-type": kind}
                )
                self.torn[answer.status_code] += 1

    def hang_up(self) -> None:
        """Clients that send a picture, or half of one, and go."""
        host, port = self.address.removeprefix("http://").split(":")
        request = httpx2.Request(
            "POST", f"{self.address}/v1/color", files={"picture": ("old.jpg", self.bodies[0])}
        )
        body = request.read()
        head = "".join(f"{key}: {value}\r\n" for key, value in request.headers.items())
        for number in range(HANG_UPS):
            with socket.create_connection((host, int(port))) as connection:
                connection.sendall(f"POST /v1/color HTTP/1.1\r\n{head}\r\n".encode())
                connection.sendall(body[: len(body) // (1 + number % 2)])
                time.sleep(0.02)


def main() -> None:
    options = parse_options()
    bodies = [path.read_bytes() for path in options.pictures] or [
        bytes(cv2.imencode(".jpg", composition.paint(0, index, SIDE))[1]) for index in range(8)
    ]
    print(f"{describe_machine()}\n")
    with tempfile.TemporaryDirectory() as scratch:
        command = [sys.executable, "-m", "gancolor", "serve", "--run", "general", "--port", "0"]
        with subprocess.Popen(
            [*command, "--max-seconds", "300"],
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "TMPDIR": scratch},
        ) as server:
            try:
                assert server.stdout is not None
                found = None
                while found is None:
                    found = re.search(r"serving on (\S+),", server.stdout.readline())
                measure(options, Load(found[1], bodies), server.pid, Path(scratch))
            finally:
                server.terminate()
        left = list(Path(scratch).rglob("*"))
        print(f"\nfiles that the server left when it had ended: {len(left)}")


def measure(options: argparse.Namespace, load: Load, process: int, scratch: Path) -> None:
    """Print the tables."""
    warm = Load(load.address, load.bodies)
    warm.come_back(0, time.monotonic() + 5)
    before = held(process, scratch)
    end = time.monotonic() + options.seconds
    threads = [
        threading.Thread(target=load.come_back, args=(number, end))
        for number in range(options.clients)
    ]
    threads += [threading.Thread(target=load.send_torn), threading.Thread(target=load.hang_up)]
    start = time.monotonic()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    seconds = time.monotonic() - start
    alone = Load(load.address, load.bodies)
    alone.come_back(0, time.monotonic() + 3)
    rows = [
        {"what": "before", **before},
        {"what": f"after {seconds:.0f} s", **held(process, scratch)},
    ]
    statuses = ", ".join(f"{count} x {status}" for status, count in sorted(load.statuses.items()))
    torn = ", ".join(f"{count} x {status}" for status, count in sorted(load.torn.items()))
    print(f"{options.clients} clients: {statuses}; {load.lost} without an answer")
    print(f"{len(load.seconds) / seconds:.2f} pictures/s", end="; ")
    spread = statistics.quantiles(load.seconds, n=20)
    print(f"seconds of an answer: median {spread[9]:.1f}, 95 % within {spread[18]:.1f}")
    print(f"{TORN} torn bodies: {torn}; {HANG_UPS} clients hung up")
    print(f"seconds alone: before {min(warm.seconds):.2f}, afterwards {min(alone.seconds):.2f}\n")
    print(tables.markdown(rows, digits=1))


def held(process: int, scratch: Path) -> dict[str, float]:
    """What the server's process holds, a second after its last answer."""
    time.sleep(1)
    status = Path(f"/proc/{process}/status").read_text()
    found = re.search(r"VmRSS:\s+(\d+)", status)
    assert found is not None
    return {
        "MB of memory": int(found[1]) / 1e3,
        "open files": len(os.listdir(f"/proc/{process}/fd")),
        "threads": len(os.listdir(f"/proc/{process}/task")),
        "files of requests": sum(
            path.is_file() and path.name != "lock" for path in scratch.rglob("*")
        ),
    }


def parse_options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("pictures", nargs="*", type=Path, metavar="PICTURE")
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--clients", type=int, default=50)
    return parser.parse_args()


if __name__ == "__main__":
    main()
