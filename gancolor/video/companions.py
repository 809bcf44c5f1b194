"""What a film file holds beside its pictures, and what of it another file can take: sound,
subtitles and more.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gancolor.errors import DataError, shown
from gancolor.video.encoding import trial
from gancolor.video.opening import film_stream, is_cover, load_av, opened
from gancolor.video.sound import Recoder
from gancolor.video.timeline import packets_of

if TYPE_CHECKING:
    from av.container import InputContainer, OutputContainer
    from av.packet import Packet
    from av.stream import Stream

# Written by every container by itself, or no longer true of the copy.
OWN = {
    "encoder",
    "major_brand",
    "minor_version",
    "compatible_brands",
    "software",
    "duration",
    "rotate",
}
OWN |= {"bps", "number_of_frames", "number_of_bytes", "vendor_id", "alpha_mode"}
QUICKTIME = "com.apple.quicktime."  # opens the keys of a phone's place and local date
COVERS = {"mjpeg": ("cover.jpg", "image/jpeg"), "png": ("cover.png", "image/png")}

Clip = Callable[[Fraction, Fraction], tuple[Fraction, Fraction] | None]


@dataclass
class Companion:
    """A stream of the source that is kept: from where, to where, and what becomes of its packets.

    `recoder` encodes its sound anew; without one they are copied. `kept`: how many were written.
    `lost`: how many were refused or damaged. `doubled`: how many lay over others, where the clock
    jumps. `last`: when the one before is decoded, in the source's time base.
    """

    source: Any
    output: Any
    name: str
    recoder: Recoder | None = None
    kept: int = 0
    lost: int = 0
    doubled: int = 0
    last: int | None = None

    @property
    def is_sound(self) -> bool:
        """Whether it is heard."""
        return bool(self.source.type == "audio")

    @property
    def is_text(self) -> bool:
        """Whether it is subtitles."""
        return bool(self.source.type == "subtitle")

    def is_pause(self, packet: Packet[Any]) -> bool:
        """Whether a packet is MP4's filling between two subtitles, which the output makes anew."""
        return (
            self.is_text
            and self.source.codec_context.name == "mov_text"
            and bytes(packet) == b"\0\0"
        )

    @property
    def is_cover(self) -> bool:
        """Whether it is a cover picture."""
        return bool(self.source.type == "video")


def add_companions(
    output: OutputContainer, container: InputContainer, path: Path, kind: str
) -> tuple[list[Companion], list[str]]:
    """Add to a film what a container of this `kind` can hold of the source's other streams; the
    rest are notes.

    Sound that it cannot hold is encoded anew. DataError if the film would lose its only sound.
    """
    companions, notes, film = [], [], film_stream(container, path)
    for stream in container.streams:
        if stream.index == film.index or _is_made_anew(stream, container):
            continue
        name = _name(stream)
        better = "" if kind == "matroska" else "; an .mkv can hold most"
        if stream.type == "video" and not is_cover(stream):  # type: ignore[arg-type]
            notes.append(f"{name} left out: only one stream of pictures is coloured")
        elif stream.type == "video" and kind == "matroska":
            if not _attach_cover(output, stream, path):
                notes.append(f"{name} left out: {kind} files cannot hold it")
        elif _holds(output, kind, stream):
            added = _added(output, stream)
            if stream.type != "attachment":
                companions.append(Companion(stream, added, name))
        elif stream.type == "audio" and _can_recode(stream, kind):
            recoder = Recoder(output, stream, kind)
            recoder.output.metadata.update(kept_of(stream.metadata))
            recoder.output.disposition = stream.disposition
            companions.append(Companion(stream, recoder.output, name, recoder))
            notes.append(
                f"{name} encoded anew as {recoder.codec}: {kind} files cannot hold it as it"
                f" is{better}"
            )
        else:
            notes.append(f"{name} left out: {kind} files cannot hold it{better}")
    lost = (
        container.streams.audio if not any(companion.is_sound for companion in companions) else ()
    )
    for stream in lost:
        if _holds_packets(path, stream.index):
            raise _silent(path, f"{_name(stream)} can neither be copied nor decoded")
    return companions, notes


def check_sound(path: Path, kind: str) -> None:
    """DataError if a film would lose its only sound in a container of this `kind`: before anything
    is coloured.
    """
    with opened(path) as container, trial(kind) as output:
        add_companions(output, container, path, kind)


def check_kept(companions: list[Companion], path: Path) -> None:
    """DataError if nothing came of any sound although there was some."""
    heard = [companion for companion in companions if companion.is_sound]
    if any(companion.lost for companion in heard) and not any(
        companion.kept for companion in heard
    ):
        raise _silent(
            path,
            f"no packet of {heard[0].name} could be {'decoded' if heard[0].recoder else 'copied'}",
        )


def is_teed(container: InputContainer, kind: str) -> bool:
    """Say whether a film has sound that Matroska holds and that PyAV only lets through to it on a
    way round.

    PyAV asks a list in which the sound of Windows is missing (A_MS/ACM), and asks none in front of
    FFmpeg's `tee`, which hands on all but chapters.
    """
    return (
        kind == "matroska"
        and not container.chapters()
        and any(
            not _taken(kind, stream, teed=False) and _taken(kind, stream, teed=True)
            for stream in container.streams.audio
        )
    )


def _holds_packets(path: Path, index: int) -> bool:
    """Say whether a stream is more than an entry in a header, as it is where sound was promised and
    never came.
    """
    with opened(path) as container:
        packets = packets_of(container, container.streams[index])
        return any(not isinstance(packet, Exception) and packet.size for packet in packets)


def _silent(path: Path, reason: str) -> DataError:
    return DataError(
        f"sound of a film must be kept, got {shown(path)}: {reason}; bring its sound into another"
        " form, or take it out of the film"
    )


def has_quicktime_keys(container: InputContainer) -> bool:
    """Say whether a film's metadata are written under QuickTime's keys, which MOV files hold."""
    return any(key.startswith(QUICKTIME) for key in container.metadata)


def add_metadata(
    output: OutputContainer,
    container: InputContainer,
    provenance: str | None,
    clip: Clip,
    kind: str,
) -> list[str]:
    """Copy title and the like, and chapters as far as `clip` keeps them; `provenance` leads the
    comment.

    Returns notes of what a container of this `kind` cannot hold.
    """
    kept, notes = kept_of(container.metadata), []
    if has_quicktime_keys(container) and kind not in ("mov", "matroska", "webm"):
        names = ", ".join(
            sorted(key.removeprefix(QUICKTIME) for key in kept if key.startswith(QUICKTIME))
        )
        notes.append(
            f"metadata of QuickTime left out ({names}): {kind} files cannot hold them; a .mov or"
            " .mkv can"
        )
    if provenance is not None:
        old = [kept.pop(key) for key in list(kept) if key.lower() == "comment"]
        kept["comment"] = "; ".join([provenance, *(line for line in old if line != provenance)])
    output.metadata.update(kept)
    chapters: list[Any] = []
    for chapter in container.chapters():
        base = chapter["time_base"] or Fraction(1, 1000)
        stretch = clip(chapter["start"] * base, chapter["end"] * base)
        if stretch is not None:
            begin, end = (round(time / base) for time in stretch)
            chapters.append(
                {**chapter, "id": len(chapters) + 1, "start": begin, "end": end, "time_base": base}
            )
    if chapters:
        output.set_chapters(chapters)
    return notes


def _is_made_anew(stream: Stream, container: InputContainer) -> bool:
    """Say whether the output makes a stream of its own for this: chapters' titles and time codes of
    MP4 and MOV.
    """
    if stream.type != "data":
        return False
    return bool(container.chapters()) or "timecode" in stream.metadata


def _holds(output: OutputContainer, kind: str, stream: Stream) -> bool:
    return _taken(kind, stream, teed=output.format.name == "tee")


def _taken(kind: str, stream: Stream, *, teed: bool) -> bool:
    """Try whether a container takes a stream: by writing a header with nothing else."""
    av = load_av()
    with trial(kind, teed=teed) as output:
        try:
            _added(output, stream)
            output.start_encoding()
        except (av.error.FFmpegError, ValueError, TypeError, NotImplementedError):
            return False
    return True


def _can_recode(stream: Stream, kind: str) -> bool:
    av = load_av()
    with trial(kind) as output:
        try:
            Recoder(output, stream, kind)
            output.start_encoding()
        except (av.error.FFmpegError, ValueError, TypeError, NotImplementedError):
            return False
    return True


def _added(output: OutputContainer, stream: Stream) -> Any:
    added: Any = output.add_stream_from_template(stream, opaque=True)
    added.metadata.update(kept_of(stream.metadata))
    added.disposition = stream.disposition
    return added


def _attach_cover(output: OutputContainer, stream: Stream, path: Path) -> bool:
    """Attach a cover as a file, which is how Matroska holds it."""
    kind = COVERS.get(stream.codec_context.name if stream.codec_context else "")
    with opened(path) as container:
        packet = next(
            (packet for packet in container.demux(container.streams[stream.index]) if packet.size),
            None,
        )
        if kind is None or packet is None:
            return False
        output.add_attachment(kind[0], kind[1], bytes(packet))
    return True


def kept_of(metadata: dict[str, str]) -> dict[str, str]:
    """Return the metadata that stay true of a copy."""
    return {
        key: value
        for key, value in metadata.items()
        if key.lower() not in OWN and not key.lower().startswith("_statistics")
    }


def _name(stream: Stream) -> str:
    """A stream in words: "subtitle stream 2 (mov_text)"."""
    context: Any = stream.codec_context
    codec = context.name if context is not None else getattr(stream, "name", None)
    kind = {"audio": "sound", "video": "picture"}.get(stream.type, stream.type)
    return f"{kind} stream {stream.index}" + (f" ({codec})" if codec else "")
