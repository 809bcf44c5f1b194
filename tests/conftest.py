"""Fixtures that several test modules share: a quiet environment, pictures, the command line, real
photographs.
"""

from __future__ import annotations

import contextlib
import gc
import itertools
import logging
import os
import signal
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import forkserver
import paintings
import pytest
import tiny_settings
from narrow import narrow_networks
from serving import FolderServer

if TYPE_CHECKING:
    from click.testing import Result
    from standin_s3 import Storage

    from gancolor.config import TrainConfig

# What benchmarks measure is tested too.
sys.path.append(str(Path(__file__).resolve().parents[1] / "benchmarks"))

# Before torch or OpenCV is imported, and for every process that a test starts too: one thread per
# test process, so that xdist's workers do not fight over the cores, and nothing looks for newer
# versions over the network.
os.environ["NO_ALBUMENTATIONS_UPDATE"] = "1"
for _variable in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
    os.environ[_variable] = "1"


# Rewriting every assertion anew takes longer than collecting all tests, so what Python compiles is
# kept here.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
sys.dont_write_bytecode = False


def pytest_configure(config: pytest.Config) -> None:
    """Answer Ctrl-C and SIGHUP as usual, also in the background and under nohup; start the
    session's fork server.
    """
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    if hasattr(signal, "SIGHUP"):
        signal.signal(signal.SIGHUP, signal.SIG_DFL)
    if hasattr(os, "fork") and not hasattr(config, "workerinput") and not config.option.collectonly:
        resources = contextlib.ExitStack()
        config.add_cleanup(resources.close)
        folder = resources.enter_context(tempfile.TemporaryDirectory())
        resources.enter_context(forkserver.server(f"{folder}/socket"))
        os.environ[paintings.FOLDER] = f"{folder}/paintings"
        os.mkdir(f"{folder}/paintings")


def pytest_collection_finish() -> None:
    """Keep Python's collector away from the millions of objects that every test finds already."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(50_000, 20, 50)


REPOSITORY = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="session")
def _caches(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Return places for cache folders that nothing has made yet."""
    folder = tmp_path_factory.mktemp("caches")
    return (folder / str(number) for number in itertools.count())


@pytest.fixture(autouse=True)
def _own_environment(
    request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch, _caches: Iterator[Path]
) -> None:
    """Keep the caller's own runs, datasets and embeddings out of the tests."""
    for variable in ("GANCOLOR_RUNS", "GANCOLOR_DATASETS"):
        monkeypatch.delenv(variable, raising=False)
    if "tmp_path" in request.fixturenames:
        cache = request.getfixturevalue("tmp_path") / "gancolor-cache"
    else:  # a folder less to make and to remove
        cache = next(_caches)
    monkeypatch.setenv("GANCOLOR_CACHE", str(cache))
    # a command run before switches it off
    monkeypatch.setattr(logging.getLogger("gancolor"), "propagate", True)
    logging.getLogger("gancolor.pictures").setLevel(logging.NOTSET)  # and lets this one speak less


@pytest.fixture(autouse=True, scope="module")
def _narrow(request: pytest.FixtureRequest) -> Iterator[pytest.MonkeyPatch]:
    """Give each module narrow networks, except those that are marked `full_width`."""
    with pytest.MonkeyPatch.context() as patch:
        if request.node.get_closest_marker("full_width") is None:
            _make_narrow(patch)
        yield patch


def _make_narrow(patch: pytest.MonkeyPatch) -> None:
    narrow_networks(patch)
    patch.setenv(forkserver.NARROW, "1")


@pytest.fixture
def full_width(_narrow: pytest.MonkeyPatch) -> Iterator[None]:
    """Give all channels to the networks that a test of a narrow module builds itself."""
    _narrow.undo()
    yield
    _make_narrow(_narrow)


@pytest.fixture(autouse=True, scope="session")
def _same_precision_everywhere() -> Iterator[None]:
    """Let `--precision auto` be float32 on every processor, also on one that computes in bfloat16."""
    import torch

    # Pytest attaches its handlers to each logger that does not propagate, six times a test.
    for name, logger in logging.root.manager.loggerDict.items():
        if name.startswith("torch") and isinstance(logger, logging.Logger):
            logger.propagate = True

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: False)
        yield


@pytest.fixture(autouse=True, scope="session")
def _never_synced() -> Iterator[None]:
    """Do not wait for the disk: no test takes the power away."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fsync", os.fstat)
        yield


@pytest.fixture(autouse=True, scope="session")
def _spawned_here() -> Iterator[None]:
    """Let spawned processes be children of the fork server, which has imported torch already."""
    with pytest.MonkeyPatch.context() as patch:
        if forkserver.ADDRESS in os.environ:
            forkserver.spawn_here(patch)
        yield


@pytest.fixture(autouse=True, scope="session")
def _painted_once() -> Iterator[None]:
    """Paint each still life once a session."""
    with pytest.MonkeyPatch.context() as patch:
        paintings.keep_paintings(patch)
        yield


@pytest.fixture(scope="session")
def repository() -> Path:
    """Return the root of the working tree."""
    return REPOSITORY


@pytest.fixture(scope="session")
def shared() -> Path:
    """Return the folder of real photographs, `$GANCOLOR_SHARED` or beside the working tree; skip
    without one.
    """
    folder = Path(os.environ.get("GANCOLOR_SHARED") or REPOSITORY.parent / "shared")
    if not (folder / "data").is_dir():
        pytest.skip(
            f"needs the shared photographs; {folder} has no data folder (set GANCOLOR_SHARED)"
        )
    return folder


@pytest.fixture
def cli(monkeypatch: pytest.MonkeyPatch) -> Callable[..., Result]:
    """Return a function that runs `gancolor ARGUMENTS...` in this process and returns click's
    result.
    """
    from click.testing import CliRunner

    from gancolor.cli import main

    def run(*arguments: object, **options: Any) -> Result:
        # a process of its own takes seconds to start; tests that need one ask for it
        if "sample" in arguments:
            from gancolor.batch import dispatch

            monkeypatch.setattr(dispatch, "LEAST_WORKERS", 0)
        return CliRunner().invoke(main, [str(argument) for argument in arguments], **options)

    return run


@pytest.fixture(scope="session")
def painted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Paint the pictures once per process; read only, `pictures` is the copy to work on."""
    import cv2
    import numpy as np

    folder = tmp_path_factory.mktemp("painted")
    generator = np.random.default_rng(7)
    rows, columns = np.mgrid[0:60, 0:80].astype(np.float32)
    for index in range(24):
        hue = generator.uniform(0, 180)
        down, along = generator.uniform(5, 15, 2)
        shade = 150 + 60 * np.sin(rows / down) * np.cos(columns / along)
        hsv = np.stack([(hue + rows / 2) % 180, np.full_like(rows, 200), shade], axis=2).astype(
            np.uint8
        )
        bgr = cv2.cvtColor(hsv, cv2.COLOR_HSV2BGR)
        center = (int(generator.integers(15, 65)), int(generator.integers(15, 45)))
        cv2.circle(
            bgr, center, 12, tuple(float(v) for v in generator.integers(0, 256, 3)), -1, cv2.LINE_AA
        )
        name = f"{'fields' if index % 2 else 'lakes'}/{index:02d}{'.png' if index % 3 == 0 else '.jpg'}"
        (folder / name).parent.mkdir(exist_ok=True)
        assert cv2.imwrite(str(folder / name), bgr)
    return folder


@pytest.fixture
def pictures(painted: Path, tmp_path: Path) -> Path:
    """Return a fresh copy of a folder of 24 colourful pictures, 80 x 60: 16 JPEG and 8 PNG in two
    subfolders.
    """
    import shutil

    return Path(shutil.copytree(painted, tmp_path / "pictures"))


@pytest.fixture
def folder_server(tmp_path: Path) -> Iterator[FolderServer]:
    """A server of a new folder of the test's own."""
    (tmp_path / "served").mkdir()
    server = FolderServer(tmp_path / "served")
    yield server
    server.stop()


@pytest.fixture(scope="module")
def storage() -> Iterator[Storage]:
    """A stand-in for S3, one for each module; see `sound_storage`."""
    import standin_s3

    with standin_s3.running() as found:
        yield found


@pytest.fixture
def sound_storage(storage: Storage, monkeypatch: pytest.MonkeyPatch) -> Storage:
    """The stand-in for S3, in which nothing goes wrong but what the test wants, and nothing waits
    between two tries.
    """
    from gancolor.data import shard_stream
    from gancolor.runtime import remote_files

    storage.proxy.heal()
    monkeypatch.setattr(remote_files, "BACKOFF", 0.0)
    monkeypatch.setattr(shard_stream, "BACKOFF", 0.0)
    return storage


@pytest.fixture(scope="module")
def bodies(tmp_path_factory: pytest.TempPathFactory) -> list[bytes]:
    """Two models' files."""
    import small_models

    folder = tmp_path_factory.mktemp("models")
    return [
        small_models.write(folder / f"{seed}.safetensors", seed=seed).read_bytes()
        for seed in (1, 2)
    ]


@pytest.fixture
def undrawn(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leave charts and sheets empty where what is drawn is not what is tested: drawing takes a
    second.
    """
    from gancolor import charts

    monkeypatch.setattr(charts, "to_png", lambda *_: b"\x89PNG")
    monkeypatch.setattr(charts, "to_svg", lambda *_: "<svg></svg>")


@pytest.fixture
def tiny() -> TrainConfig:
    """Return the smallest adversarial settings that go through every phase: four steps of two 32 x
    32 pictures.
    """
    from gancolor import presets

    return presets.build(
        "gan",
        **tiny_settings.TINY
        | {
            "steps": 4,
            "warmup": 0.25,
            "discriminator_warmup": 0.25,
            "ramp": 0.5,
            "val_pictures": 4,
            "checkpoint_every": 2,
            "validate_every": 2,
            "log_every": 1,
        },
    )


@pytest.fixture
def small_embeddings(monkeypatch: pytest.MonkeyPatch) -> None:
    """Put networks of a few weights in place of those of a hundred million."""
    from torch import nn

    from gancolor.models import embeddings

    for name in ("vgg16", "vgg19", "vggface", "inception-resnet-v2"):
        kind = embeddings.EmbeddingKind(
            name=name,
            title=name,
            width=6,
            size=32,
            build=lambda: nn.Sequential(nn.AvgPool2d(8), nn.Flatten(), nn.Linear(48, 6)),
        )
        monkeypatch.setitem(embeddings.EMBEDDINGS, name, kind)
