"""Malformed films by the hundred: each is coloured, or refused in one line; none may crash or lose
a thing unsaid.

    python tests/campaign_films.py --seed 1 --count 400

Prints what became of them by kind, and each that went wrong with its number: the same seed and
number give the same file. A film counts as

    coloured    with all frames that FFmpeg decodes of it, or fewer and that is said
    refused     with an error of one line, nothing left behind
    untold      coloured with fewer frames than FFmpeg decodes, or without its sound, and nothing said
    crashed     another error, more than one line, something left behind, a signal, or more than a minute
"""

from __future__ import annotations

import argparse
import collections
import json
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

sys.path[:0] = [str(Path(__file__).parent), str(Path(__file__).parents[1])]

import clips  # noqa: E402

SECONDS = 60
KINDS: list[tuple[str, dict[str, Any]]] = [
    ("a.mp4", {}),
    ("b.mkv", {}),
    ("c.avi", {}),
    ("d.avi", {"codec": "mpeg4", "b_frames": 1, "sound": "mp3"}),
    ("e.ts", {"codec": "libx264"}),
    ("f.ts", {"codec": "mpeg2video", "b_frames": 2}),
    ("g.mpg", {"b_frames": 2}),
    ("h.webm", {}),
    ("i.mov", {"codec": "libx264", "b_frames": 2}),
    ("j.flv", {"sound": "nellymoser"}),
    ("k.wmv", {"sound": "wmav2"}),
    ("l.mkv", {"codec": "ffv1", "sound": "flac"}),
]


def sources(folder: Path) -> list[Path]:
    """The whole films, made once a folder."""
    films = []
    for name, options in KINDS:
        path = folder / name
        if not path.exists():
            clips.film(
                path.with_suffix(f".new{path.suffix}"), **({"frames": 40, "sound": True} | options)
            )
            path.with_suffix(f".new{path.suffix}").rename(path)
        films.append(path)
    return films


def mutant(films: list[Path], seed: int, number: int) -> tuple[str, str, bytes]:
    """The name of the source, the kind of damage and the file of one case."""
    rng = np.random.default_rng((seed, number))
    source = films[int(rng.integers(len(films)))]
    data = bytearray(source.read_bytes())
    names = list(DAMAGES)
    name = names[int(rng.integers(len(names)))]
    other = films[int(rng.integers(len(films)))].read_bytes()
    return source.name, name, bytes(DAMAGES[name](data, rng, other))


def _cut(data: bytearray, rng: np.random.Generator, other: bytes) -> bytes:
    return bytes(data[: int(rng.integers(1, len(data)))])


def _flip(share: float, first: int = 0) -> Callable[[bytearray, np.random.Generator, bytes], bytes]:
    def flip(data: bytearray, rng: np.random.Generator, other: bytes) -> bytes:
        least = min(first, len(data) - 1)
        for place in rng.integers(least, len(data), max(1, int(share * len(data)))):
            data[place] = int(rng.integers(256))
        return bytes(data)

    return flip


def _flip_head(data: bytearray, rng: np.random.Generator, other: bytes) -> bytes:
    for place in rng.integers(0, min(600, len(data)), int(rng.integers(1, 8))):
        data[place] = int(rng.integers(256))
    return bytes(data)


def _slice(rng: np.random.Generator, length: int) -> slice:
    first = int(rng.integers(0, length))
    return slice(first, first + int(rng.integers(1, max(2, length // 5))))


def _drop(data: bytearray, rng: np.random.Generator, other: bytes) -> bytes:
    del data[_slice(rng, len(data))]
    return bytes(data)


def _blank(data: bytearray, rng: np.random.Generator, other: bytes) -> bytes:
    place = _slice(rng, len(data))
    data[place] = bytes([int(rng.choice([0, 255]))]) * len(data[place])
    return bytes(data)


def _double(data: bytearray, rng: np.random.Generator, other: bytes) -> bytes:
    place = _slice(rng, len(data))
    data[place.stop : place.stop] = data[place]
    return bytes(data)


def _drop_packets(data: bytearray, rng: np.random.Generator, other: bytes) -> bytes:
    """Whole packets of a broadcast's length, here and there."""
    pieces = [data[at : at + 188] for at in range(0, len(data), 188)]
    return b"".join(
        piece for number, piece in enumerate(pieces) if number < 4 or rng.random() > 0.03
    )


def _other_head(data: bytearray, rng: np.random.Generator, other: bytes) -> bytes:
    size = int(rng.integers(4, 2000))
    return other[:size] + bytes(data[size:])


def _joined(data: bytearray, rng: np.random.Generator, other: bytes) -> bytes:
    return bytes(data) + other


def _twice(data: bytearray, rng: np.random.Generator, other: bytes) -> bytes:
    return bytes(data) * int(rng.integers(2, 4))


DAMAGES: dict[str, Callable[[bytearray, np.random.Generator, bytes], bytes]] = {
    "cut off": _cut,
    "one byte in 10,000": _flip(1e-4),
    "one byte in 1,000": _flip(1e-3, 500),
    "bytes of the head": _flip_head,
    "a piece dropped": _drop,
    "a piece blank": _blank,
    "a piece doubled": _double,
    "packets dropped": _drop_packets,
    "head of another": _other_head,
    "joined to another": _joined,
    "joined to itself": _twice,
}


def held(path: Path) -> tuple[int, int]:
    """How many frames and packets of sound FFmpeg gets out of a file, whatever is wrong with it."""
    import av

    from gancolor.video.opening import film_stream, opened
    from gancolor.video.timeline import packets_of

    frames = sounds = 0
    with opened(path) as container:
        film = film_stream(container, path)
        for packet in packets_of(container, film, *container.streams.audio):
            if isinstance(packet, Exception):
                continue
            if packet.stream_index != film.index:
                sounds += packet.size > 0
                continue
            try:
                frames += len(packet.decode())
            except av.error.FFmpegError:
                pass
    return frames, sounds


def judge(path: Path, out: Path) -> tuple[str, str]:
    """Colour one film; returns what became of it, and why."""
    import test_film

    from gancolor.errors import GancolorError
    from gancolor.video.encoding import Encoding
    from gancolor.video.probe import probe

    target = out / "out.mkv"
    try:
        encoding = Encoding("libx264", preset="ultrafast")
        result = test_film.run(path, target, encoding=encoding, size=16, key_interval=8)
    except GancolorError as error:
        left = [item.name for item in out.iterdir()]
        return (
            ("crashed", f"left {left}") if left or "\n" in str(error) else ("refused", str(error))
        )
    except Exception as error:
        return "crashed", f"{type(error).__name__}: {error}"
    said = result.damaged or result.notes
    frames, sounds = held(path)
    if result.frames < frames and not said:
        return "untold", f"{result.frames} frames of {frames}"
    if sounds and not probe(target).audio and not any("sound" in note for note in result.notes):
        return "untold", f"{sounds} packets of sound are gone"
    target.unlink()
    return "coloured", f"{result.frames} of {frames}; {'; '.join([*result.damaged, *result.notes])}"


def work(folder: Path, seed: int, first: int, last: int) -> None:
    """Judge some cases; a line of JSON each, that of the case begun before it is judged."""
    films = sources(folder)
    for number in range(first, last):
        name, damage, data = mutant(films, seed, number)
        print(json.dumps({"number": number, "source": name, "damage": damage}), flush=True)
        with tempfile.TemporaryDirectory(dir=folder) as out:
            path = folder / f"case-{first}{Path(name).suffix}"
            path.write_bytes(data)
            fate, why = judge(path, Path(out))
            path.unlink()
        print(json.dumps({"number": number, "fate": fate, "why": why}), flush=True)


def campaign(folder: Path, seed: int, count: int) -> Iterator[dict[str, Any]]:
    """Judge all cases in processes of their own, so that one that dies costs only itself."""
    sources(folder)
    number = 0
    while number < count:
        command = [
            sys.executable,
            __file__,
            "--work",
            str(folder),
            "--seed",
            str(seed),
            "--first",
            str(number),
        ]
        last = min(number + 20, count)
        case: dict[str, Any] = {}
        try:
            done = subprocess.run(
                [*command, "--count", str(last)],
                capture_output=True,
                text=True,
                timeout=SECONDS * 5,
                check=False,
            )
            output, died = (
                done.stdout,
                f"exit code {done.returncode}: {done.stderr[-300:]}" if done.returncode else "",
            )
        except subprocess.TimeoutExpired as error:
            output, died = (error.stdout or b"").decode(), "it hangs"
        for line in output.splitlines():
            case |= json.loads(line)
            if "fate" in case:
                yield case
                number, case = case["number"] + 1, {}
        if died:
            yield (
                {"number": number, "source": "?", "damage": "?"}
                | case
                | {"fate": "crashed", "why": died}
            )
            number += 1


def main() -> int:
    parser = argparse.ArgumentParser(
        description="Colour malformed films and count what becomes of them."
    )
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--count", type=int, default=400)
    parser.add_argument("--work", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--first", type=int, default=0, help=argparse.SUPPRESS)
    parser.add_argument("--verbose", action="store_true", help="a line for each film")
    chosen = parser.parse_args()
    if chosen.work:
        work(chosen.work, chosen.seed, chosen.first, chosen.count)
        return 0
    fates: dict[str, collections.Counter[str]] = collections.defaultdict(collections.Counter)
    with tempfile.TemporaryDirectory() as folder:
        for case in campaign(Path(folder), chosen.seed, chosen.count):
            fates[case["damage"]][case["fate"]] += 1
            if chosen.verbose or case["fate"] in ("untold", "crashed"):
                print("{number} {source} {damage}: {fate}: {why}".format(**case), flush=True)
    columns = ("coloured", "refused", "untold", "crashed")
    print(f"{'':20}" + "".join(f"{column:>10}" for column in columns))
    for damage, counts in [
        *sorted(fates.items()),
        ("all", sum(fates.values(), collections.Counter())),
    ]:
        print(f"{damage:20}" + "".join(f"{counts[column]:>10}" for column in columns))
    total = sum(fates.values(), collections.Counter())
    return 1 if total["untold"] or total["crashed"] else 0


if __name__ == "__main__":
    sys.exit(main())
