"""Short runs of the campaigns against downloads, remote shards and `gancolor sample`; their scripts
do longer ones.
"""

from __future__ import annotations

import sys
from pathlib import Path

import campaign_kills
import campaign_network
import pytest


@pytest.mark.slow
def test_a_server_that_does_everything_wrong(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("no_proxy", "*")
    counts = campaign_network.campaign(seed=3, rounds=40)
    assert sum(counts.values()) == 80 and len(counts) == 4


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="signals of POSIX systems")
def test_a_batch_that_is_killed_again_and_again(tmp_path: Path) -> None:
    run = campaign_kills.train_small(tmp_path / "runs")
    counts = campaign_kills.campaign(run, tmp_path, seed=3, rounds=2)
    assert counts["gone on with to the end"] == 2
