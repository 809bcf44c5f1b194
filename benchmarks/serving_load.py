"""`gancolor serve` under load: clients at once, torn bodies, clients that hang up, and a kill.

    OMP_WAIT_POLICY=passive python benchmarks/serving_load.py [--seconds 60] [--clients 50] [PICTURE...]

A server of its own with the model that comes with gancolor. Each client sends pictures one after
another and comes back when it is told to; beside them torn bodies are sent, clients hang up while
they wait, and the page is loaded again and again. Then: what was answered, how long it took, and
what the server's process holds before and after (Linux only). At last the process is killed under
the same load and started again, as systemd does it: what was lost, and what became of the files.
Without PICTURE it sends generated ones of 512 pixels.
"""

from __future__ import annotations

import argparse
import math
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
KILL_SECONDS = 15.0  # under load, before the kill and when the next server is up
SIDE = 512


class Load:
    """What happens in so many seconds, added up by all threads."""

    def __init__(self, address: str, bodies: list[bytes], seconds: float) -> None:
        self.end = time.monotonic() + seconds
        self.address, self.bodies = address, bodies
        self.statuses, self.torn = Counter[int](), Counter[int]()
        self.pages = Counter[int]()
        self.seconds: list[float] = []
        self.lost = 0

    def come_back(self, number: int) -> None:
        """A client that sends pictures until the end, and waits when it is told to."""
        with httpx2.Client(base_url=self.address, timeout=300) as session:
            while time.monotonic() < self.end:
                start = time.monotonic()
                body = self.bodies[number % len(self.bodies)]
                try:
                    answer = session.post("/v1/color", files={"picture": ("old.jpg", body)})
                except httpx2.HTTPError:
                    self.lost += 1
                    time.sleep(0.5)
                    continue
                self.statuses[answer.status_code] += 1
                if answer.status_code == 200:
                    self.seconds.append(time.monotonic() - start)
                elif answer.status_code == 429:
                    wait = float(answer.headers["retry-after"])
                    time.sleep(max(0.0, min(wait, self.end - time.monotonic())))

    def look(self) -> None:
        """A browser that loads the page once a second."""
        with httpx2.Client(base_url=self.address, timeout=300, follow_redirects=True) as session:
            while time.monotonic() < self.end:
                try:
                    self.pages[session.get("/").status_code] += 1
                except httpx2.HTTPError:
                    self.pages[0] += 1
                time.sleep(1)

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
    with tempfile.TemporaryDirectory() as name, Server(Path(name)) as server:
        measure(options, bodies, server)
        kill(options, bodies, server)
        server.stop()
        print(f"\nfiles that the server left when it had ended: {server.files()}")


class Server:
    """`gancolor serve` in a process, whose files lie in `scratch`."""

    def __init__(self, scratch: Path) -> None:
        self.scratch, self.port = scratch, 0
        self.start()

    def start(self) -> None:
        """Start it, at the port that it had before; it is up."""
        command = [sys.executable, "-m", "gancolor", "serve", "--run", "general"]
        self.process = subprocess.Popen(
            [*command, "--port", str(self.port), "--max-seconds", "300"],
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "TMPDIR": str(self.scratch)},
        )
        assert self.process.stdout is not None
        found = None
        while found is None:
            found = re.search(r"serving on (http\S+:(\d+)),", self.process.stdout.readline())
        self.address, self.port = found[1], int(found[2])

    def stop(self) -> None:
        """Tell it to end."""
        self.process.terminate()
        self.process.wait()

    def __enter__(self) -> Server:
        return self

    def __exit__(self, *_: object) -> None:
        self.process.kill()
        self.process.wait()

    def files(self) -> int:
        """How many files of requests there are."""
        return sum(path.is_file() and path.name != "lock" for path in self.scratch.rglob("*"))


def measure(options: argparse.Namespace, bodies: list[bytes], server: Server) -> None:
    """Print the tables."""
    warm = Load(server.address, bodies, 5)
    warm.come_back(0)
    before = held(server)
    load = Load(server.address, bodies, options.seconds)
    threads = [
        threading.Thread(target=load.come_back, args=(number,)) for number in range(options.clients)
    ]
    threads += [threading.Thread(target=load.send_torn), threading.Thread(target=load.hang_up)]
    threads += [threading.Thread(target=load.look)]
    start = time.monotonic()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    seconds = time.monotonic() - start
    alone = Load(server.address, bodies, 3)
    alone.come_back(0)
    rows = [
        {"what": "before", **before},
        {"what": f"after {seconds:.0f} s", **held(server)},
    ]
    statuses = ", ".join(f"{count} x {status}" for status, count in sorted(load.statuses.items()))
    torn = ", ".join(f"{count} x {status}" for status, count in sorted(load.torn.items()))
    print(f"{options.clients} clients: {statuses}; {load.lost} without an answer")
    print(f"{len(load.seconds) / seconds:.2f} pictures/s", end="; ")
    if len(load.seconds) > 1:
        spread = statistics.quantiles(load.seconds, n=20)
        print(f"seconds of an answer: median {spread[9]:.1f}, 95 % within {spread[18]:.1f}")
    print(f"{TORN} torn bodies: {torn}; {HANG_UPS} clients hung up; pages: {dict(load.pages)}")
    print(f"seconds alone: before {min(warm.seconds):.2f}, afterwards {min(alone.seconds):.2f}\n")
    print(tables.markdown(rows, digits=1))


def kill(options: argparse.Namespace, bodies: list[bytes], server: Server) -> None:
    """Kill the server under load, start it again, and print what became of clients and files."""
    load = Load(server.address, bodies, math.inf)
    threads = [
        threading.Thread(target=load.come_back, args=(number,)) for number in range(options.clients)
    ]
    for thread in threads:
        thread.start()
    time.sleep(KILL_SECONDS)
    server.process.kill()
    server.process.wait()
    killed, left = time.monotonic(), server.files()
    served = len(load.seconds)
    server.start()
    back = time.monotonic() - killed
    load.end = time.monotonic() + KILL_SECONDS
    for thread in threads:
        thread.join()
    print(
        f"\nkilled after {KILL_SECONDS} s: {left} files of requests were left, the next server was up"
        f" after {back:.1f} s; {served} pictures before, {len(load.seconds) - served} afterwards,"
        f" {load.lost} times no connection, statuses {dict(load.statuses)}; files of requests at the"
        f" end: {server.files()}"
    )


def held(server: Server) -> dict[str, float]:
    """What the server's process holds, a second after its last answer."""
    time.sleep(1)
    process = server.process.pid
    status = Path(f"/proc/{process}/status").read_text()
    found = re.search(r"VmRSS:\s+(\d+)", status)
    assert found is not None
    return {
        "MB of memory": int(found[1]) / 1e3,
        "open files": len(os.listdir(f"/proc/{process}/fd")),
        "threads": len(os.listdir(f"/proc/{process}/task")),
        "files of requests": server.files(),
    }


def parse_options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("pictures", nargs="*", type=Path, metavar="PICTURE")
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--clients", type=int, default=50)
    return parser.parse_args()


if __name__ == "__main__":
    main()
