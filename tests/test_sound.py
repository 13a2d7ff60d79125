"""Sound, subtitles, chapters and titles: through a file and back, packet by packet."""

from __future__ import annotations

import io
from collections.abc import Callable
from fractions import Fraction
from itertools import pairwise
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from av.stream import Disposition
from conftest import tiny_frames
from run_cwrv import cwrv, fails
from video_samples import properties

import nvcodec
from nvcodec.core.errors import InputError, SyntaxViolation
from nvcodec.media import subtitles
from nvcodec.media.sound import Sound, SoundReader, read_sound
from nvcodec.media.sound_write import SoundWriter, tracks_of
from nvcodec.media.y4m import write_y4m

USUAL = ("--effort", "fast", "--threads", "1", "--device", "cpu", "--quality", "45")
RATE = 48_000
Packets = list[tuple[Fraction, bytes]]


def make(path: Path, codecs: tuple[str, ...], *, seconds: float = 2, late: float = 0, rate: int = 25) -> Path:
    """A film of 48x32 with a track for each codec, in English and German, two chapters and a title. ``late``: by how
    much the sound begins later than the pictures. ``rate``: pictures a second."""
    with av.open(str(path), "w") as container:
        video: Any = container.add_stream("libx264", rate=rate)
        video.width, video.height, video.pix_fmt = 48, 32, "yuv420p"
        tracks: list[Any] = [container.add_stream(codec, rate=RATE) for codec in codecs]
        for track, language in zip(tracks, ("eng", "deu"), strict=False):
            track.layout, track.metadata["language"] = "stereo", language
            track.disposition = Disposition.default if language == "deu" else Disposition(0)
        base = Fraction(1, 1000)
        container.set_chapters(
            [
                {"id": 1, "start": 0, "end": 1000, "time_base": base, "metadata": {"title": "one"}},
                {"id": 2, "start": 1000, "end": int(1000 * seconds), "time_base": base, "metadata": {"title": "two"}},
            ]
        )
        container.metadata["title"] = "a film"
        for n in range(int(rate * seconds)):
            picture = av.VideoFrame.from_ndarray(np.full((48, 48), 3 * n % 200, np.uint8), "yuv420p")
            picture.pts = n
            container.mux(video.encode(picture))
            for k, track in enumerate(tracks):
                t = np.arange(n * RATE // rate, (n + 1) * RATE // rate) / RATE
                wave = (0.3 * np.sin(2 * np.pi * (440 + 220 * k) * t)).astype(np.float32)
                frame = av.AudioFrame.from_ndarray(np.stack([wave, wave]), "fltp", "stereo")
                frame.sample_rate, frame.time_base = RATE, Fraction(1, RATE)
                frame.pts = n * RATE // rate + round(late * RATE)
                container.mux(track.encode(frame))
        for stream in (video, *tracks):
            container.mux(stream.encode(None))
    return path


def packets(path: Path | io.BytesIO, track: int = 0) -> Packets:
    """(seconds, bytes) of the packets of an audio track."""
    with av.open(str(path) if isinstance(path, Path) else path) as container:
        return [
            (p.pts * p.time_base, bytes(p))
            for p in container.demux(container.streams.audio[track])
            if p.size and p.pts is not None and p.time_base
        ]


def first_picture(path: Path) -> Fraction:
    with av.open(str(path)) as container:
        frame = next(container.decode(video=0))
        assert frame.pts is not None
        return frame.pts * frame.time_base


Encode = Callable[..., Path]


@pytest.fixture
def through(tmp_path: Path) -> Encode:
    """Encodes a file and decodes it again."""

    def run(source: Path, name: str, *options: str) -> Path:
        file, output = tmp_path / "a.cwrv", tmp_path / name
        done = cwrv("encode", source, "-o", file, "-y", *USUAL, *options)
        assert done.exit_code == 0, done.stderr
        done = cwrv("decode", file, "-o", output, "-y")
        assert done.exit_code == 0, done.stderr
        output.with_suffix(".txt").write_text(done.stderr)
        return output

    return run


@pytest.mark.parametrize("name", ["out.mp4", "out.mkv"])
def test_two_tracks_are_copied(tmp_path: Path, through: Encode, name: str) -> None:
    """Every packet is the same, at the same distance from the first picture; names and choices are kept."""
    source = make(tmp_path / "film.mp4", ("aac", "aac"))
    output = through(source, name)
    for track in range(2):
        before, after = packets(source, track), packets(output, track)
        assert [data for _, data in before] == [data for _, data in after]
        offset = first_picture(output) - first_picture(source)
        assert max(abs(a - b - offset) for (a, _), (b, _) in zip(after, before, strict=True)) <= Fraction(1, 500)
    with av.open(str(output)) as container:
        assert [s.metadata["language"] for s in container.streams.audio] == ["eng", "deu"]
        assert [bool(s.disposition & Disposition.default) for s in container.streams.audio] == [False, True]
        assert container.metadata["title"] == "a film"
        chapters = container.chapters()
        assert [c["metadata"]["title"] for c in chapters] == ["one", "two"]
        assert [float(c["start"] * c["time_base"]) for c in chapters] == [0, 1]
        heard = sum(frame.samples for frame in container.decode(audio=0))
        assert heard >= 1.95 * RATE


def test_a_minute_of_two_tracks(tmp_path: Path, through: Encode) -> None:
    """Sound stays where it is to the end: within a millisecond, where one of its frames lasts 21."""
    source = make(tmp_path / "film.mp4", ("aac", "aac"), seconds=60, rate=2)
    output = through(source, "out.mp4", "--segment", "33")
    offset = first_picture(output) - first_picture(source)
    for track in range(2):
        before, after = packets(source, track), packets(output, track)
        assert len(before) > 2800
        assert [data for _, data in before] == [data for _, data in after]
        assert max(abs(a - b - offset) for (a, _), (b, _) in zip(after, before, strict=True)) <= Fraction(1, 1000)


def subtitled(path: Path, codec: str, audio: str = "aac") -> Path:
    """A film of two seconds with a track of sound, and two German subtitles, the first one in italics."""
    with av.open(str(path), "w") as container:
        video: Any = container.add_stream("libx264", rate=25)
        video.width, video.height, video.pix_fmt = 48, 32, "yuv420p"
        sound: Any = container.add_stream(audio, rate=RATE)
        sound.layout = "stereo"
        text: Any = container.add_stream(codec)
        text.codec_context.subtitle_header = subtitles._HEADER
        text.metadata["language"] = "deu"
        kind, samples = {"alac": ("s16p", np.int16), "pcm_mulaw": ("s16", np.int16)}.get(audio, ("fltp", np.float32))
        for n in range(50):
            picture = av.VideoFrame.from_ndarray(np.full((48, 48), 3 * n, np.uint8), "yuv420p")
            picture.pts = n
            container.mux(video.encode(picture))
            shape = (1, 2 * RATE // 25) if kind == "s16" else (2, RATE // 25)
            frame = av.AudioFrame.from_ndarray(np.zeros(shape, samples), kind, "stereo")
            frame.sample_rate, frame.time_base, frame.pts = RATE, Fraction(1, RATE), n * RATE // 25
            container.mux(sound.encode(frame))
        for stream in (video, sound):
            container.mux(stream.encode(None))
        first = {"subrip": "<i>one</i>", "ass": r"{\i1}one{\i0}"}.get(codec, "one")
        for at, duration, words in ((400, 500, first), (1000, 700, "two\nlines")):
            data = f"0,0,Default,,0,0,0,,{words}".replace("\n", r"\N") if codec == "ass" else words
            packet = subtitles.packet_of_text(codec, data, Fraction(at, 1000), Fraction(at + duration, 1000))
            packet.stream = text
            container.mux_one(packet)
    return path


def shown(path: Path) -> tuple[str, list[tuple[int, int, str]]]:
    """Codec, and milliseconds of beginning and end behind the first picture, and words, of what is not empty."""
    begin = first_picture(path)
    with av.open(str(path)) as container:
        (stream,) = container.streams.subtitles
        assert stream.metadata["language"] == "deu"
        codec = subtitles.text_codec(stream)
        found = []
        for packet in container.demux(stream):
            data = bytes(packet)
            if data and packet.pts is not None and packet.time_base and data != b"\0\0":
                start = packet.pts * packet.time_base - begin
                end = start + (packet.duration or 0) * packet.time_base
                words = data[2:].decode() if codec == "mov_text" else data.decode()
                found.append((round(1000 * start), round(1000 * end), words))
    return codec, found


@pytest.mark.parametrize("codec", ["subrip", "ass", "mov_text"])
def test_subtitles_are_kept(tmp_path: Path, through: Encode, codec: str) -> None:
    """As they are where the output can hold them, else as plain text, which is told; from when to when, too."""
    source = subtitled(tmp_path / ("film.mp4" if codec == "mov_text" else "film.mkv"), codec)
    plain = [(400, 900, "one"), (1000, 1700, "two\nlines")]
    same = shown(source)
    for name, expected in (
        ("out.mkv", ("subrip", plain) if codec == "mov_text" else same),
        ("out.mp4", ("mov_text", plain)),
    ):
        output = through(source, name)
        assert shown(output) == expected
        assert [d for _, d in packets(source)] == [d for _, d in packets(output)]
        told = output.with_suffix(".txt").read_text()
        assert ("becomes plain text" in told) == (codec == "ass" and name == "out.mp4")
    with nvcodec.Decoder(tmp_path / "a.cwrv") as decoder:
        assert decoder.container.minor == 3


def test_sound_that_nut_does_not_know(tmp_path: Path, through: Encode) -> None:
    source = subtitled(tmp_path / "film.mkv", "subrip", "alac")
    output = through(source, "out.mkv")
    assert [d for _, d in packets(source)] == [d for _, d in packets(output)]
    first = (tmp_path / "a.cwrv").read_bytes()
    through(source, "out.mkv")
    assert (tmp_path / "a.cwrv").read_bytes() == first


def test_text_of_packets() -> None:
    assert subtitles.text_of_packet("subrip", b"<b>a</b> {\\an8}b\r\nc 5 < 6") == "a b\nc 5 < 6"
    assert subtitles.text_of_packet("ass", rb"7,0,Default,,0,0,0,,{\i1}a, b{\i0}\Nc\hd") == "a, b\nc d"
    assert subtitles.text_of_packet("ass", rb"7,0,Default,,0,0,0,,{\p1}m 0 0 l 9 0{\p0}") == ""
    assert subtitles.text_of_packet("mov_text", b"\0\3<a>\0\0\0\x08styl") == "<a>"
    assert subtitles.text_of_packet("mov_text", b"\0\0") == ""
    assert subtitles.text_of_packet("webvtt", b"<v A>1 &lt; 2</v>") == "1 < 2"
    assert subtitles.text_of_packet("subrip", b"\xff") == "\ufffd"


def test_cues_that_overlap_are_shown_together() -> None:
    cues = [(Fraction(begin), Fraction(end), text) for begin, end, text in ((1, 4, "a"), (2, 3, "b"), (6, 7, "c"))]
    assert subtitles.joined(cues) == [(1, 2, "a"), (2, 3, "a\nb"), (3, 4, "a"), (6, 7, "c")]
    at_once = [(Fraction(1), Fraction(2), text) for text in "ab"]
    assert subtitles.joined(at_once) == [(1, 2, "a\nb")]


@pytest.mark.parametrize("name", ["out.mkv", "out.mp4"])
def test_subtitles_of_a_part(tmp_path: Path, name: str) -> None:
    """What is over is left out, what is on begins with the first picture: that stays where it is."""
    source, file, output = subtitled(tmp_path / "film.mkv", "subrip"), tmp_path / "a.cwrv", tmp_path / name
    whole = tmp_path / "whole.cwrv"
    assert cwrv("encode", source, "-o", whole, *USUAL).exit_code == 0
    assert cwrv("encode", source, "-o", file, *USUAL, "--frames", "30:45").exit_code == 0
    expected = [(0, 500, "two\nlines")]  # from 1.0 to 1.7 s; frame 30 is at 1.2 s
    for made, options in ((file, ()), (whole, ("--frames", "30:45"))):
        assert cwrv("decode", made, "-o", output, "-y", *options).exit_code == 0
        assert shown(output)[1] == expected
        assert first_picture(output) < Fraction(1, 20)


def test_sound_goes_before_subtitles(tmp_path: Path, through: Encode) -> None:
    """Matroska takes no such sound: the subtitles are left out, which is told."""
    source = subtitled(tmp_path / "film.mov", "mov_text", "pcm_mulaw")
    file = tmp_path / "b.cwrv"
    done = cwrv("encode", source, "-o", file, *USUAL)
    assert "subtitle track" in done.stderr
    assert "left out" in done.stderr
    assert "audio pcm_mulaw" in cwrv("info", file).stdout


def test_packets_that_grow_are_refused(tmp_path: Path) -> None:
    """Matroska can hold compressed packets: a small file must not fill the memory."""
    data = io.BytesIO()
    with av.open(data, "w", format="matroska") as container:
        track = subtitles.add_text_stream(container, None)
        packet = subtitles.packet_of_text("subrip", "a" * 20000, Fraction(0), Fraction(1))
        packet.stream = track
        container.mux_one(packet)
    whole = Sound(0, data.getvalue())
    assert [t["type"] for t in tracks_of(whole)] == ["subtitle"]
    reader = SoundReader.__new__(SoundReader)
    reader._most = 10
    with av.open(io.BytesIO(whole.data), format="matroska") as container:
        reader.container = container
        with pytest.raises(ValueError, match="larger than the file"):
            reader._read(list(container.streams), Fraction(0), (None, None), (Fraction(0),))


def test_other_codecs_are_copied(tmp_path: Path, through: Encode) -> None:
    source = make(tmp_path / "film.mkv", ("libopus", "flac"))
    output = through(source, "out.mkv")
    for track in range(2):
        assert [d for _, d in packets(source, track)] == [d for _, d in packets(output, track)]


def test_sound_that_begins_late_or_early(tmp_path: Path, through: Encode) -> None:
    for late in (0.7, -0.3):
        source = make(tmp_path / "film.mkv", ("aac",), late=late)
        output = through(source, "out.mkv")
        shift = first_picture(output) - first_picture(source)
        before, after = packets(source), packets(output)
        assert [data for _, data in before] == [data for _, data in after]
        assert max(abs(a - b - shift) for (a, _), (b, _) in zip(after, before, strict=True)) <= Fraction(1, 500)


@pytest.mark.parametrize(("encoded", "decoded"), [("10:40", ":"), (":", "10:40"), ("5:45", "5:35")])
def test_parts_have_the_sound_of_that_part(tmp_path: Path, encoded: str, decoded: str) -> None:
    """Frames 10 to 39 of 25 a second are 0.4 to 1.6 s: what begins and ends outside of that is left out."""
    source = make(tmp_path / "film.mp4", ("aac",))
    file, output = tmp_path / "a.cwrv", tmp_path / "a.mp4"
    options = () if encoded == ":" else ("--frames", encoded)
    assert cwrv("encode", source, "-o", file, *USUAL, *options).exit_code == 0
    options = () if decoded == ":" else ("--frames", decoded)
    assert cwrv("decode", file, "-o", output, *options).exit_code == 0
    whole = {data: time for time, data in packets(source)}
    found = packets(output)
    start = Fraction(2, 5)
    assert all(abs(whole[data] - time - start) < Fraction(1, 1000) for time, data in found)
    step = Fraction(1024, RATE)
    assert -step <= found[0][0] <= 0
    assert Fraction(6, 5) - step <= found[-1][0] <= Fraction(6, 5)


def test_what_the_output_cannot_hold_is_encoded(tmp_path: Path, through: Encode) -> None:
    """A line says so; the length stays."""
    source = make(tmp_path / "film.mkv", ("wavpack",))
    output = through(source, "out.mp4")
    assert (
        "audio track 0 (wavpack, eng) is encoded to aac: mp4 cannot hold it" in output.with_suffix(".txt").read_text()
    )
    with av.open(str(output)) as container:
        assert container.streams.audio[0].codec_context.name == "aac"
        assert container.streams.audio[0].metadata["language"] == "eng"
        samples = sum(frame.samples for frame in container.decode(audio=0))
    assert abs(samples / RATE - 2) < 0.1
    assert [d for _, d in packets(source)] == [d for _, d in packets(through(source, "out.mkv"))]


@pytest.mark.parametrize(("codec", "suffix"), [("pcm_s16le", ".avi"), ("pcm_mulaw", ".avi"), ("adpcm_ms", ".avi")])
def test_channels_of_plain_samples(tmp_path: Path, through: Encode, codec: str, suffix: str) -> None:
    """These say how many channels they have, and not which: that is kept beside them."""
    source = make(tmp_path / f"film{suffix}", (codec,))
    output = through(source, "out.mp4")
    with av.open(str(output)) as container:
        assert container.streams.audio[0].layout.name == "stereo"
        samples = sum(frame.samples for frame in container.decode(audio=0))
    assert abs(samples / RATE - 2) < 0.1
    if codec == "pcm_s16le":
        again = through(source, "again.mkv")
        assert b"".join(d for _, d in packets(source)) == b"".join(d for _, d in packets(again))


def test_gaps_stay_where_they_are_encoded(tmp_path: Path, through: Encode) -> None:
    """A tone, nothing for a second, a tone: in the place of nothing there is silence."""
    source = tmp_path / "film.mkv"
    with av.open(str(source), "w") as container:
        video: Any = container.add_stream("libx264", rate=25)
        video.width, video.height, video.pix_fmt = 48, 32, "yuv420p"
        track: Any = container.add_stream("wavpack", rate=RATE)
        track.layout = "mono"
        for n in range(75):
            picture = av.VideoFrame.from_ndarray(np.full((48, 48), n, np.uint8), "yuv420p")
            picture.pts = n
            container.mux(video.encode(picture))
        for second in (0, 2):
            wave = (0.5 * np.sin(np.arange(RATE) / 20)).astype(np.float32)
            frame = av.AudioFrame.from_ndarray(wave[None], "fltp", "mono")
            frame.sample_rate, frame.time_base, frame.pts = RATE, Fraction(1, RATE), second * RATE
            for packet in track.encode(frame):
                container.mux(packet)
        container.mux([*video.encode(None), *track.encode(None)])
    before = [float(t) for t, _ in packets(source)]
    if max(b - a for a, b in pairwise(before)) < 0.9:
        pytest.skip("this encoder closes the gap itself")
    output = through(source, "out.mp4")
    with av.open(str(output)) as container:
        heard = np.concatenate([f.to_ndarray()[0] for f in container.decode(audio=0)])
    loud = [float(np.abs(heard[int(t * RATE) : int((t + 0.3) * RATE)]).mean()) > 0.1 for t in (0.4, 1.4, 2.4)]
    assert loud == [True, False, True]


def test_sound_of_a_clock_that_starts_again(tmp_path: Path, through: Encode) -> None:
    """Transport streams in a row, whose sound is longer than the pictures: it stays with those of its part."""
    part = make(tmp_path / "part.ts", ("mp2",), seconds=1)
    once = tmp_path / "once.cwrv"
    assert cwrv("encode", part, "-o", once, *USUAL).exit_code == 0
    source = tmp_path / "film.ts"
    source.write_bytes(part.read_bytes() * 3)
    output = through(source, "out.mkv")
    found = packets(output)
    assert len(found) == 3 * len(packets(part))
    begins = [float(t - found[0][0]) for t, _ in found[:: len(found) // 3]]
    assert begins == pytest.approx([0, 1, 2], abs=0.03)


def test_titles_that_are_no_text(tmp_path: Path, through: Encode) -> None:
    """Bytes that are not UTF-8 in a chapter's title."""
    source = make(tmp_path / "film.mp4", ("aac",))
    data = source.read_bytes()
    assert data.count(b"one")
    source.write_bytes(data.replace(b"one", b"\xe9\xe8\xff"))
    through(source, "out.mkv")


def test_damaged_sound_can_be_skipped(tmp_path: Path) -> None:
    source, file, output = make(tmp_path / "film.mp4", ("aac",)), tmp_path / "a.cwrv", tmp_path / "a.mp4"
    assert cwrv("encode", source, "-o", file, *USUAL).exit_code == 0
    data = bytearray(file.read_bytes())
    data[data.index(b"nut/multimedia") + 500] ^= 1
    file.write_bytes(data)
    fails(cwrv("decode", file, "-o", output), 1, "AUDIO: crc32")
    done = cwrv("decode", file, "-o", output, "--on-error", "skip")
    assert (done.exit_code, output.exists()) == (3, True)
    with av.open(str(output)) as container:
        assert not container.streams.audio


def test_targets_are_for_the_video(tmp_path: Path) -> None:
    """Sound does not take bits from it, and is told apart."""
    source, file, silent = make(tmp_path / "film.mp4", ("aac",)), tmp_path / "a.cwrv", tmp_path / "b.cwrv"
    done = cwrv("encode", source, "-o", file, *USUAL)
    assert cwrv("encode", source, "-o", silent, *USUAL, "--no-audio").exit_code == 0
    with nvcodec.Decoder(file) as decoder:
        size = decoder.container.audio_bytes
        assert decoder.container.minor == 1
        assert decoder.account()["sound_bytes"] == size
        payload = decoder.container.read_sound()
    with nvcodec.Decoder(silent) as decoder:
        assert decoder.container.minor == 0
        assert decoder.container.read_sound() is None
    assert payload is not None
    assert file.stat().st_size - size == silent.stat().st_size
    assert f", {size} bytes of sound\n" in done.stderr
    text = cwrv("info", file).stdout
    assert f"sound           {size} bytes, audio aac eng" in text
    assert cwrv("info", silent).stdout.split("size")[1].split(",")[1] == text.split("size")[1].split(",")[1]  # bpp
    assert cwrv("decode", file, "-o", tmp_path / "c.mp4", "--no-audio").exit_code == 0
    with av.open(str(tmp_path / "c.mp4")) as container:
        assert not container.streams.audio


def test_a_section_that_is_no_sound(tmp_path: Path) -> None:
    """Its CRC is right, what it holds is not: an error where it is wanted, and only there."""
    with pytest.raises(SyntaxViolation, match="ends within its offset"):
        Sound.unpack(b"abc")
    with pytest.raises(SyntaxViolation, match="AUDIO: not a readable file"):
        SoundWriter(Sound.unpack(bytes(99)), Fraction(0), (None, None))
    vector = Path(__file__).parent / "vectors" / "sound.cwrv"
    fails(cwrv("decode", vector, "-o", tmp_path / "a.mkv", "--codec", "ffv1"), 1, "AUDIO: not a readable file")
    assert not list(tmp_path.iterdir())
    assert cwrv("decode", vector, "-o", tmp_path / "a.mkv", "--codec", "ffv1", "--no-audio").exit_code == 0
    assert cwrv("decode", vector, "-o", tmp_path / "a.y4m").exit_code == 0
    assert cwrv("verify", vector).exit_code == 0


def test_a_film_without_sound_keeps_title_and_chapters(tmp_path: Path, through: Encode) -> None:
    source = make(tmp_path / "film.mp4", ())
    for name in ("out.mp4", "out.mkv"):
        with av.open(str(through(source, name))) as container:
            assert container.metadata["title"] == "a film"
            assert [c["metadata"]["title"] for c in container.chapters()] == ["one", "two"]
            assert not {"audio", "subtitle"} & {stream.type for stream in container.streams}
    assert "bytes, title and chapters alone" in cwrv("info", tmp_path / "a.cwrv").stdout


def test_files_without_sound(tmp_path: Path) -> None:
    source = tmp_path / "silent.y4m"
    with source.open("wb") as stream:
        write_y4m(stream, properties(48, 32), tiny_frames(48, 32, 2))
    assert read_sound(source, Fraction(0), (None, None)) == (None, [])
    with pytest.raises(InputError, match="cannot be read"):
        read_sound(Path(__file__), Fraction(0), (None, None))


def test_offsets_are_packed() -> None:
    for offset in (-(2**31), -1, 0, 7, 2**31 - 1):
        assert Sound.unpack(Sound(offset, b"x").pack()) == Sound(offset, b"x")
