"""A film in, the coloured film out.

It is read, coloured and encoded at once, in one share or in several that others make meanwhile.
What the parts are made of and how is written down, so that a stopped film only goes on with the
same.
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import time
import weakref
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import cv2
import numpy as np
import torch

from gancolor.coloring.colorizer import Colorizer
from gancolor.coloring.full_size import auto_size
from gancolor.data.doctor import examination
from gancolor.errors import ConfigError, DataError, GancolorError, shown
from gancolor.images import arrays
from gancolor.runtime.files import Progress
from gancolor.video import decoding, frame_colors, parts, share
from gancolor.video.companions import check_sound
from gancolor.video.encoding import FORMATS, Encoding, encoding_notes
from gancolor.video.film_settings import FilmSettings
from gancolor.video.mux import assemble
from gancolor.video.parts import Checkpoint, Share
from gancolor.video.planes import rescaled
from gancolor.video.probe import FilmInfo, probe, shortfall
from gancolor.video.share import WARM_UP_KEYS, Maker, Span
from gancolor.video.shot_making import ShotMaker

_LOOKS = 6  # frames that tell whether a film is in colour

# Fingerprints of weights: a batch asks for each film.
_fingerprints: weakref.WeakKeyDictionary[Colorizer, str] = weakref.WeakKeyDictionary()


@dataclass(frozen=True)
class FilmResult:
    """What was made of a film.

    `frames`: how many were written. `seconds`: how long it took (the slowest process, with what it
    took before it was resumed). `shots`: how many were found (0 with strength 0, which looks for
    none). `network_passes`: how many frames the network saw. `notes`: what the user should know.
    `damaged`: what could not be decoded. `width`, `height`: of the film, in pixels. `busy`: seconds
    that each part of the work took in this process. `chroma`: the mean CIE chroma of the network's
    colours, before the saturation.
    """

    frames: int
    seconds: float
    shots: int
    network_passes: int
    notes: list[str]
    damaged: list[str]
    width: int
    height: int
    busy: dict[str, float] = field(default_factory=dict)
    chroma: float = 0.0


class Spread(Protocol):
    """Sees to it that all shares of a film are made, here or elsewhere."""

    def __call__(
        self, count: int, make: Callable[[int], None], is_made: Callable[[int], bool]
    ) -> None:
        """Return when all of so many shares are made.

        make: makes the share of this number here, from where its parts end. is_made: whether it is
        whole, wherever it was made.
        """


def color_film(
    colorizer: Colorizer,
    source: Path,
    target: Path,
    settings: FilmSettings,
    *,
    progress: Progress,
    shares: int = 1,
    spread: Spread | None = None,
    held: bool = False,
) -> FilmResult:
    """Colour the film `source` into `target`, whose suffix names the container.

    Its luma stays bit for bit what it was up to the encoder; its size, frames and timestamps stay
    too, and sound and subtitles are copied. `progress` is called with the frames that are done and
    the estimated total of the share that is made.

    The film is first written to whole parts in `.<target's name>.parts/` beside it, from which
    `settings.resume` goes on after a stop, and then joined. On an error nothing but whole parts
    stays, and the error says how many frames they hold. Its time is cut into up to `shares`, each
    of at least a part's frames, which others may make with `make_share` meanwhile, as `spread` sees
    to; a film that is resumed keeps those that it was begun with. `held`: the caller sees to it
    that nobody else makes the film.

    ConfigError for settings that cannot work. DataError for what cannot be read or written, and
    when another command makes the same film at the same time.
    """
    if (settings.keys is not None or settings.by_shots) and shares > 1:
        raise ConfigError(
            f"--keys must be used in one process, got {shares}; start it without torchrun"
        )
    frame_colors.check_able(colorizer, settings)
    folder = parts.folder_of(target)
    with _in_one_line(source, target), contextlib.nullcontext() if held else parts.alone(target):
        try:
            return _color(colorizer, source, target, folder, settings, progress, shares, spread)
        except BaseException:
            parts.remove_if_empty(folder)
            raise


def make_share(
    colorizer: Colorizer,
    source: Path,
    target: Path,
    settings: FilmSettings,
    number: int,
    shares: int,
    progress: Progress,
) -> dict[str, float]:
    """Make one of the shares of a film that `color_film` has begun, from where its parts end.

    Returns the seconds that each part of the work took. DataError for what cannot be read or
    written.
    """
    with _in_one_line(source, target):
        info = probe(source)
        settings = _resolved(settings, target, info)
        own = Share(parts.folder_of(target), number)
        own.clear()
        if _is_whole(own):
            return {}
        span = _span(info, settings, number, shares)
        size = _size(colorizer, settings)
        return Maker(colorizer, source, settings, size, span, own, progress).run()


def take_share(
    colorizer: Colorizer,
    source: Path,
    target: Path,
    settings: FilmSettings,
    number: int,
    most: int,
    progress: Progress,
) -> int:
    """Make one of the shares of a film that others make meanwhile, whoever of them is the first;
    returns into how many of up to `most` it is cut, each of at least a part's frames.

    Nothing is made where it is cut into fewer than `number` + 1, or not at all. Once all are made
    `color_film`, told to resume, joins them. ConfigError and DataError as `color_film`.
    """
    with _in_one_line(source, target):
        info, settings = _begun(source, target, settings)
        frame_colors.check_able(colorizer, settings)
        folder = parts.folder_of(target)
        count = parts.shares_of(folder) or _count(info, settings, most)
        if count > 1 and number < count:
            parts.prepare_share(folder, _making(colorizer, source, settings, count))
            make_share(colorizer, source, target, settings, number, count, progress)
        return count


def has_colors(source: Path) -> bool:
    """Whether a film is in colour already, in any of a few frames that are spread over it.

    Raises what `probe` does.
    """
    duration = probe(source).duration
    for number in range(_LOOKS if duration else 1):
        start = duration * (number + 0.5) / _LOOKS if duration else None
        with decoding.FilmReader(source, start=start, chroma=True) as film:
            frame = next(iter(film), None)
        if frame is None or frame.chroma is None:
            continue
        luma, cb, cr = (
            arrays.resize(
                np.asarray(rescaled(plane, film.info.depth, 8), np.uint8), examination.SIDE
            )
            for plane in (frame.luma, *frame.chroma)
        )
        if examination.has_colors(
            np.asarray(cv2.cvtColor(np.dstack((luma, cr, cb)), cv2.COLOR_YCrCb2RGB), np.uint8)
        ):
            return True
    return False


def _color(
    colorizer: Colorizer,
    source: Path,
    target: Path,
    folder: Path,
    settings: FilmSettings,
    progress: Progress,
    count: int,
    spread: Spread | None,
) -> FilmResult:
    start = time.perf_counter()
    info, settings = _begun(source, target, settings)
    begun = parts.shares_of(folder) if settings.resume else None
    count = begun or _count(info, settings, count)
    making = _making(colorizer, source, settings, count)
    if settings.keys is not None or settings.by_shots:
        size = _size(colorizer, settings)
        by_shots = ShotMaker(colorizer, source, settings, size, folder, info, making)
        parts.prepare_shots(folder, making)
        return _by_shots(by_shots, source, target, folder, settings, info, progress, start)
    parts.prepare(folder, making, resume=settings.resume)
    busy: dict[str, float] = {}

    def make(number: int) -> None:
        took = make_share(colorizer, source, target, settings, number, count, progress)
        busy.update({part: busy.get(part, 0.0) + seconds for part, seconds in took.items()})

    def shares() -> list[Share]:
        return [Share(folder, number) for number in range(count)]

    with _kept(folder, shares), _in_one_line(source, target):
        (spread or _make_all)(count, make, lambda number: _is_whole(Share(folder, number)))
        result = _join(shares(), source, target, settings, info, busy, start)
        parts.remove(folder)
    return result


def _begun(source: Path, target: Path, settings: FilmSettings) -> tuple[FilmInfo, FilmSettings]:
    """What a film holds, and the settings with what they take from it. ConfigError and DataError
    where it cannot become the target.
    """
    info = probe(source)
    settings = _resolved(settings, target, info)
    _check_target(source, target)
    check_sound(source, FORMATS[target.suffix.lower()])
    return info, settings


def _make_all(count: int, make: Callable[[int], None], is_made: Callable[[int], bool]) -> None:
    for number in range(count):
        make(number)


def _is_whole(made: Share) -> bool:
    return made.checkpoint is not None and made.checkpoint.done


def _count(info: FilmInfo, settings: FilmSettings, most: int) -> int:
    """Into how many of up to `most` shares a film is cut: none has less than a part's frames."""
    if settings.keys is not None or settings.by_shots:
        return 1
    frames = _span(info, settings, 0, 1).frames or 1
    return max(1, min(most, frames // share.PART_FRAMES))


def _resolved(settings: FilmSettings, target: Path, info: FilmInfo) -> FilmSettings:
    """The settings with what the encoding takes from the film."""
    encoding = (settings.encoding or Encoding()).resolved(target, info)
    return dataclasses.replace(settings, encoding=encoding)


def _size(colorizer: Colorizer, settings: FilmSettings) -> int:
    return auto_size(colorizer.sight) if settings.size is None else settings.size


def _by_shots(
    maker: ShotMaker,
    source: Path,
    target: Path,
    folder: Path,
    settings: FilmSettings,
    info: FilmInfo,
    progress: Progress,
    start: float,
) -> FilmResult:
    """Make a film with key frames of the user's own; its parts stay, for other key frames."""
    kept_on = _kept(folder, lambda: maker.shares, "the same command goes on")
    with kept_on, _in_one_line(source, target):
        busy = maker.run(progress)
        result = _join(maker.shares, source, target, settings, info, busy, start)
        size = parts.keep_only(folder, maker.shares)
    kept = (
        f"parts kept in {shown(folder)} ({size / 1e6:,.1f} MB), so that other key frames cost only"
        " their shots; delete it when the film is done"
    )
    return dataclasses.replace(result, notes=[*maker.notes, *result.notes, kept])


def _making(
    colorizer: Colorizer, source: Path, settings: FilmSettings, shares: int
) -> dict[str, Any]:
    """All that decides what the parts hold, as plain JSON; the keys are what a user calls it."""
    assert settings.encoding is not None  # `color_film` has chosen it
    status = source.stat()
    own = {"resume", "provenance", "encoding", "start", "end", "keys", "by_shots"}
    making = {
        f"--{field.name.replace('_', '-')}": getattr(settings, field.name)
        for field in dataclasses.fields(settings)
        if field.name not in own
    }
    return making | {
        "--keys": None if settings.keys is None else str(settings.keys),
        "--from": settings.start,
        "--to": settings.end,
        "the encoding": dataclasses.asdict(settings.encoding),
        "the model": colorizer.name,
        "the model's weights": _fingerprint(colorizer),
        "the film's size and date": [status.st_size, status.st_mtime_ns],
        parts.SHARES: shares,
    }


def _fingerprint(colorizer: Colorizer) -> str | None:
    """16 hex digits that tell a generator's weights from others; None where there is no generator.

    They are taken of the weights rounded to bfloat16, so that they are the same on every device, in
    float32 and in bfloat16.
    """
    generator = getattr(colorizer, "generator", None)
    if generator is None:
        return None
    if colorizer not in _fingerprints:
        digest = hashlib.sha256()
        for name, values in sorted(generator.state_dict().items()):
            digest.update(f"{name} {tuple(values.shape)}".encode())
            values = values.cpu()
            if values.is_floating_point():
                values = values.to(torch.bfloat16).contiguous().view(torch.int16)
            digest.update(values.contiguous().numpy().tobytes())
        _fingerprints[colorizer] = digest.hexdigest()[:16]
    return _fingerprints[colorizer]


def _join(
    shares: list[Share],
    source: Path,
    target: Path,
    settings: FilmSettings,
    info: FilmInfo,
    busy: dict[str, float],
    start: float,
) -> FilmResult:
    """Join all parts into the film, and their checkpoints into the result."""
    ends = [share.checkpoint or Checkpoint() for share in shares]
    frames = sum(end.frames for end in ends)
    if frames == 0:
        raise DataError(
            f"{source} must have frames between --from and --to, got none; choose others"
        )
    joining = time.perf_counter()
    notes = assemble(
        [path for share in shares for path in share.paths],
        source,
        target,
        start=settings.start,
        end=settings.end,
        provenance=settings.provenance,
    )
    busy["join"] = time.perf_counter() - joining
    width, height = next(end.size for end in ends if end.frames)
    damaged = [line for end in ends for line in end.damaged]
    missing = (
        None
        if damaged
        else shortfall(source, info, *decoding.span(info, settings.start, settings.end), frames)
    )
    encoding = settings.encoding
    assert encoding is not None
    shots, passes = sum(end.shots for end in ends), sum(end.passes for end in ends)
    chroma = sum(end.chroma * end.passes for end in ends) / max(passes, 1)
    said = [
        *([missing] if missing else []),
        *frame_colors.pale(chroma, passes),
        *info.notes,
        *encoding_notes(info, encoding),
        *(note for end in ends for note in end.notes),
        *notes,
    ]
    seconds = max(max(end.seconds for end in ends) + busy["join"], time.perf_counter() - start)
    notes, damaged = list(dict.fromkeys(said)), list(dict.fromkeys(damaged))
    return FilmResult(frames, seconds, shots, passes, notes, damaged, width, height, busy, chroma)


def _check_target(source: Path, target: Path) -> None:
    """Raise a ConfigError if the film cannot be written there."""
    if target.is_dir():
        raise ConfigError(f"{target} must be a file's name, got a folder; choose another --out")
    if target.exists() and target.samefile(source):
        raise ConfigError(
            f"{target} must be another file than the film itself, got the same; choose another"
            " --out"
        )


def _span(info: FilmInfo, settings: FilmSettings, number: int, count: int) -> Span:
    """A share of the film's time, of `count` shares; all of it where the film's duration is not
    known.
    """
    first, last = decoding.span(info, settings.start, settings.end)
    first = info.start_pts if first is None else max(first, info.start_pts)
    whole = None if info.duration is None else round(info.duration / info.time_base)
    if whole is not None:
        last = min(info.start_pts + whole, info.start_pts + whole if last is None else last)
    frames = None
    if info.frames is not None and whole and last is not None:
        frames = max(1, round(info.frames * min(1.0, (last - first) / whole)))
    if count == 1:
        return Span(frames=frames)
    if last is None:
        return Span(frames=frames) if number == 0 else Span(end=-(1 << 62), frames=0)
    borders = [
        None,
        *(first + (last - first) * each // count for each in range(1, count)),
        None,
    ]
    warm_up = round(WARM_UP_KEYS * settings.key_interval / (info.rate or 25) / info.time_base)
    return Span(
        borders[number],
        borders[number + 1],
        warm_up,
        None if frames is None else -(-frames // count),
    )


@contextlib.contextmanager
def _in_one_line(source: Path, target: Path) -> Iterator[None]:
    """Turn an error of any kind into one that names the film in one line."""
    try:
        yield
    except GancolorError:
        raise
    except Exception as error:
        raise _in_words(error, source, target) from error


def _in_words(error: Exception, source: Path, target: Path) -> DataError:
    """An error of any kind as one line for the user."""
    if isinstance(error, OSError):
        reason = error.strerror or type(error).__name__
        return DataError(
            f"{shown(target)} must be writable, got an error ({reason}); make room or choose"
            " another --out"
        )
    if isinstance(error, MemoryError):
        return DataError(
            f"{shown(source)} must fit into memory, got none left; close other programs"
        )
    text = " ".join(f"{type(error).__name__}: {error}".split())
    return DataError(f"{shown(source)} must be coloured without an error, got {text}")


@contextlib.contextmanager
def _kept(
    folder: Path, shares: Callable[[], list[Share]], go_on: str = "--resume goes on"
) -> Iterator[None]:
    """Add to an error how many frames are kept of the film, and how to go on."""
    try:
        yield
    except (GancolorError, KeyboardInterrupt) as error:
        frames = 0
        with contextlib.suppress(GancolorError):
            ends = [share.checkpoint for share in shares()]
            frames = sum(end.frames for end in ends if end is not None)
        if frames:
            kept = f"{frames} frame{'s are' if frames != 1 else ' is'} kept in {shown(folder)}; {go_on}"
            error.args = (f"{error}; {kept}" if str(error) else kept,)
        raise
