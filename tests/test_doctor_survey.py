"""The doctor's engine: what is examined and what is not again, deaths, signals, the lock."""

from __future__ import annotations

import gzip
import io
import os
import signal
import subprocess
import sys
import tarfile
import time
import zipfile
from pathlib import Path

import cv2
import forkserver
import numpy as np
import pytest

from gancolor.data.doctor import examination, survey
from gancolor.data.doctor.journal import Journal, lock
from gancolor.data.doctor.readers import Candidate
from gancolor.data.doctor.sources import open_source
from gancolor.data.doctor.survey import PictureJob, Tally, examine_all
from gancolor.errors import DataError
from gancolor.runtime import signals
from gancolor.runtime import workers as processes

posix = pytest.mark.skipif(sys.platform == "win32", reason="signals of POSIX systems")
FOUND = (
    "sha256, kind, width, height, colorfulness, chroma, spread, contrast, hash, signature, problem"
)


def picture(seed: int, suffix: str = ".jpg") -> bytes:
    pixels = np.random.default_rng(seed).integers(0, 255, (4, 5, 3), np.uint8)
    good, data = cv2.imencode(suffix, cv2.resize(pixels, (50, 40), interpolation=cv2.INTER_CUBIC))
    assert good
    return data.tobytes()


FILES = {f"{number}.jpg": picture(number) for number in range(5)} | {
    "deep/é.png": picture(7, ".png"),
    "broken.jpg": picture(8)[:100],
    "empty.jpg": b"",
    "words.txt": b"no picture",
}
PICTURES = len(FILES) - 1


@pytest.fixture
def files(tmp_path: Path) -> Path:
    for name, data in FILES.items():
        path = tmp_path / "files" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    return tmp_path / "files"


def run(
    journal: Journal,
    *paths: Path,
    workers: int = 0,
    told: list[tuple[int, int | None]] | None = None,
    deadline: float = 1000.0,
) -> Tally:
    sources = [open_source(path) for path in paths]
    ids = journal.set_sources(
        [(str(source.path), source.path.name, source.kind, False) for source in sources]
    )
    told = [] if told is None else told
    return examine_all(
        journal,
        dict(zip(ids, sources, strict=True)),
        workers=workers,
        deadline=deadline,
        progress=lambda done, total: told.append((done, total)),
    )


def rows(journal: Journal) -> dict[str, tuple[object, ...]]:
    return dict(
        (row[1], row[2:]) for block in journal.blocks(f"name, {FOUND}", "examined") for row in block
    )


def expected(name: str) -> tuple[object, ...]:
    found = examination.examine(FILES[name], name)
    values = tuple(getattr(found, field) for field in FOUND.split(", "))
    return (*values[:8], examination.to_signed(found.hash), *values[9:])


def test_findings_are_those_of_examine(files: Path, tmp_path: Path) -> None:
    told: list[tuple[int, int | None]] = []
    with Journal(tmp_path / "journal") as journal:
        tally = run(journal, files, told=told)
        assert rows(journal) == {name: expected(name) for name in FILES if name != "words.txt"}
    assert tally == Tally(new=PICTURES, known=0, gone=0, others={"other file(s)": 1})
    assert told == [(PICTURES, None), (PICTURES, PICTURES)]
    # or the first assertion would say little
    assert expected("broken.jpg")[-1] and expected("0.jpg")[-1] == ""


@pytest.mark.slow
def test_processes_and_archives_find_the_same(files: Path, tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as zipping:
        for name, data in FILES.items():
            zipping.writestr(name, data)
    for name, mode in (("a.tar", "w"), ("a.tgz", "w:gz")):
        with tarfile.open(tmp_path / name, mode) as archive:  # type: ignore[call-overload]
            for member, data in FILES.items():
                info = tarfile.TarInfo(member)
                info.size = len(data)
                archive.addfile(info, io.BytesIO(data))
    paths = [files, *(tmp_path / name for name in ("a.zip", "a.tar", "a.tgz"))]
    with Journal(tmp_path / "journal") as journal:
        tally = run(journal, *paths, workers=2)
        assert (tally.new, tally.others) == (4 * PICTURES, {"other file(s)": 4})
        for source in range(1, 5):
            found = journal.connection.execute(
                f"SELECT name, {FOUND} FROM pictures WHERE source = ?", (source,)
            )
            assert {row[0]: row[1:] for row in found} == {
                n: expected(n) for n in FILES if n != "words.txt"
            }
        assert run(journal, *paths, workers=2) == Tally(0, 4 * PICTURES, 0, {"other file(s)": 4})


def test_only_what_changed_is_examined_again(files: Path, tmp_path: Path) -> None:
    with Journal(tmp_path / "journal") as journal:
        run(journal, files)
        numbers = dict(journal.connection.execute("SELECT name, id FROM pictures").fetchall())
        with journal.connection:  # marks that only reading again would remove
            journal.connection.execute(
                "UPDATE pictures SET signature = 'mark', copy = name, copy_sha256 = x'00'"
            )
        (files / "0.jpg").write_bytes(picture(100))  # another size or time
        os.utime(files / "1.jpg", ns=(5, 5))
        (files / "2.jpg").unlink()
        (files / "new.jpg").write_bytes(picture(101))
        assert run(journal, files) == Tally(
            new=3, known=PICTURES - 3 + 0, gone=1, others={"other file(s)": 1}
        )
        again = {name for name, found in rows(journal).items() if found[9] != "mark"}
        assert again == {"0.jpg", "1.jpg", "new.jpg"}
        stale = journal.connection.execute(
            "SELECT name FROM pictures WHERE copy NOT NULL AND copy_sha256 IS NULL"
        )
        assert {name for (name,) in stale} == {"0.jpg", "1.jpg"}
        assert journal.connection.execute("SELECT copy FROM leftovers").fetchall() == [("2.jpg",)]
        left = dict(
            journal.connection.execute(
                "SELECT name, id FROM pictures WHERE name <> 'new.jpg'"
            ).fetchall()
        )
        assert left == {name: number for name, number in numbers.items() if name != "2.jpg"}


def test_another_examiner_examines_all_again(
    files: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with Journal(tmp_path / "journal") as journal:
        run(journal, files)
        monkeypatch.setattr(examination, "version", lambda: "another")
        assert run(journal, files).new == PICTURES
        assert run(journal, files).new == 0


def test_a_cut_archive_leaves_nothing_unexamined(tmp_path: Path) -> None:
    noise = np.random.default_rng(0)
    with tarfile.open(tmp_path / "a.tgz", "w:gz") as archive:
        for number in range(3):
            data = picture(number) + noise.bytes(100_000)
            info = tarfile.TarInfo(f"{number}.jpg")
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    (tmp_path / "a.tgz").write_bytes((tmp_path / "a.tgz").read_bytes()[:150_000])
    with Journal(tmp_path / "journal") as journal:
        tally = run(journal, tmp_path / "a.tgz")
        problems = {name: found[-1] for name, found in rows(journal).items()}
        assert tally.others == {"archive(s) cut off or damaged": 1}
        assert tally.new == len(problems) == 2
        assert problems["0.jpg"] == "" and "archive is" in str(problems["1.jpg"])


@pytest.mark.parametrize("name", ["a.tar", "a.tgz"])
def test_what_lies_behind_damage_is_not_gone(name: str, tmp_path: Path) -> None:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for number in range(4):
            info = tarfile.TarInfo(f"{number}.jpg")
            info.size = len(picture(number))
            archive.addfile(info, io.BytesIO(picture(number)))
    whole = buffer.getvalue()
    flipped = bytearray(whole)
    flipped[whole.index(b"2.jpg")] ^= 1
    pack = gzip.compress if name == "a.tgz" else bytes
    with Journal(tmp_path / "journal") as journal:
        (tmp_path / name).write_bytes(pack(whole))
        run(journal, tmp_path / name)
        with journal.connection:
            journal.connection.execute("UPDATE pictures SET copy = name, copy_sha256 = x'00'")
        before = rows(journal)
        (tmp_path / name).write_bytes(pack(bytes(flipped)))
        assert run(journal, tmp_path / name) == Tally(0, 4, 0, {"archive(s) cut off or damaged": 1})
        assert rows(journal) == before and len(before) == 4
        assert journal.connection.execute("SELECT COUNT(*) FROM leftovers").fetchone() == (0,)
        # whole, with less in it
        (tmp_path / name).write_bytes(pack(whole[: whole.index(b"2.jpg")] + bytes(1024)))
        assert run(journal, tmp_path / name) == Tally(0, 2, 2, {})


@posix
def test_what_could_not_be_read_is_tried_again(tmp_path: Path) -> None:
    (tmp_path / "files").mkdir()
    (tmp_path / "files" / "a.jpg").write_bytes(picture(1)[:100])  # damaged, but read
    (tmp_path / "files" / "b.jpg").symlink_to("b.jpg")
    with Journal(tmp_path / "journal") as journal:
        for new in (2, 1, 1):
            assert run(journal, tmp_path / "files").new == new
        assert "symbolic links" in str(rows(journal)["b.jpg"][-1])


@pytest.mark.parametrize("workers", [0, 2])
def test_no_room_for_temporary_files_stops_the_run(
    workers: int, files: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(survey, "Examiner", _Roomless)
    with Journal(tmp_path / "journal") as journal:
        with pytest.raises(DataError, match="^temporary folder must be writable$"):
            run(journal, files, workers=workers)
        assert 0 < journal.count("examined") < PICTURES and not journal.count(
            "problem LIKE '%died%'"
        )
        assert not journal.count("name = '3.jpg' AND examined")


@pytest.mark.parametrize("workers", [0, 2])
def test_a_listed_name_that_no_file_can_have_is_broken(workers: int, tmp_path: Path) -> None:
    (tmp_path / "list.csv").write_text("path\na\0b.jpg\n", encoding="utf-8")
    with Journal(tmp_path / "journal") as journal:
        run(journal, tmp_path / "list.csv", workers=workers)
        assert "name cannot be one of a file" in str(rows(journal)["a\0b.jpg"][-1])


def _without_room(data: bytes, name: str) -> examination.Findings:
    if name == "3.jpg":
        raise DataError("temporary folder must be writable")
    return examination.Findings(b"", "jpeg", 1, 1, 0.0, 0.0, 0.0, 0.0, 0, b"", "")


class _Roomless(survey.Examiner):
    """Finds no room for one picture's temporary files, in whatever process it runs."""

    def __call__(self, job: PictureJob) -> examination.Findings | DataError:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(examination, "examine", _without_room)
            return super().__call__(job)


class _Deadly(survey.Examiner):
    """Dies of some pictures, as a decoder's fault or a lack of memory ends a process."""

    def __call__(self, job: PictureJob) -> examination.Findings | DataError:
        if "deadly" in job.candidate.name:
            os.kill(os.getpid(), signal.SIGKILL)
        return super().__call__(job)


@pytest.mark.slow
@posix
def test_only_the_culprit_is_broken_when_a_process_dies(
    files: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(survey, "Examiner", _Deadly)
    for name in ("deadly 1.jpg", "deadly 2.jpg"):
        (files / name).write_bytes(picture(1))
    with Journal(tmp_path / "journal") as journal:
        assert run(journal, files, workers=2).new == PICTURES + 2
        found = rows(journal)
        for name in ("deadly 1.jpg", "deadly 2.jpg"):
            assert found.pop(name)[-1] == "the process that read it died"
        assert found == {name: expected(name) for name in FILES if name != "words.txt"}
        monkeypatch.undo()
        assert run(journal, files, workers=2).new == 0  # known to be deadly: not tried again


def _die(job: object) -> None:
    os._exit(3)


def _double(number: int) -> int:
    return 2 * number


class _Hanging(survey.Examiner):
    """Hangs at some pictures, as a decoder's endless loop does, dies of others."""

    def __call__(self, job: PictureJob) -> examination.Findings | DataError:
        if "hanging" in job.candidate.name:
            signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
            time.sleep(1000)
        if "deadly" in job.candidate.name:
            os.kill(os.getpid(), signal.SIGSEGV)
        return super().__call__(job)


@posix
@pytest.mark.slow
def test_a_decoder_that_hangs_costs_its_picture_alone(
    files: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(survey, "Examiner", _Hanging)
    culprits = ("0 hanging.jpg", "4 deadly.jpg")
    for name in culprits:
        (files / name).write_bytes(picture(1))
    with Journal(tmp_path / "journal") as journal:
        assert run(journal, files, workers=1, deadline=12.0).new == PICTURES + 2
        found = rows(journal)
        reasons = [found.pop(name)[-1] for name in culprits]
        assert reasons == ["it took longer than 12 s", "the process that read it died"]
        assert found == {name: expected(name) for name in FILES if name != "words.txt"}
        monkeypatch.undo()
        assert run(journal, files, workers=1).new == 1  # with time enough it may be good
        # the two that are broken, and what killed a process
        assert journal.count("problem <> ''") == 3


@pytest.mark.slow
def test_processes_that_die_of_everything_are_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(processes, "MOST_DEATHS", 3)
    with pytest.raises(
        DataError, match=r"worker processes must live, got 3 that died in a row .*exit code 3"
    ):
        list(survey.spread(_die, iter([[1], [2], [3], [4]]), 1, survey.StopCheck()))


@pytest.mark.parametrize("workers", [0, 2])
def test_every_job_is_done_once(workers: int) -> None:
    chunks = [list(range(start, start + 7)) for start in range(0, 70, 7)]
    done = [
        pair
        for chunk in survey.spread(_double, iter(chunks), workers, survey.StopCheck())
        for pair in chunk
    ]
    assert sorted(done) == [(number, 2 * number) for number in range(70)]


def test_a_signal_stops_between_two_chunks() -> None:
    with pytest.raises(signals.StoppedBySignal) as raised:
        with survey.stoppable() as stop:
            for _ in survey.spread(_double, iter([[1], [2], [3]]), 0, stop):
                signal.raise_signal(signal.SIGTERM)
    assert raised.value.exit_code == 128 + signal.SIGTERM
    with pytest.raises(KeyboardInterrupt):
        with survey.stoppable():
            signal.raise_signal(signal.SIGINT)
            signal.raise_signal(signal.SIGINT)  # who repeats it means it


def test_results_before_an_interruption_are_kept() -> None:
    def chunks():  # type: ignore[no-untyped-def]
        yield [1, 2]
        yield [3]
        raise signals.StoppedBySignal(signal.SIGINT, "go on")

    kept = []
    with pytest.raises(signals.StoppedBySignal):
        for batch in survey.batches(chunks()):
            kept += batch
    assert kept == [1, 2, 3]


def test_chunks_are_bounded_by_count_and_bytes() -> None:
    sizes = [1] * 70 + [5 << 20] * 3 + [50 << 20]
    made = list(
        survey.in_chunks(
            PictureJob(number, 1, Candidate("", size, 0)) for number, size in enumerate(sizes)
        )
    )
    assert [len(chunk) for chunk in made] == [32, 32, 7, 1, 1, 1]
    assert [job.id for chunk in made for job in chunk] == list(range(74))


SLOW = """
import os, sys, time
from gancolor.data.doctor import survey

class Slow(survey.Examiner):
    def __call__(self, job):
        time.sleep(0.01)
        os.write(1, b"+")
        return super().__call__(job)

if __name__ == "__main__":  # in this process alone, not in those that it spawns
    from pathlib import Path
    import test_doctor_survey
    from gancolor.data.doctor.journal import Journal
    from gancolor.errors import GancolorError

    survey.Examiner = Slow
    try:
        with Journal(Path(sys.argv[1])) as journal:
            test_doctor_survey.run(journal, Path(sys.argv[2]), workers=2)
    except GancolorError as error:
        print(error, file=sys.stderr)
        sys.exit(error.exit_code)
"""


@posix
@pytest.mark.parametrize(
    "kind", [signal.SIGINT, signal.SIGTERM, pytest.param(signal.SIGKILL, marks=pytest.mark.slow)]
)
def test_after_a_signal_the_next_call_goes_on(kind: signal.Signals, tmp_path: Path) -> None:
    (tmp_path / "files").mkdir()
    for number in range(200):
        (tmp_path / "files" / f"{number}.jpg").write_bytes(picture(number % 5))
    (tmp_path / "slow.py").write_text(SLOW)
    command = [str(tmp_path / "slow.py"), str(tmp_path / "journal"), str(tmp_path / "files")]
    paths = os.pathsep.join([str(Path(__file__).parent), str(Path(__file__).parents[1])])
    environment = {**os.environ, "PYTHONPATH": paths}
    with forkserver.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environment
    ) as process:
        try:
            assert process.stdout is not None and process.stdout.read(70) == b"+" * 70
            os.kill(process.pid, kind)
            errors = process.communicate(timeout=30)[1].decode()
        finally:
            process.kill()
    assert process.returncode == (-kind if kind == signal.SIGKILL else 128 + kind)
    assert errors == "" if kind == signal.SIGKILL else "what was found so far is kept" in errors
    with Journal(tmp_path / "journal") as journal:
        kept = journal.count("examined")
        assert kept < 200 and (kept > 0 or kind == signal.SIGKILL)
        assert run(journal, tmp_path / "files") == Tally(200 - kept, kept, 0, {})


def test_a_set_is_prepared_by_one_process_at_a_time(tmp_path: Path) -> None:
    with lock(tmp_path / "mine"), lock(tmp_path / "other"):
        with pytest.raises(
            DataError, match="one process at a time, got .*mine: another process is preparing it"
        ):
            with lock(tmp_path / "mine"):
                pass
    with lock(tmp_path / "mine"):
        pass
    assert {path.name for path in (tmp_path / "mine").iterdir()} == {".prepare"}


@posix
def test_a_killed_process_releases_its_lock(tmp_path: Path) -> None:
    script = (
        "import sys, time; from pathlib import Path; from gancolor.data.doctor.journal import lock\n"
        "with lock(Path(sys.argv[1])): print('held', flush=True); time.sleep(60)"
    )
    process = forkserver.Popen(["-c", script, str(tmp_path)], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None and process.stdout.readline() == "held\n"
    with pytest.raises(DataError, match="another process"), lock(tmp_path):
        pass
    process.kill()
    process.communicate()
    deadline = time.monotonic() + 5
    while True:
        try:
            with lock(tmp_path):
                break
        except DataError:
            assert time.monotonic() < deadline
