"""Work on a Ray cluster of two nodes on this machine: what is lost with a node, an actor, a decoder."""

from __future__ import annotations

import importlib
import json
import os
import socket
import time
from pathlib import Path
from types import SimpleNamespace
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
import os, threading, time
from pathlib import Path
from ray.cluster_utils import Cluster as Nodes
from gancolor import __version__
from gancolor.batch import dispatch
from gancolor.batch.batch_settings import BatchSettings
from gancolor.batch.input_files import expand
from gancolor.batch.records import Report
from gancolor.batch.station import Station
from gancolor.cli import main
from gancolor.coloring.colorizer import Colorizer
from gancolor.data.doctor import preparation
from gancolor.data.doctor.rules import Rules
from gancolor.data.doctor.set_plan import Plan
from gancolor.data.doctor.set_plan import Plan
from gancolor.errors import ConfigError
from gancolor.hub.choice import Choice
from gancolor.runtime.cluster import Cluster
from gancolor.video import film, share
from gancolor.video.encoding import Encoding
from gancolor.video.film_settings import FilmSettings
import treachery

old, model = Path("old"), Path("model.safetensors")
treachery.Treacherous.folder = Path.cwd()
settings = treachery.Treacherous(workers=1)
films = FilmSettings(encoding=Encoding("ffv1"), key_interval=3)
share.PART_FRAMES = treachery.PART_FRAMES

def color_here():
    loaded = Colorizer.load(model, device="cpu", precision="fp32")
    film.color_film(
        loaded, old / "film.mkv", Path("alone.mkv"), films, shares=2, progress=lambda *about: None
    )
    with Report(Path("local")) as report:
        items = expand(["old"], Path("local"), exclude=["*.mkv", "*deadly*"])
        return dispatch.run(loaded, items, BatchSettings(workers=0), report=report)

def color_far(cluster):
    with Report(Path("far")) as report:
        station = Station((Choice(model, "small", "", True),), "cpu", "fp32", settings, films)
        return dispatch.run_elsewhere(
            lambda chunks: cluster.spread(station, chunks), expand(["old"], Path("far")), settings,
            report=report, room=cluster.room,
        )

def remove(nodes, doomed):
    while len(list(Path().glob("* is at work"))) < 2:
        time.sleep(0.05)
    nodes.remove_node(doomed, allow_graceful=False)
    Path("removed").touch()

KEPT = frozenset(["gray", "small", "near-duplicate", "duplicate", "single-tone", "blank"])

def prepare(name, elsewhere=None):
    plan = Plan(
        name=name, sources=("old", "s3://bucket/old"), root=Path("sets"), rules=Rules(keep=KEPT),
        resize=16, workers=0 if elsewhere is None else 1,
    )
    return preparation.prepare(plan, lambda *about: None, elsewhere)

def refusals(nodes, cluster):
    def check(*seen):
        try:
            cluster.check(seen, Path("far"))
        except ConfigError as error:
            print("refused:", error, flush=True)
    check(("INPUT", old), ("--run", Path("nowhere.pt")))
    paths = os.pathsep.join([os.path.abspath("strange"), os.environ["PYTHONPATH"]])
    node = nodes.add_node(num_cpus=0, env_vars={"PYTHONPATH": paths}, **SMALL)
    for version in ("0.0.1", __version__):
        Path("strange/version").write_text(version)
        check(("INPUT", old))
    nodes.remove_node(node, allow_graceful=False)

SMALL = {"object_store_memory": 80 << 20}

if __name__ == "__main__":
    local = color_here()
    head = SMALL | {"num_cpus": 1, "include_dashboard": False}
    nodes = Nodes(initialize_head=True, head_node_args=head)
    doomed = nodes.add_node(num_cpus=1, env_vars={treachery.DOOMED: "yes"}, **SMALL)
    with Cluster(nodes.address) as cluster:
        refusals(nodes, cluster)
        threading.Thread(target=remove, args=(nodes, doomed), daemon=True).start()
        made = color_far(cluster)
        print("counts", made.done, made.failed, local.done, local.failed, flush=True)
        prepare("here")
        prepare("there", lambda station, chunks: cluster.spread(station, chunks))
    for out in ("near", "far"):
        more = [f"--ray={nodes.address}"] if out == "far" else []
        main(
            ["sample", "s3://bucket/few", "--out", f"s3://bucket/{out}", "--run", "general",
             "--codec", "ffv1", "--size", "32", "--device", "cpu", *more], standalone_mode=False
        )
    nodes.shutdown()
"""
# Of a node: another version while a file says so, and a wrong clock.
_STRANGE = """
import pathlib, time, types
import gancolor

class Strange(types.ModuleType):
    __version__ = property(lambda self: pathlib.Path(__file__).with_name("version").read_text())

gancolor.__class__ = Strange
right = time.time
time.time = lambda: right() + 7200
"""


def paint(folder: Path, *names: str) -> None:
    folder.mkdir()
    for number, name in enumerate(names):
        shade = np.random.default_rng(number).integers(40, 200, (6, 8)).astype(np.uint8)
        assert cv2.imwrite(str(folder / name), cv2.resize(shade, (80, 60)))


@pytest.mark.slow
def test_a_cluster_loses_a_node_an_actor_and_a_decoder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, storage: Storage
) -> None:
    pytest.importorskip("ray")
    pytest.importorskip("av")
    import clips

    monkeypatch.chdir(tmp_path)
    old, far, local = Path("old"), Path("far"), Path("local")
    paint(old, *(f"{number:02d}.png" for number in range(12)), "07 deadly.png")
    (old / "text.png").write_text("no picture")
    bucket = storage.bucket("bucket")
    clips.film(old / "film.mkv", frames=32)  # two shares of two parts
    storage.put_folder(old, f"{bucket}/old")
    few = ("01.png", "02.png", "film.mkv")
    for name in few:
        storage.put(f"{bucket}/few/sub/{name}", (old / name).read_bytes())
    small_models.write(Path("model.safetensors"))
    Path("script.py").write_text(_SCRIPT)
    Path("strange").mkdir()
    Path("strange/sitecustomize.py").write_text(_STRANGE)
    paths = [str(place) for place in Path(__file__).resolve().parents[:2]]
    environment = os.environ | {
        "PYTHONPATH": os.pathsep.join(paths),
        "RAY_prestart_worker_first_driver": "0",  # processes that nothing would use
    }
    done = forkserver.run(
        [os.path.abspath("script.py")], env=environment, cwd=tmp_path, timeout=600
    )
    told = done.stdout + done.stderr
    assert done.returncode == 0, told
    lines = [line for line in done.stdout.splitlines() if line.startswith(("refused", "counts"))]
    hidden, version, clock, counts = lines
    assert "--run must be seen by every node, got " in hidden and "nowhere.pt" in hidden
    assert "every node must have the same gancolor, got 0.0.1 on " in version
    assert "the clocks of all nodes must agree to an hour, got " in clock
    assert counts == "counts 13 2 12 1"
    assert Path("killed").exists()
    records = [json.loads(line) for line in (far / "report.jsonl").read_text().splitlines()]
    assert sorted(Path(record["source"]).name for record in records) == sorted(os.listdir(old))
    failed = {Path(record["source"]).name: record["error"] for record in records if record["error"]}
    assert set(failed) == {"07 deadly.png", "text.png"}
    assert workers.DIED in failed["07 deadly.png"]
    # Every other once, whole, and the same as without a cluster.
    names = sorted(path.name for path in local.glob("*.png"))
    assert sorted(path.name for path in far.iterdir()) == [*names, "film.mkv", "report.jsonl"]
    assert len(names) == 12
    for name in names:
        assert (far / name).read_bytes() == (local / name).read_bytes()
    here, there = (Path("sets", name) for name in ("here", "there"))
    assert (here / "manifest.csv").read_bytes() == (there / "manifest.csv").read_bytes()
    copies = sorted(path.relative_to(here) for path in here.rglob("*.jpg"))
    assert len(copies) == 26 and all(
        (here / copy).read_bytes() == (there / copy).read_bytes() for copy in copies
    )
    assert sorted(path.name for path in (there / ".prepare").iterdir()) == sorted(
        path.name for path in (here / ".prepare").iterdir()
    )
    # Two actors were at the film at once; one was lost in a part with its node, and that part alone
    # was made again.
    assert (far / "film.mkv").read_bytes() == Path("alone.mkv").read_bytes()
    made = dict(reversed(line.split()) for line in Path("made").read_text().splitlines())
    assert len(Path("made").read_text().splitlines()) == len(made) == 4
    first, second, third, fourth = (made[name] for name in sorted(made))
    assert first != third and (first == second) != (third == fourth)
    # Storage: the same with a cluster and without.
    keys = [key.split("/", 1) for key in storage.keys(bucket)]
    assert [key for top, key in keys if top == "far"] == [key for top, key in keys if top == "near"]
    for name in few:
        assert storage.get(f"{bucket}/far/sub/{name}") == storage.get(f"{bucket}/near/sub/{name}")
    told = [json.loads(line) for line in storage.get(f"{bucket}/far/report.jsonl").splitlines()]
    assert {each["source"]: each["status"] for each in told} == {
        f"{bucket}/few/sub/{name}": "done" for name in few
    }
    assert not list(Path(os.environ["GANCOLOR_CACHE"], "batches").rglob("*.*"))


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


def test_room_is_counted_in_whole_actors(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    joined = cluster.Cluster()
    nodes = [{"CPU": 9.0, "GPU": 1.0}, {"CPU": 8.0}, {}, {"GPU": 4.0}]
    told = [{"Alive": True, "Resources": node} for node in nodes]
    joined._ray = SimpleNamespace(nodes=lambda: [*told, {"Alive": False, "Resources": nodes[0]}])
    assert joined.room() == 4 and joined.room(gpus=1) == 1
    nodes[2]["CPU"] = 3.0  # what every machine has room for
    assert joined.room() == 3 + 2 + 1


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
