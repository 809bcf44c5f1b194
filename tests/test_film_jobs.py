"""Films on the server: key frames over the API, and jobs with several tasks."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("fastapi", reason="needs the extra 'studio'")
pytest.importorskip("python_multipart", reason="needs the extra 'studio'")
pytest.importorskip("av")

import clips
import test_film_keys
import test_server
from test_server import colorizer, film_of, job_at_end, left_over, refused, serve, wait_until

from gancolor.coloring.colorizer import Colorizer
from gancolor.errors import DataError
from gancolor.runtime.files import Progress
from gancolor.server import film_requests, film_tasks
from gancolor.server.film_jobs import FilmJob, FilmJobs
from gancolor.server.film_strip import FilmStrip
from gancolor.server.line import RequestLine
from gancolor.server.problems import Problem
from gancolor.server.server_settings import ServerSettings
from gancolor.video.parts import folder_of

__all__ = ["colorizer", "serve"]  # fixtures


def key_of(folder: Path, index: int, suffix: str = ".png") -> tuple[str, tuple[str, bytes]]:
    """A part with the film's true frame of that number."""
    path = test_film_keys.with_keys(folder, [index]) / f"{index / 25:010.3f}.png"
    return "keys", (path.with_suffix(suffix).name, path.read_bytes())


def post(client: Any, data: bytes, *keys: Any) -> Any:
    return client.post("/v1/films", files=[("film", ("old.mkv", data)), *keys])


@pytest.mark.slow
def test_key_frames_come_with_a_film(serve: test_server.Serve, tmp_path: Path) -> None:
    client = serve()
    data = film_of(tmp_path / "old.mkv", 8, codec="ffv1")
    job = job_at_end(client, post(client, data, key_of(tmp_path / "keys", 4)).json())
    assert job["state"] == "done", job
    assert job["notes"][0] == "1 key frame in 1 of 1 shots; 1 made anew"
    assert not any("parts" in note for note in job["notes"])
    (tmp_path / "new.mkv").write_bytes(client.get(job["result"]).content)
    near = test_film_keys.errors(tmp_path / "new.mkv", [3, 4, 5])
    plain = job_at_end(client, post(client, data).json())
    (tmp_path / "plain.mkv").write_bytes(client.get(plain["result"]).content)
    assert max(near) < 2 < min(test_film_keys.errors(tmp_path / "plain.mkv", [3, 4, 5]))
    names = {path.name for path in left_over(tmp_path)}
    assert names == {"colored.mkv", "000000.160.png"}  # nothing of the films or their parts


def test_key_frames_are_refused(serve: test_server.Serve, tmp_path: Path) -> None:
    client, data = serve(), film_of(tmp_path / "old.mkv", 3)
    key = key_of(tmp_path / "keys", 1)
    for name in ("../x.png", "a.png", "0.04.txt", "/0.04.png", "0.04", ""):
        refused(post(client, data, ("keys", (name, key[1][1]))), 400, "must have a name that says")
    refused(post(client, data, key, key), 400, "no other has")
    large = ("keys", ("0.04.png", test_server.picture(side=32)))
    refused(post(client, data, large), 422, "film's size 64x48, got 32x32 in keys/0.04.png")
    late = ("keys", ("90.png", key[1][1]))
    refused(post(client, data, late), 422, "must lie inside the film")
    assert left_over(tmp_path) == []


# --- jobs with several tasks ---


@pytest.fixture
def line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[RequestLine]:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    line = RequestLine(4, 2)
    line.open()
    yield line
    line.close()


class Rig:
    """A server's films without its routes."""

    def __init__(self, line: RequestLine, colorizer: Colorizer, **limits: Any) -> None:
        self.line, self.colorizer, self.limits = line, colorizer, ServerSettings(**limits)
        self.films = FilmJobs(self.limits, line)

    def open(self, **how: Any) -> FilmJob:
        """A job for a film of two shots, which is at rest."""
        ticket = self.line.enter(long=True)
        source = clips.film(ticket.folder / "film.mkv", frames=24, shots=(12,), codec="ffv1", **how)
        job, info = film_requests.job_of(ticket, source, {}, self.colorizer, self.limits)
        job.strip = FilmStrip(source, ticket.folder, folder_of(job.target), info, 32)
        self.films.add(job)
        return job

    def do(self, job: FilmJob, task: Any, work: Callable[[Progress], None]) -> FilmJob:
        """Do a task, and wait for it."""
        self.films.start(job, task, work)
        wait_until(lambda: not job.is_busy)
        return job

    def gather(self, job: FilmJob) -> FilmStrip:
        """Find the key frames of a job."""
        strip = job.strip
        assert strip is not None
        self.do(job, "keys", lambda tell: strip.gather(self.colorizer, job.settings, tell))
        assert job.state == "done", job.problem
        return strip

    def make(self, job: FilmJob) -> FilmJob:
        """Colour all of a film."""
        return self.do(
            job, "film", lambda tell: film_tasks.color_by_shots(self.colorizer, job, tell)
        )


@pytest.fixture
def rig(line: RequestLine, colorizer: Colorizer) -> Rig:
    return Rig(line, colorizer)


@pytest.mark.slow
def test_a_key_frame_is_given_and_only_its_shot_is_made_anew(rig: Rig, tmp_path: Path) -> None:
    job = rig.open()
    strip = rig.gather(job)
    assert [place.name for place in strip.places] == ["000000.240", "000000.720"]
    assert strip.shots == 2 and job.frames == (2, 2) and job.result is None
    assert rig.make(job).state == "done" and job.result is not None
    plain = test_film_keys.errors(job.result, [6, 18])
    true = test_film_keys.with_keys(tmp_path / "keys", [6]) / "000000.240.png"
    before = strip.picture("000000.240").read_bytes()
    strip.give("000000.240", true, 1.0)
    assert strip.own() == ["000000.240"] and strip.picture("000000.240").read_bytes() != before
    rig.make(job)
    assert job.notes[0] == "1 key frame in 1 of 2 shots; 1 made anew"
    keyed = test_film_keys.errors(job.result, [6, 18])
    assert keyed[0] < 1.5 < plain[0] and keyed[1] == plain[1]
    strip.take_back("000000.240")
    assert strip.own() == [] and strip.picture("000000.240").read_bytes() == before
    assert rig.make(job).notes[0] == "0 key frames in 0 of 2 shots; 1 made anew"
    assert test_film_keys.errors(job.result, [6]) == plain[:1]
    rig.films.remove(job)
    assert not job.ticket.folder.exists()


def test_a_frame_is_added_and_colored_like_a_photograph(rig: Rig, tmp_path: Path) -> None:
    from gancolor.images import reader

    strip = rig.gather(job := rig.open())
    place = strip.add(0.13, rig.colorizer, job.settings)
    assert place.name == "000000.120" and strip.seconds(place.name) == pytest.approx(0.12)
    assert [each.name for each in strip.places] == ["000000.120", "000000.240", "000000.720"]
    still = reader.read(strip.still(place.name))
    assert still.size == (48, 64) and (still.pixels.min(2) == still.pixels.max(2)).all()
    assert reader.probe(strip.picture(place.name))[:2] == (43, 32)
    for picture, words in (
        (still, "must have colours"),
        (None, "another picture in true.png"),
    ):
        given = tmp_path / "true.png"
        source = strip.still(place.name)
        if picture is None:
            test_film_keys.with_keys(tmp_path, [18])
            source = tmp_path / "000000.720.png"
        given.write_bytes(source.read_bytes())
        with pytest.raises(DataError, match=words) as caught:
            strip.give(place.name, given, 1.0)
        assert str(tmp_path / "gancolor") not in str(caught.value)
    with pytest.raises(DataError, match="must be one of the strip"):
        strip.picture("../../etc/passwd")
    assert strip.own() == []


def test_a_preview_is_a_few_seconds_for_browsers(rig: Rig) -> None:
    from gancolor.video.probe import probe

    job = rig.open(width=160, height=120)
    rig.gather(job)
    rig.do(job, "preview", lambda tell: film_tasks.make_preview(rig.colorizer, job, 0.6, tell))
    assert job.state == "done" and job.preview is not None, job.problem
    info = probe(job.preview)
    assert (info.codec, info.width, info.frames) == ("h264", 160, 9)
    assert job.result is None and not list(job.preview.parent.glob("*preview.mkv*"))


@pytest.mark.slow
def test_a_task_is_stopped_and_the_job_stays(rig: Rig) -> None:
    job, other = rig.open(), rig.open()
    begun, go = threading.Event(), threading.Event()

    def work(tell: Progress) -> None:
        begun.set()
        assert go.wait(10)
        tell(1, 10)

    rig.films.start(job, "film", work)
    assert begun.wait(10)
    with pytest.raises(Problem, match="must be at rest"):
        rig.films.start(job, "film", work)
    rig.films.start(other, "film", work)
    rig.films.stop(other)
    assert (other.state, other.is_busy) == ("failed", False)
    rig.films.stop(job)
    go.set()
    wait_until(lambda: not job.is_busy)
    assert job.problem is not None and "stopped" in job.problem.detail
    assert rig.make(job).state == rig.make(other).state == "done"
    rig.films.remove(job)
    with pytest.raises(Problem, match="may be over"):
        rig.films.start(job, "film", work)
    with pytest.raises(Problem, match="may be over"):
        rig.films.find(job.key)


def test_what_was_made_before_does_not_count_for_the_time_that_is_left(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    job, now = rig.open(), 100.0
    monkeypatch.setattr(time, "monotonic", lambda: now)
    job.state = "running"
    job.count(0, 1000)
    assert job.seconds_left is None
    job.count(500, 1000)  # at once
    assert job.seconds_left is None
    now = 110.0
    job.count(510, 1000)
    assert job.seconds_left == pytest.approx(490.0)
    job.count(3, 400)  # another step
    now = 111.0
    assert job.seconds_left == pytest.approx(397 / 3, abs=0.1)
