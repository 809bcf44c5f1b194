"""Sound beside the pictures: copied where the container takes it, else encoded anew, and never lost
in silence.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("av")

import av
import clips

from gancolor.errors import DataError
from gancolor.video import companions
from gancolor.video.decoding import FilmReader
from gancolor.video.encoding import Encoding, PartWriter
from gancolor.video.mux import assemble


def again(source: Path, target: Path, **options: Any) -> list[str]:
    """Write a film once more with its sound; returns the notes."""
    with FilmReader(source, chroma=True, **options) as reader:
        encoding = Encoding("ffv1" if target.suffix == ".mkv" else "auto").resolved(target)
        with PartWriter(target.with_suffix(".part"), reader.info, encoding) as writer:
            for frame in reader:
                assert frame.chroma is not None
                writer.write(frame.pts, frame.luma, *frame.chroma)
    return assemble([target.with_suffix(".part")], source, target, **options)


def heard(path: Path) -> tuple[str, float, float, np.ndarray]:
    """Codec, rate, the second at which sound begins, and the samples of the first channel in [-1,
    1].
    """
    with av.open(f"file:{path}") as container:
        stream = container.streams.audio[0]
        resampler = av.AudioResampler(format="fltp", rate=stream.rate)
        frames = list(container.decode(stream))
        begin = float((frames[0].pts or 0) * (frames[0].time_base or 0))
        parts = [
            part.to_ndarray()[0] for frame in [*frames, None] for part in resampler.resample(frame)
        ]
        return stream.codec_context.name, stream.rate, begin, np.concatenate(parts)


def pitch(samples: np.ndarray, rate: float) -> float:
    """The frequency of a tone, from its spectrum."""
    spectrum = np.abs(np.fft.rfft(samples * np.hanning(len(samples))))
    return float(np.argmax(spectrum[5:]) + 5) * rate / len(samples)


@pytest.mark.parametrize(
    ("source", "sound", "target", "codec"),
    [
        ("film.wmv", "wmav2", "out.mkv", "wmav2"),  # Matroska holds it as Windows does
        ("film.avi", "adpcm_ms", "out.mkv", "adpcm_ms"),
        ("film.flv", "nellymoser", "out.mkv", "flac"),
        ("film.flv", "nellymoser", "out.mp4", "aac"),
        ("film.flv", "nellymoser", "out.mov", "nellymoser"),
        ("film.flv", "adpcm_swf", "out.mov", "alac"),
        ("film.flv", "nellymoser", "out.avi", "pcm_s16le"),
        ("film.flv", "nellymoser", "out.webm", "opus"),
        ("film.flv", "adpcm_swf", "out.mkv", "flac"),
        ("film.vob", "pcm_dvd", "out.mkv", "flac"),
        ("film.avi", "wmav2", "out.mp4", "aac"),
    ],
)
def test_sound_is_in_the_result(
    source: str, sound: str, target: str, codec: str, tmp_path: Path
) -> None:
    options = {"format": "vob"} if source.endswith(".vob") else {}
    film = clips.film(tmp_path / source, frames=30, sound=sound, **options)

    notes = again(film, tmp_path / target)

    name, rate, _, samples = heard(tmp_path / target)
    assert name == codec
    stream = 0 if source.endswith(".flv") and notes and "stream 0" in notes[0] else 1
    kind = {".mkv": "matroska"}.get(Path(target).suffix, Path(target).suffix[1:])
    better = "" if kind == "matroska" else "; an .mkv can hold most"
    encoder = {"opus": "libopus"}.get(codec, codec)
    said = (
        f"sound stream {stream} ({sound}) encoded anew as {encoder}: {kind} files cannot hold it as"
        f" it is{better}"
    )
    assert [note for note in notes if "sound" in note] == ([] if codec == sound else [said])
    assert len(samples) / rate == pytest.approx(1.2, abs=0.12)
    middle = samples[len(samples) // 4 : -len(samples) // 4]
    assert pitch(middle, rate) == pytest.approx(440, abs=4)
    assert np.abs(middle).max() == pytest.approx(8000 / 32768, rel=0.25)


def test_lossless_sound_stays_so(tmp_path: Path) -> None:
    film = clips.film(tmp_path / "film.vob", frames=30, sound="pcm_dvd", format="vob")
    again(film, tmp_path / "out.mkv")
    assert np.array_equal(heard(film)[3], heard(tmp_path / "out.mkv")[3])


@pytest.mark.parametrize("suffix", [".mkv", ".mp4"])
def test_a_part_of_sound_that_is_encoded_anew(suffix: str, tmp_path: Path) -> None:
    film = clips.film(tmp_path / "film.flv", frames=100, sound="nellymoser")
    target = tmp_path / f"out{suffix}"

    again(film, target, start=1.0, end=3.0)

    _, rate, begin, samples = heard(target)
    assert begin == pytest.approx(0, abs=0.03) and len(samples) / rate == pytest.approx(2, abs=0.05)
    assert clips.packets(target)[0][0] == pytest.approx(0, abs=0.001)


def test_a_gap_in_the_sound_is_silence_of_its_length(tmp_path: Path) -> None:
    film, path = (
        clips.film(tmp_path / "film.flv", frames=100, sound="nellymoser"),
        tmp_path / "gap.flv",
    )
    with av.open(str(film)) as source, av.open(str(path), "w") as target:
        streams = {
            stream.index: target.add_stream_from_template(stream, opaque=True)
            for stream in source.streams
        }
        for packet in source.demux():
            sound = packet.stream.type == "audio"
            if packet.size and not (sound and 1 <= float((packet.pts or 0) * packet.time_base) < 2):
                packet.stream = streams[packet.stream_index]
                target.mux(packet)

    again(path, tmp_path / "out.mkv")

    _, rate, _, samples = heard(tmp_path / "out.mkv")
    assert len(samples) / rate == pytest.approx(4, abs=0.1)
    loud = [
        np.abs(samples[int(at * rate) : int((at + 0.2) * rate)]).max() > 0.1
        for at in (0.5, 1.4, 1.7, 2.5, 3.5)
    ]
    assert loud == [True, False, False, True, True]


def undecodable(*_: object) -> None:
    raise ValueError("nothing decodes it")


def test_the_only_sound_is_never_lost(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    film = clips.film(tmp_path / "film.flv", frames=5, sound="nellymoser")
    monkeypatch.setattr(companions, "Recoder", undecodable)
    with pytest.raises(
        DataError, match=r"sound of a film must be kept, got .*film\.flv: sound stream . \(nelly"
    ) as e:
        again(film, tmp_path / "out.mkv")
    assert "\n" not in str(e.value) and not (tmp_path / "out.mkv").exists()
    with pytest.raises(DataError, match="can neither be copied nor decoded"):
        companions.check_sound(film, "matroska")


def test_sound_that_never_came_is_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    film, path = clips.film(tmp_path / "film.avi", frames=5, sound="wmav2"), tmp_path / "silent.avi"
    with av.open(str(film)) as source, av.open(str(path), "w") as target:
        streams = [
            target.add_stream_from_template(stream, opaque=True) for stream in source.streams
        ]
        for packet in source.demux(video=0):
            if packet.size:
                packet.stream = streams[0]
                target.mux(packet)
    monkeypatch.setattr(companions, "Recoder", undecodable)
    notes = again(path, tmp_path / "out.mp4")
    assert [note.split(":")[0] for note in notes] == ["sound stream 1 (wmav2) left out"]


def test_a_film_whose_sound_is_all_damaged_is_a_failure(tmp_path: Path) -> None:
    film, path = (
        clips.film(tmp_path / "film.avi", frames=10, sound="wmav2"),
        tmp_path / "broken.avi",
    )
    data = bytearray(film.read_bytes())
    for place in (at for at in range(data.index(b"idx1")) if data[at : at + 4] == b"01wb"):
        size = int.from_bytes(data[place + 4 : place + 8], "little")
        data[place + 8 : place + 8 + size] = b"\xff" * size
    path.write_bytes(data)
    with pytest.raises(DataError, match="no packet of sound stream 1 .* could be decoded"):
        again(path, tmp_path / "out.mp4")
    assert not (tmp_path / "out.mp4").exists()


def test_chapters_count_more_than_a_copy_of_sound(tmp_path: Path) -> None:
    # The way round by which Matroska gets this sound has no chapters.
    film = clips.film(tmp_path / "film.wmv", frames=30, sound="wmav2", chapters=True)
    again(film, tmp_path / "out.mkv")
    with av.open(str(tmp_path / "out.mkv")) as container:
        chapters = len(container.chapters())
    with av.open(str(film)) as container:
        assert chapters == len(container.chapters())
    assert heard(tmp_path / "out.mkv")[0] == ("flac" if chapters else "wmav2")


@pytest.mark.parametrize("name", ["a b.mkv", "it's [1].mkv", "back\\slash|.mkv", "é, ü.mkv"])
def test_names_on_the_way_round(name: str, tmp_path: Path) -> None:
    film = clips.film(tmp_path / "film.wmv", frames=5, sound="wmav2")
    (tmp_path / "new [x]").mkdir()
    again(film, tmp_path / "new [x]" / name)
    assert heard(tmp_path / "new [x]" / name)[0] == "wmav2"
    assert not [path for path in (tmp_path / "new [x]").iterdir() if path.name.startswith(".")]
