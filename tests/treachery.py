"""Settings of a batch that bring trouble with them where they arrive, for tests on a cluster."""

from __future__ import annotations

import multiprocessing
import os
import pickle
import signal
import time
from pathlib import Path
from typing import Any

from forkserver import NARROW
from narrow import narrow_networks

from gancolor.batch import station, worker
from gancolor.batch.batch_settings import BatchSettings
from gancolor.video import parts, share
from gancolor.video.encoding import PartWriter

PART_FRAMES = 8
DOOMED = "GANCOLOR_TEST_DOOMED"


class Treacherous(BatchSettings):
    """In a process that reads they make decoders crash at files called "deadly"; the first actor
    that gets its second list of files is killed, which leaves the file `killed` in `folder`.

    Of a film, those who are in the second part of a share wait until the file `removed` is there;
    those on a node whose environment has DOOMED wait until they are killed. Each part that counts
    becomes a line of the file `made`: the actor's number and the part's name.
    """

    folder = Path()

    def __reduce__(self) -> tuple[Any, ...]:
        plain = BatchSettings(**vars(self))
        return _arrive, (pickle.dumps(plain), str(Treacherous.folder))


def _arrive(plain: bytes, folder: str) -> Treacherous:
    Treacherous.folder = Path(folder)
    if multiprocessing.parent_process() is not None:  # a worker
        _make_decoders_crash()
    elif not hasattr(station.ColoringDesk, "lists"):
        if os.environ.get(NARROW):  # as the models of the tests
            narrow_networks()
        _make_actors_die(Path(folder) / "killed")
        _make_films_perilous(Path(folder))
    return Treacherous(**vars(pickle.loads(plain)))


def _make_decoders_crash() -> None:
    probe = worker.reader.probe

    def treacherous(path: Path, **options: Any) -> tuple[int, int, str]:
        if "deadly" in path.name:
            os.kill(os.getpid(), signal.SIGSEGV)
        return probe(path, **options)

    worker.reader.probe = treacherous


def _make_actors_die(killed: Path) -> None:
    color = station.ColoringDesk.__call__
    station.ColoringDesk.lists = 0  # type: ignore[attr-defined]

    def treacherous(desk: station.ColoringDesk, jobs: list[Any]) -> list[Any]:
        station.ColoringDesk.lists += 1  # type: ignore[attr-defined]
        if station.ColoringDesk.lists == 2:  # type: ignore[attr-defined]
            try:
                killed.touch(exist_ok=False)
            except FileExistsError:
                pass
            else:
                os.kill(os.getpid(), signal.SIGKILL)
        return color(desk, jobs)

    station.ColoringDesk.__call__ = treacherous  # type: ignore[method-assign]


def _make_films_perilous(folder: Path) -> None:
    share.PART_FRAMES = PART_FRAMES
    write, save = PartWriter.write, parts.Share.save

    def writing(writer: PartWriter, *frame: Any) -> None:
        write(writer, *frame)
        if not writer.path.name.endswith("-00001.nut"):
            return
        (folder / f"{writer.path.name} is at work").touch()
        for _ in range(2400):
            if (folder / "removed").exists() and DOOMED not in os.environ:
                break
            time.sleep(0.05)

    def saving(own: parts.Share, checkpoint: parts.Checkpoint) -> None:
        name = own.next_path.name
        save(own, checkpoint)
        with (folder / "made").open("a") as file:
            file.write(f"{os.getpid()} {name}\n")

    PartWriter.write = writing  # type: ignore[method-assign,assignment]
    parts.Share.save = saving  # type: ignore[method-assign]
