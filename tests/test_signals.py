"""Starting processes that Ctrl-C does not reach."""

from __future__ import annotations

import subprocess
import sys

import pytest

# In a process of its own: where there are other threads, one of them may get the signal.
_SCRIPT = """
import os, signal, subprocess, sys
from gancolor.runtime.signals import interrupts_held
held = "import signal; print(signal.SIGINT in signal.pthread_sigmask(signal.SIG_BLOCK, ()))"
ask = [sys.executable, "-c", held]
try:
    with interrupts_held():
        os.kill(os.getpid(), signal.SIGINT)
        subprocess.run(ask, check=True)
        print("went on", flush=True)
    print("too late")
except KeyboardInterrupt:
    subprocess.run(ask, check=True)
"""


@pytest.mark.skipif(sys.platform == "win32", reason="signals of POSIX systems")
def test_ctrl_c_waits_and_never_reaches_a_process_that_is_started() -> None:
    done = subprocess.run(
        [sys.executable, "-c", _SCRIPT], capture_output=True, check=True, text=True
    )
    assert done.stdout.split("\n")[:3] == ["True", "went on", "False"]


def test_the_doctor_loads_no_torch() -> None:
    code = (
        "import sys, gancolor.data.doctor.preparation; sys.exit(bool({'torch', 'matplotlib'} &"
        " set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
