"""The fork server that other tests rely on: a child is a command as any other."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import forkserver
import pytest

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")


@pytest.mark.parametrize(
    "code",
    [
        "print('out'); import sys; print('err', file=sys.stderr)",
        "import sys; sys.exit(3)",
        "import sys; sys.exit('said')",
        "raise ValueError('no')",
        "import os; os._exit(7)",
        "import os, signal; os.kill(os.getpid(), signal.SIGKILL)",
        "import os, signal; os.kill(os.getpid(), signal.SIGTERM)",
        "raise KeyboardInterrupt",
        (
            "import os, sys; print(os.getcwd(), os.environ['OWN'], sys.argv, sys.path[0] == '',"
            " sys.stdin.read())"
        ),
        "import atexit; atexit.register(print, 'at the end')",
    ],
)
def test_a_command_ends_says_and_sees_what_a_real_one_does(code: str, tmp_path: Path) -> None:
    arguments = ["-c", code, "first", "second"]
    options = {"cwd": tmp_path, "env": {**os.environ, "OWN": "mine"}, "input": "given"}
    real = subprocess.run(
        [sys.executable, *arguments], capture_output=True, text=True, timeout=60, **options
    )
    made = forkserver.run(arguments, **options)
    assert (made.returncode, made.stdout) == (real.returncode, real.stdout)
    # a traceback shows the server's frames too
    assert made.stderr.splitlines()[-1:] == real.stderr.splitlines()[-1:]


def test_a_script_and_a_module_are_main(tmp_path: Path) -> None:
    (tmp_path / "own.py").write_text(
        "import beside, sys; print(__name__, sys.argv[1:], beside.VALUE)"
    )
    (tmp_path / "beside.py").write_text("VALUE = 5")
    assert forkserver.run([str(tmp_path / "own.py"), "a"]).stdout == "__main__ ['a'] 5\n"
    assert forkserver.run(["-m", "own", "a"], cwd=tmp_path).stdout == "__main__ ['a'] 5\n"
    paths = {**os.environ, "PYTHONPATH": str(tmp_path)}
    assert forkserver.run(["-c", "import beside; print(beside.VALUE)"], env=paths).stdout == "5\n"


def test_signals_reach_the_command_itself(tmp_path: Path) -> None:
    code = "import time; print('here', flush=True); time.sleep(60)"
    for kind in (signal.SIGINT, signal.SIGTERM, signal.SIGKILL):
        with forkserver.Popen(
            ["-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        ) as process:
            assert process.stdout is not None and process.stdout.readline() == "here\n"
            assert (
                process.poll() is None
                and Path(f"/proc/{process.pid}").exists() == Path("/proc").exists()
            )
            process.send_signal(kind)
            process.communicate(timeout=60)
        assert process.returncode == -kind


def test_commands_run_at_the_same_time_and_time_out(tmp_path: Path) -> None:
    wait = "import sys, time; from pathlib import Path; Path(sys.argv[1]).touch()\n"
    wait += "while not Path(sys.argv[2]).exists(): time.sleep(0.01)"
    one, two = (forkserver.Popen(["-c", wait, *names], cwd=tmp_path) for names in ("ab", "ba"))
    assert (one.wait(60), two.wait(60)) == (0, 0)
    with pytest.raises(subprocess.TimeoutExpired):
        forkserver.run(["-c", "import time; time.sleep(60)"], timeout=0.05)


def test_a_group_of_its_own_can_be_signalled() -> None:
    code = "import os, time; print(os.getpgrp() == os.getpid(), flush=True); time.sleep(60)"
    with forkserver.Popen(
        ["-c", code], stdout=subprocess.PIPE, text=True, start_new_session=True
    ) as process:
        assert process.stdout is not None and process.stdout.readline() == "True\n"
        os.killpg(process.pid, signal.SIGTERM)
        assert process.wait(60) == -signal.SIGTERM


def test_a_child_has_the_package_and_the_narrow_networks_before_it_begins() -> None:
    code = "import sys; print('torch' in sys.modules)\n"
    code += "from gancolor.models.backbones import VGG16; print(VGG16.TAPS[-1].channels)"
    assert forkserver.run(["-c", code]).stdout == "True\n64\n"
    own = {name: value for name, value in os.environ.items() if name != forkserver.NARROW}
    assert forkserver.run(["-c", code], env=own).stdout == "True\n512\n"
