"""Work on a Ray cluster of two nodes on this machine: what is lost with a node, an actor, a decoder."""

from __future__ import annotations

import importlib
import json
import os
import socket
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import cv2
import forkserver
import numpy as np
import pytest
import small_models
import torch

from gancolor import __version__
from gancolor.errors import ConfigError, MissingExtra
from gancolor.runtime import cluster, workers

if TYPE_CHECKING:
    from standin_s3 import Storage

# One cluster for all: to begin it takes longer than the work.
_SCRIPT = """
import contextlib, json, os, sys
from pathlib import Path
from ray.cluster_utils import Cluster as Nodes
from gancolor.batch import dispatch
from gancolor.batch.input_files import expand
from gancolor.batch.records import Report
from gancolor.batch.station import Station
from gancolor.coloring.colorizer import Colorizer
from gancolor.data.doctor import preparation
from gancolor.data.doctor.rules import Rules
from gancolor.data.doctor.set_plan import Plan
from gancolor.errors import ConfigError
from gancolor.hub.choice import Choice
from gancolor.runtime.cluster import Cluster
from gancolor.video.film_settings import FilmSettings
import treachery

old, model = Path("old"), Path("model.safetensors")
treachery.Treacherous.folder = Path.cwd()
settings = treachery.Treacherous(workers=1)
choice = Choice(model, "small", "", True)

def color(new, cluster=None, progress=lambda record: None):
    with Report(new) as report:
        items = expand(["old"], new)
        if cluster is None:
            loaded = Colorizer.load(model, device="cpu", precision="fp32")
            return dispatch.run(loaded, items, settings, report=report)
        station = Station((choice,), "cpu", "fp32", settings, FilmSettings())
        return dispatch.run_elsewhere(
            lambda chunks: cluster.spread(station, chunks),
            items, settings, report=report, progress=progress,
        )

KEPT = frozenset(["gray", "small", "near-duplicate", "duplicate", "single-tone", "blank"])
SMALL = {"num_cpus": 1, "object_store_memory": 80 << 20}

def prepare(name, elsewhere=None, source="old"):
    plan = Plan(
        name=name, sources=(source,), root=Path("sets"), rules=Rules(keep=KEPT),
        resize=16, workers=1,
    )
    return preparation.prepare(plan, lambda *about: None, elsewhere)

if __name__ == "__main__":
    local = color(Path("local"))
    nodes = Nodes(initialize_head=True, head_node_args=SMALL | {"include_dashboard": False})
    second = nodes.add_node(**SMALL)
    seen = []
    def note(record):
        seen.append(record)
        if len(seen) == 5:
            nodes.remove_node(second, allow_graceful=False)
    with Cluster(nodes.address) as cluster:
        nodes.wait_for_nodes()
        for what, path in (("--run", Path("nowhere.pt")), ("INPUT", old)):
            try:
                cluster.check([(what, path)], Path("far"))
            except ConfigError as error:
                print("refused:", error)
        made = color(Path("far"), cluster, note)
        print("counts", made.done, made.failed, local.done, local.failed)
        prepare("here")
        elsewhere = lambda station, chunks: cluster.spread(station, chunks)
        prepare("there", elsewhere)
        prepare("stored", elsewhere, "s3://cluster/old")
    nodes.shutdown()
"""


def paint(folder: Path, *names: str) -> None:
    folder.mkdir()
    for number, name in enumerate(names):
        shade = np.random.default_rng(number).integers(40, 200, (6, 8)).astype(np.uint8)
        assert cv2.imwrite(str(folder / name), cv2.resize(shade, (80, 60)))


@pytest.mark.slow
def test_a_cluster_loses_a_node_an_actor_and_a_decoder(tmp_path: Path, storage: Storage) -> None:
    pytest.importorskip("ray")
    paint(tmp_path / "old", *(f"{number:02d}.png" for number in range(24)), "13 deadly.png")
    (tmp_path / "old" / "text.png").write_text("no picture")
    storage.put_folder(tmp_path / "old", storage.bucket("cluster") + "/old")
    small_models.write(tmp_path / "model.safetensors")
    script = tmp_path / "script.py"
    script.write_text(_SCRIPT)
    paths = [str(place) for place in Path(__file__).resolve().parents[:2]]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(paths)}
    done = forkserver.run([str(script)], env=environment, cwd=tmp_path, timeout=600)
    assert done.returncode == 0, done.stderr
    lines = [line for line in done.stdout.splitlines() if line.startswith(("refused", "counts"))]
    (refused, counts) = lines
    assert "--run must be seen by every node, got " in refused and "nowhere.pt" in refused
    assert counts == "counts 24 2 24 2"
    assert (tmp_path / "killed").exists()
    far, local = tmp_path / "far", tmp_path / "local"
    records = [json.loads(line) for line in (far / "report.jsonl").read_text().splitlines()]
    assert sorted(Path(record["source"]).name for record in records) == sorted(
        os.listdir(tmp_path / "old")
    )
    failed = {Path(record["source"]).name: record["error"] for record in records if record["error"]}
    assert set(failed) == {"13 deadly.png", "text.png"}
    assert workers.DIED in failed["13 deadly.png"]
    # Every other once, whole, and the same as without a cluster.
    names = sorted(path.name for path in local.glob("*.png"))
    assert sorted(path.name for path in far.iterdir()) == [*names, "report.jsonl"]
    assert len(names) == 24
    for name in names:
        assert (far / name).read_bytes() == (local / name).read_bytes()
    here = tmp_path / "sets" / "here"
    copies = sorted(path.relative_to(here) for path in here.rglob("*.jpg"))
    assert len(copies) == 25
    for name, source in (("there", str(tmp_path / "old")), ("stored", "s3://cluster/old")):
        there = tmp_path / "sets" / name
        manifest = (there / "manifest.csv").read_text().replace(source, str(tmp_path / "old"))
        assert sorted(manifest.splitlines()) == sorted(
            (here / "manifest.csv").read_text().splitlines()
        )
        assert all((here / copy).read_bytes() == (there / copy).read_bytes() for copy in copies)
        assert sorted(path.name for path in (there / ".prepare").iterdir()) == sorted(
            path.name for path in (here / ".prepare").iterdir()
        )


@pytest.mark.parametrize(
    ("address", "words"),
    [
        ("old/", "got old/; write --ray=auto before an INPUT"),
        ("head", "--ray must be HOST:PORT or left without an address, got head"),
        ("ray://head:10001:x", "must be HOST:PORT"),
        ("127.0.0.1:1", "--ray must be the address of a Ray cluster that answers, got 127.0.0.1:1"),
        ("127.0.0.1:123456", "a Ray cluster that answers, got 127.0.0.1:123456"),
    ],
)
def test_a_wrong_address_is_said_before_any_work(address: str, words: str) -> None:
    with pytest.raises(ConfigError) as caught:
        cluster.check_address(address)
    assert words in str(caught.value)


def test_a_ray_that_was_killed_is_not_joined(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    monkeypatch.setenv("RAY_TMPDIR", str(tmp_path))
    cluster.check_address(cluster.AUTO)
    assert cluster._running() is None
    (tmp_path / "ray").mkdir()
    with socket.create_server(("127.0.0.1", 0)) as alive:
        address = f"127.0.0.1:{alive.getsockname()[1]}"
        (tmp_path / "ray" / "ray_current_cluster").write_text(address)
        assert cluster._running() == address
    assert cluster._running() is None
    monkeypatch.setenv("RAY_ADDRESS", address)
    assert cluster._running() == address
    with pytest.raises(ConfigError, match="a Ray cluster that answers, got 127"):
        cluster.check_address(cluster.AUTO)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["sample", "--ray=old/"], "--ray must be used with INPUT, got none"),
        (["sample", "old", "--out", "new", "--dry-run", "--ray"], "--dry-run must be used without"),
        (
            ["sample", "old", "--out", "new", "--workers", "0", "--ray"],
            "--workers must be at least 1",
        ),
        (["sample", "--out", "new", "--ray", "old"], "--ray must be used with INPUT, got none"),
        (["sample", "old", "--out", "new", "--ray", "old"], "got old; write --ray=auto"),
        (
            ["data", "prepare", "old", "--name", "a", "--ray", "127.0.0.1:1"],
            "that answers, got 127",
        ),
        (["data", "prepare", "old", "--name", "a", "--workers=0", "--ray"], "--workers must be at"),
    ],
)
def test_what_a_cluster_cannot_do_is_refused_at_once(
    cli: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: list[str], words: str
) -> None:
    monkeypatch.chdir(tmp_path)
    paint(tmp_path / "old", "a.png")
    result = cli(*arguments)
    assert result.exit_code == 2 and words in result.stderr, result.output
    assert len(result.stderr.strip().splitlines()) == 1
    assert os.listdir(tmp_path) == ["old"]


def test_without_the_package_one_line_says_how_to_install_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def missing(name: str) -> Any:
        raise ModuleNotFoundError(f"No module named '{name}'")

    monkeypatch.setattr(importlib, "import_module", missing)
    words = r"--ray must find .* got No module named 'ray'; install it: pip install 'gancolor\[cl"
    with pytest.raises(MissingExtra, match=words), cluster.Cluster():
        pass


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"gancolor": "0.0.1"}, r"the same gancolor, got 0.0.1 on far \(10.0.0.7\) and "),
        ({"torch": "1.0"}, "the same torch, got 1.0 on far"),
        ({"Python": "3.8"}, "the same Python, got 3.8 on far"),
        (
            {"missing": "No module named 'gancolor'"},
            "got .*No module named .gancolor.* on far .*pip",
        ),
        ({"error": "it was lost"}, "every node must answer, got nothing from far .* it was lost"),
        (
            {"hidden": [("--run", "/runs/7")]},
            "--run must be seen by every node, got /runs/7, which",
        ),
        (
            {"hidden": [("the folder of the results", "/out/.0.part")]},
            "the folder of the results must be seen by every node, got /out, which is not there on",
        ),
        ({"clock": 0.0}, r"the clocks of all nodes must agree to an hour, got .* s of .* on far"),
    ],
)
def test_a_node_that_differs_is_named(change: dict[str, Any], words: str) -> None:
    now = time.time()
    answer: dict[str, Any] = {
        "gancolor": __version__,
        "torch": torch.__version__,
        "Python": importlib.import_module("platform").python_version(),
        "clock": now,
        "asked": (now - 1, now + 1),
        "hidden": [],
    }
    cluster._check_answer("far (10.0.0.7)", answer)
    with pytest.raises(ConfigError, match=words) as caught:
        cluster._check_answer("far (10.0.0.7)", answer | change)
    assert "\n" not in str(caught.value)


def test_a_desk_gives_results_in_the_order_of_the_jobs() -> None:
    given: list[str] = []

    def rounds(chunks: Any) -> Any:
        held: list[str] = []
        for chunk in chunks:
            held += chunk
            given.extend(chunk)
            if len(held) == 2 or (held and not chunk):  # as a crew that ends the last job first
                yield [(job, job.upper()) for job in reversed(held)]
                held = []
            else:
                yield []

    desk = workers.JobDesk[str](rounds)
    assert desk(["a", "b", "c"]) == ["A", "B", "C"]
    assert desk([]) == [] and desk(["d"]) == ["D"]
    assert given == ["a", "b", "c", "d"]
