"""Starting processes that Ctrl-C does not reach."""

from __future__ import annotations

import os
import signal
import subprocess
import sys

import pytest

from gancolor.data.interrupts import interrupts_held

_IS_BLOCKED = "import signal; print(signal.SIGINT in signal.pthread_sigmask(signal.SIG_BLOCK, ()))"


@pytest.mark.skipif(sys.platform == "win32", reason="signals of POSIX systems")
def test_ctrl_c_waits_and_never_reaches_a_process_that_is_started() -> None:
    done = []
    with pytest.raises(KeyboardInterrupt):
        with interrupts_held():
            os.kill(os.getpid(), signal.SIGINT)
            inside = subprocess.run([sys.executable, "-c", _IS_BLOCKED], capture_output=True, check=True, text=True)
            done.append(1)
        done.append(2)
    after = subprocess.run([sys.executable, "-c", _IS_BLOCKED], capture_output=True, check=True, text=True)
    assert (done, inside.stdout, after.stdout) == ([1], "True\n", "False\n")


def test_the_doctors_processes_load_no_torch() -> None:
    code = "import sys, gancolor.data.doctor.engine; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
