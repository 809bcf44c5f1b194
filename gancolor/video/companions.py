"""What a film file holds beside its pictures, and what of it another file can take: sound, subtitles and more."""

from __future__ import annotations

import io
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gancolor.video.opening import film_stream, is_cover, load_av, opened

if TYPE_CHECKING:
    from av.container import InputContainer, OutputContainer
    from av.packet import Packet
    from av.stream import Stream

# Written by every container by itself, or no longer true of the copy.
OWN = {"encoder", "major_brand", "minor_version", "compatible_brands", "software", "duration", "rotate"}
OWN |= {"bps", "number_of_frames", "number_of_bytes", "vendor_id"}
COVERS = {"mjpeg": ("cover.jpg", "image/jpeg"), "png": ("cover.png", "image/png")}

Clip = Callable[[Fraction, Fraction], tuple[Fraction, Fraction] | None]


@dataclass
class Companion:
    """A stream of the source that is copied: from where, to where, and how many of its packets were refused."""

    source: Any
    output: Any
    name: str
    lost: int = 0

    @property
    def is_text(self) -> bool:
        """Whether it is subtitles."""
        return bool(self.source.type == "subtitle")

    def is_pause(self, packet: Packet[Any]) -> bool:
        """Whether a packet is MP4's filling between two subtitles, which the output makes anew."""
        return self.is_text and self.source.codec_context.name == "mov_text" and bytes(packet) == b"\0\0"

    @property
    def is_cover(self) -> bool:
        """Whether it is a cover picture."""
        return bool(self.source.type == "video")


def add_companions(
    output: OutputContainer, container: InputContainer, path: Path, kind: str
) -> tuple[list[Companion], list[str]]:
    """Add to a film what a container of this `kind` can hold of the source's other streams; the rest are notes."""
    companions, notes, film = [], [], film_stream(container, path)
    for stream in container.streams:
        if stream.index == film.index or _is_made_anew(stream, container):
            continue
        name = _name(stream)
        if stream.type == "video" and not is_cover(stream):  # type: ignore[arg-type]
            notes.append(f"{name} left out: only one stream of pictures is coloured")
        elif stream.type == "video" and kind == "matroska":
            if not _attach_cover(output, stream, path):
                notes.append(f"{name} left out: {kind} files cannot hold it")
        elif not _holds(kind, stream):
            better = "" if kind == "matroska" else "; an .mkv can hold most"
            notes.append(f"{name} left out: {kind} files cannot hold it{better}")
        else:
            added = _added(output, stream)
            if stream.type != "attachment":
                companions.append(Companion(stream, added, name))
    return companions, notes


def add_metadata(output: OutputContainer, container: InputContainer, provenance: str | None, clip: Clip) -> None:
    """Copy title and the like, and chapters as far as `clip` keeps them; `provenance` leads the comment."""
    kept = kept_of(container.metadata)
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
            chapters.append({**chapter, "id": len(chapters) + 1, "start": begin, "end": end, "time_base": base})
    if chapters:
        output.set_chapters(chapters)


def _is_made_anew(stream: Stream, container: InputContainer) -> bool:
    """Say whether the output makes a stream of its own for this: chapters' titles and time codes of MP4 and MOV."""
    if stream.type != "data":
        return False
    return bool(container.chapters()) or "timecode" in stream.metadata


def _holds(kind: str, stream: Stream) -> bool:
    """Try whether a container takes a stream: by writing a header with nothing else."""
    av = load_av()
    output = av.open(io.BytesIO(), "w", format=kind, metadata_errors="surrogateescape")
    try:
        _added(output, stream)
        output.start_encoding()
    except (av.error.FFmpegError, ValueError, TypeError, NotImplementedError):
        return False
    finally:
        with suppress(Exception):
            output.close()
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
        packet = next((packet for packet in container.demux(container.streams[stream.index]) if packet.size), None)
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
