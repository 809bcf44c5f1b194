"""Command lines run in children of one process that has imported the package: `python ARGUMENTS...`
in milliseconds.

`run` and `Popen` are those of `subprocess`, for what follows Python in an argument list. A child is
a command as any other: its own process, exit code, signals, working folder, environment and files.
What it does not show is a cold start: imports, and what the interpreter's own options do. Tests of
those start a real Python.
"""

from __future__ import annotations

import atexit
import contextlib
import gc
import inspect
import json
import os
import runpy
import select
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import types
from collections.abc import Iterator, Sequence
from typing import Any, NoReturn

import narrow
import paintings
import pytest

ADDRESS = "GANCOLOR_TEST_FORKSERVER"
"""The variable that holds the path of the server's socket; a test session starts one server and
sets it.
"""
NARROW = "GANCOLOR_TEST_NARROW"
"""The variable that asks for the narrow networks of `narrow.py` in a child."""
MOST_KEPT = 8
"""How many `pass_fds` a child can have."""

# The longest chains of what the commands of the tests import.
_IMPORTS = (
    "albumentations gancolor.cli.evaluate gancolor.cli.evaluate gancolor.cli.reproduce"
    " gancolor.cli.sample gancolor.cli.train gancolor.data.doctor.preparation"
    " gancolor.coloring.colorizer gancolor.data.shard_stream gancolor.training"
    " gancolor.training.run gancolor._torchvision torchvision.models torch._dynamo"
    " torch.distributed.elastic.agent.server.local_elastic_agent"
).split()


# --- in the tests ---


class Popen(subprocess.Popen):
    """As subprocess.Popen, but the command is `python ARGUMENTS...`, given without Python, in a
    child of the server.
    """

    def _execute_child(self, *args: Any, **options: Any) -> None:
        given = (
            inspect.signature(subprocess.Popen._execute_child)
            .bind(self, *args, **options)
            .arguments
        )
        ends = [given[name] for name in ("p2cread", "c2pwrite", "errwrite")]
        request = {
            "arguments": [os.fspath(argument) for argument in given["args"]],
            "cwd": os.fspath(given["cwd"] or os.getcwd()),
            "environment": dict(os.environ if given["env"] is None else given["env"]),
            "session": given["start_new_session"],
            "kept": list(given["pass_fds"]),
        }
        self._connection = socket.socket(socket.AF_UNIX)
        self._connection.connect(os.environ[ADDRESS])
        words = json.dumps(request).encode()
        self._connection.sendall(len(words).to_bytes(4, "big"))
        ends = [own if end == -1 else end for own, end in enumerate(ends)]
        socket.send_fds(self._connection, [b"f"], [*ends, *given["pass_fds"]])
        self._connection.sendall(words)
        self._answers = self._connection.makefile("r")
        self.pid = int(self._answers.readline())
        self._child_created = True
        pipes = "p2cread p2cwrite c2pread c2pwrite errread errwrite".split()
        self._close_pipe_fds(*(given[name] for name in pipes))

    def _try_wait(self, wait_flags: int) -> tuple[int, int]:
        if wait_flags & os.WNOHANG and not select.select([self._connection], [], [], 0)[0]:
            return 0, 0
        status = int(self._answers.readline())
        self._answers.close()
        self._connection.close()
        return self.pid, status

    def _internal_poll(self, *_: Any, **__: Any) -> int | None:
        if self.returncode is None:
            pid, status = self._try_wait(os.WNOHANG)
            if pid:
                self._handle_exitstatus(status)
        return self.returncode


def run(
    arguments: list[str],
    *,
    input: str | None = None,
    timeout: float | None = 120,
    check: bool = False,
    **options: Any,
) -> subprocess.CompletedProcess[str]:
    """As subprocess.run, with text and captured output."""
    options = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True} | options
    if input is not None:
        options["stdin"] = subprocess.PIPE
    with Popen(arguments, **options) as process:
        try:
            output, errors = process.communicate(input, timeout)
        except BaseException:
            process.kill()
            raise
    done = subprocess.CompletedProcess(arguments, process.returncode, output, errors)
    if check:
        done.check_returncode()
    return done


def start_ranks(
    arguments: list[str], world: int = 2, env: dict[str, str] | None = None, **options: Any
) -> list[Popen]:
    """Start a command in `world` processes with the variables that torchrun gives to its own."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        meeting = {
            "MASTER_ADDR": "127.0.0.1",
            "MASTER_PORT": str(free.getsockname()[1]),
            "WORLD_SIZE": str(world),
        }
    options = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True} | options
    processes = []
    for rank in map(str, range(world)):
        environment = {
            **(os.environ if env is None else env),
            **meeting,
            "RANK": rank,
            "LOCAL_RANK": rank,
        }
        processes.append(Popen(arguments, env=environment, **options))
    return processes


def run_ranks(
    arguments: list[str], world: int = 2, env: dict[str, str] | None = None, **options: Any
) -> subprocess.CompletedProcess[str]:
    """As `start_ranks`, until all have ended; their outputs joined.

    The exit code is the first that is not 0. What torchrun itself does, ending all when one fails,
    is not shown.
    """
    processes = start_ranks(arguments, world, env, **options)
    outputs, errors = zip(*(process.communicate(timeout=120) for process in processes), strict=True)
    code = next((process.returncode for process in processes if process.returncode), 0)
    return subprocess.CompletedProcess(arguments, code, "".join(outputs), "".join(errors))


def spawn_here(patch: pytest.MonkeyPatch) -> None:
    """Let the processes that multiprocessing spawns be children of the server too, until `patch`
    undoes it.

    What they are given is pickled and what they were not given is missing, as in a new Python.
    """
    from multiprocessing import popen_spawn_posix, util

    children: dict[int, Popen] = {}
    whole, polled = util.spawnv_passfds, popen_spawn_posix.Popen.poll

    def start(path: bytes, arguments: list[str], kept: Sequence[int]) -> int:
        if "--multiprocessing-fork" not in arguments:  # its tracker of what is to be removed
            return whole(path, arguments, kept)
        words = arguments[arguments.index("-c") :]
        process = Popen(words, pass_fds=kept)
        children[process.pid] = process
        return process.pid

    def poll(process: popen_spawn_posix.Popen, flag: int = os.WNOHANG) -> int | None:
        if process.returncode is not None or process.pid not in children:
            return polled(process, flag)
        child = children[process.pid]
        process.returncode = child.poll() if flag == os.WNOHANG else child.wait()
        if process.returncode is not None:
            del children[process.pid]
        return process.returncode

    patch.setattr(util, "spawnv_passfds", start)
    patch.setattr(popen_spawn_posix.Popen, "poll", poll)


@contextlib.contextmanager
def server(path: str) -> Iterator[None]:
    """Run a server at the socket `path`, whose folder must exist, and name it in the environment."""
    with subprocess.Popen(
        [sys.executable, __file__, path], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as process:
        assert process.stdin is not None and process.stdout is not None
        process.stdout.readline()  # it listens
        os.environ[ADDRESS] = path
        try:
            yield
        finally:
            del os.environ[ADDRESS]
            process.stdin.close()  # by which it ends


# --- in the server ---


def serve(path: str) -> dict[str, Any] | None:
    """Fork a child for each request, until standard input ends. In a child return its request, in
    the server None.
    """
    listening = socket.socket(socket.AF_UNIX)
    listening.bind(path)
    listening.listen()
    print("listening", flush=True)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the tests
    woken, wake = os.pipe()
    os.set_blocking(wake, False)
    signal.set_wakeup_fd(wake, warn_on_full_buffer=False)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    children: dict[int, socket.socket] = {}
    while True:
        ready, _, _ = select.select([listening, woken, 0], [], [])
        if woken in ready:
            os.read(woken, 4096)
            _report(children)
        if listening in ready:
            connection, _ = listening.accept()
            if (request := _fork(connection, children)) is not None:
                for each in (listening, connection, *children.values()):
                    each.close()
                for end in (woken, wake):
                    os.close(end)
                _keep(request["kept"])
                return request
        if 0 in ready:  # nothing is ever written there: it is closed
            return None


def _fork(connection: socket.socket, children: dict[int, socket.socket]) -> dict[str, Any] | None:
    """Read a request and fork. In the child, with everything set as asked, return the request; None
    in the server.
    """
    length = int.from_bytes(connection.recv(4, socket.MSG_WAITALL), "big")
    _, ends, _, _ = socket.recv_fds(connection, 1, 3 + MOST_KEPT)
    request: dict[str, Any] = json.loads(connection.recv(length, socket.MSG_WAITALL))
    if "torch" not in sys.modules:  # the first time
        for name in _IMPORTS:
            __import__(name)
        gc.collect()
        gc.freeze()  # so that the children's collector leaves the shared memory alone
    pid = os.fork()
    if pid:
        for end in ends:
            os.close(end)
        children[pid] = connection
        with contextlib.suppress(OSError):
            connection.sendall(f"{pid}\n".encode())
        return None
    signal.set_wakeup_fd(-1)
    for kind in (signal.SIGCHLD, signal.SIGTERM):
        signal.signal(kind, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    for own, end in enumerate(ends[:3]):
        os.dup2(end, own)
        os.close(end)
    request["kept"] = dict(zip(ends[3:], request["kept"], strict=True))
    if request["session"]:
        os.setsid()
    os.chdir(request["cwd"])
    os.environ.clear()
    os.environ.update(request["environment"])
    tempfile.tempdir = None  # what the server found in its own
    return request


def _keep(kept: dict[int, int]) -> None:
    """Give files that came with a request the numbers that they have where it comes from."""
    import fcntl

    aside = {fcntl.fcntl(came, fcntl.F_DUPFD, 1000): number for came, number in kept.items()}
    for came in kept:
        os.close(came)
    for end, number in aside.items():
        os.dup2(end, number)
        os.close(end)


def _report(children: dict[int, socket.socket]) -> None:
    """Tell of the children that have ended."""
    for pid in list(children):
        ended, status = os.waitpid(pid, os.WNOHANG)
        if ended:
            connection = children.pop(pid)
            with contextlib.suppress(OSError):  # nobody asks any more
                connection.sendall(f"{status}\n".encode())
            connection.close()


def execute(arguments: list[str]) -> None:
    """Do what `python ARGUMENTS...` does: a module, a command or a script, as __main__."""
    if os.environ.get(NARROW):
        narrow.narrow_networks()
    if os.environ.get(paintings.FOLDER):
        paintings.keep_paintings()
    paths = [path for path in os.environ.get("PYTHONPATH", "").split(os.pathsep) if path]
    first, *rest = arguments
    sys.path[0:1] = [
        "" if first.startswith("-") else os.path.dirname(os.path.abspath(first)),
        *paths,
    ]
    if first == "-m":
        sys.argv = rest
        runpy.run_module(rest[0], run_name="__main__", alter_sys=True)
    elif first == "-c":
        sys.argv = ["-c", *rest[1:]]
        sys.modules["__main__"] = main = types.ModuleType("__main__")
        exec(compile(rest[0], "<string>", "exec"), main.__dict__)
    else:
        sys.argv = arguments
        runpy.run_path(first, run_name="__main__")


def end(code: int) -> NoReturn:
    """End as Python does, but without taking every module apart: that would copy the memory that a
    child shares with the server.
    """
    threading._shutdown()  # type: ignore[attr-defined]
    atexit._run_exitfuncs()
    try:
        for stream in (sys.stdout, sys.stderr):
            if stream is not None and not stream.closed:
                stream.flush()
    except OSError:
        sys.exit(code)  # Python's own end tells of it
    os._exit(code & 0xFF)


def main(path: str) -> None:
    """Serve; in a child, be the command."""
    asked = serve(path)
    if asked is None:
        return
    try:
        execute(asked["arguments"])
    except SystemExit as wanted:
        if not isinstance(wanted.code, int | None):
            raise
        end(wanted.code or 0)
    end(0)


if __name__ == "__main__":
    main(sys.argv[1])
