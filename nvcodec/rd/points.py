"""The points of the curves: encode, decode, measure, each step kept in the store as soon as it is done.

::

    ours     clip, target --encode--> .cwrv file ---decode, compare--> quality, bits by frame and purpose
    anchor   clip, crf ----encode--> elementary stream ---decode, compare--> quality, bits by frame

A point is a dict as in results.json, see :func:`our_point` and :func:`anchor_point`.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass
from functools import partial
from itertools import zip_longest
from pathlib import Path
from typing import Any

from nvcodec.account import describe
from nvcodec.core.compiled import telling_of_translation
from nvcodec.core.device import choose_device
from nvcodec.core.errors import CheckpointError, InputError, NvcodecError
from nvcodec.core.frame import Frame
from nvcodec.core.package_versions import codec_versions
from nvcodec.decoder import Decoder, thread_limit
from nvcodec.encoder.pipeline import EncodeOptions, EncodeReport, encode
from nvcodec.media.output_file import checkpoint_path, remove_with_temporary
from nvcodec.rd.anchors import AnchorSpec, decode_stream, encode_anchor
from nvcodec.rd.clip import Clip, open_clip
from nvcodec.rd.ladder import build_ladder
from nvcodec.rd.quality import FrameQuality, frame_quality, mean_quality
from nvcodec.rd.store import Entry, Store
from nvcodec.rd.tool_versions import anchor_versions, measure_versions
from nvcodec.rd.workers import Report

__all__ = ["CodecSettings", "NotFinished", "anchor_curve", "our_point", "point_payload"]

Point = dict[str, Any]
_Decode = Callable[[Path], tuple[Iterable[Frame], dict[str, Any]]]
"""The frames of a file, and what else it tells."""


_APPEARANCE = ("blocks", "grid", "latents")
"""What carries it: one of them in a file."""
_RECORD = 3
"""Part of every key: counts up when what is kept of an encode changes."""


class NotFinished(Exception):
    """A result is not in the store, and was not to be computed."""


@dataclass(frozen=True)
class CodecSettings:
    """What all of our points share, as in :class:`nvcodec.encoder.pipeline.EncodeOptions`. ``segment`` is the
    anchors' key frame interval too. ``threads`` is no part of a result's key."""

    effort: str = "medium"
    gop: int | None = None
    segment: int | None = None
    device: str = "auto"
    threads: int | None = None
    seed: int = 0
    model: str = "hybrid"
    epochs: int | None = None

    def options(self, bpp: float) -> EncodeOptions:
        """For one target. Raises EncodeError for values outside their range."""
        return EncodeOptions(bpp=bpp, audio=False, **asdict(self))


def our_point(clip: Clip, bpp: float, settings: CodecSettings, store: Store, report: Report, compute: bool) -> Point:
    """One of our points: ``bytes`` and ``bpp`` are those of the whole file.

    Raises:
        NotFinished: it is not in the store and ``compute`` is not set.
        NvcodecError: the encoder fails; for one, the target cannot be met.
    """
    options = settings.options(bpp)
    chosen = {name: value for name, value in asdict(options).items() if name not in ("threads", "device")}
    chosen["device"] = choose_device(options.device, clip.samples // clip.count).type
    key = {"kind": "nvcodec", "clip": clip.digest, "options": chosen, "versions": codec_versions(), "record": _RECORD}
    name = f"nvcodec-{settings.model}-{settings.effort}-{bpp:g}bpp"
    entry = store.get(name, key)
    if entry is None:
        _check(compute)
        store.prepare()
        path = store.path(name, key, ".cwrv")
        try:
            made = _encode(clip, path, options, report)
        except NvcodecError as error:
            raise type(error)(f"{clip.name} at {bpp:g} bpp: {error}") from error
        record = {"bytes": made.file_bytes, "encode_seconds": made.seconds, "threads": settings.threads}
        entry = store.put(name, key, record, file=path)
    with thread_limit(settings.threads):
        decode = _decode_ours(settings)
        measured = _measured(name, clip, entry, store, {"decoder": codec_versions()}, compute, decode, report)
    return {"codec": "nvcodec", "preset": settings.effort, "target_bpp": bpp} | _figures(clip, entry, measured)


def _encode(clip: Clip, path: Path, options: EncodeOptions, report: Report) -> EncodeReport:
    """Goes on from its checkpoint; one that it cannot use, made with other ``threads`` for one, is thrown away."""
    make = partial(
        encode, clip.source, path, options, frames=clip.frames, overwrite=True,
        progress=lambda p: report(0.95 * p.fraction, f"{p.stage} frame {p.frame}/{p.frames}"),
    )  # fmt: skip
    with telling_of_translation(lambda: report(0.0, "translating what runs often, once on a machine")):
        try:
            return make()
        except CheckpointError:
            remove_with_temporary(checkpoint_path(path))
            return make()


def _decode_ours(settings: CodecSettings) -> _Decode:
    def frames(path: Path) -> Iterator[Frame]:
        with Decoder(path, device=settings.device, threads=settings.threads) as decoder:
            yield from decoder

    def decode(path: Path) -> tuple[Iterable[Frame], dict[str, Any]]:
        with Decoder(path, device=settings.device, threads=settings.threads) as decoder:
            account = describe(decoder, path.name)
        units = [unit for segment in account["segments"] for unit in segment["units"]]
        bits = {number: unit["bits"] / len(unit["frames"]) for unit in units for number in unit["frames"]}
        purposes = account["bytes_by_purpose"]
        told = sum(purposes[name] for name in ("weights", "motion", *_APPEARANCE))
        return frames(path), {
            "frame_bits": [bits[number] for number in sorted(bits)],
            "bytes_by_purpose": {
                "weights": purposes["weights"],
                "motion": purposes["motion"],
                "blocks": sum(purposes[name] for name in _APPEARANCE),
                "container": account["file_bytes"] - told,
            },
            "network_widths": sorted({segment["width"] for segment in account["segments"] if "width" in segment}),
        }

    return decode


def anchor_curve(
    clip: Clip,
    spec: AnchorSpec,
    ours: list[Point],
    settings: CodecSettings,
    store: Store,
    report: Report,
    compute: bool,
) -> list[Point]:
    """The points of an anchor, lowest rate factor first. ``matches`` of a point lists the targets (bpp) of our
    points whose bits it is nearest to.

    Raises:
        NotFinished, NvcodecError: as :func:`our_point`.
    """
    frames: list[Frame] = []
    done = 0.0
    with thread_limit(settings.threads):

        def tell(_: float, what: str) -> None:
            report(done, what)

        def at(crf: float, *, measure: bool) -> Point:
            nonlocal frames
            report(done, f"crf {crf:g}")
            found = _stored_stream(clip, spec, crf, settings, store)
            if found is None:
                _check(compute)
                if not frames:
                    with open_clip(clip) as reader:
                        frames = list(reader)
                found = _make_stream(clip, frames, spec, crf, settings, store)
            return anchor_point(clip, spec, crf, found, store, tell, compute) if measure else found.record

        ladder = build_ladder(
            [(point["bytes"], point["psnr_yuv_611"]) for point in ours],
            spec.coder,
            lambda crf: int(at(crf, measure=False)["bytes"]),
            lambda crf: float(at(crf, measure=True)["psnr_yuv_611"]),
        )
        points = []
        for number, crf in enumerate(ladder.crfs):
            done = 0.5 + 0.5 * number / len(ladder.crfs)
            matches = [our["target_bpp"] for our, match in zip(ours, ladder.matched, strict=True) if match == crf]
            points.append(at(crf, measure=True) | {"matches": matches})
    return points


def _stream_key(clip: Clip, spec: AnchorSpec, crf: float, settings: CodecSettings) -> dict[str, Any]:
    options = spec.coder.options(spec.preset, crf, settings.segment)
    versions = anchor_versions()
    return {"kind": spec.codec, "clip": clip.digest, "options": options, "versions": versions, "record": _RECORD}


def _stream_name(spec: AnchorSpec, crf: float) -> str:
    return f"{spec.codec}-{spec.preset}-crf{crf:g}"


def _stored_stream(clip: Clip, spec: AnchorSpec, crf: float, settings: CodecSettings, store: Store) -> Entry | None:
    return store.get(_stream_name(spec, crf), _stream_key(clip, spec, crf, settings))


def _make_stream(
    clip: Clip, frames: list[Frame], spec: AnchorSpec, crf: float, settings: CodecSettings, store: Store
) -> Entry:
    start = time.monotonic()
    stream = encode_anchor(frames, clip.properties, spec, crf, key_interval=settings.segment)
    record = {
        "bytes": len(stream.data),
        "encode_seconds": time.monotonic() - start,
        "settings_text": stream.settings_text,
        "options": stream.options,
        "key_frames": stream.key_frames,
        "packet_bytes": list(stream.packet_bytes),
        "frame_bits": [8 * size for size in stream.frame_bytes],
    }
    key = _stream_key(clip, spec, crf, settings)
    return store.put(_stream_name(spec, crf), key, record, data=stream.data, suffix=spec.coder.suffix)


def anchor_point(
    clip: Clip, spec: AnchorSpec, crf: float, entry: Entry, store: Store, report: Report, compute: bool
) -> Point:
    """A point of an anchor: ``bytes`` and ``bpp`` are those of the elementary stream."""

    def decode(path: Path) -> tuple[Iterable[Frame], dict[str, Any]]:
        return decode_stream(path.read_bytes(), entry.record["packet_bytes"], spec.coder), {}

    name = _stream_name(spec, crf)
    measured = _measured(name, clip, entry, store, {"decoder": anchor_versions()}, compute, decode, report)
    return {"codec": spec.codec, "preset": spec.preset, "crf": crf} | _figures(clip, entry, measured)


def _measured(
    name: str,
    clip: Clip,
    entry: Entry,
    store: Store,
    versions: dict[str, Any],
    compute: bool,
    decode: _Decode,
    report: Report,
) -> dict[str, Any]:
    """Quality of the frames of a finished encode, from the store or now."""
    assert entry.payload is not None
    key = {"file": entry.sha256, "clip": clip.digest, "measure": measure_versions()} | versions
    found = store.get(f"{name}-quality", key)
    if found is not None:
        return found.record
    _check(compute)
    decoded, more = decode(entry.payload)
    rows: list[FrameQuality] = []
    with open_clip(clip) as source:
        for a, b in zip_longest(decoded, source):
            if a is None or b is None:
                raise InputError(f"{entry.payload.name} does not decode to the {clip.count} frames of {clip.name}")
            rows.append(frame_quality(a, b, clip.properties))
            report(0.95 + 0.05 * len(rows) / clip.count, f"measure frame {len(rows)}/{clip.count}")
    by_frame = {field: [getattr(row, field) for row in rows] for field in (*asdict(rows[0]), "psnr_yuv_611")}
    return store.put(f"{name}-quality", key, {"mean": mean_quality(rows), "by_frame": by_frame} | more).record


def _figures(clip: Clip, entry: Entry, measured: dict[str, Any]) -> Point:
    assert entry.payload is not None
    size = entry.record["bytes"]
    bpp = 8 * size / clip.samples
    rate = 8 * size / float(clip.seconds) / 1000
    rest = {name: value for name, value in (entry.record | measured).items() if name not in ("mean", "bytes")}
    return {"bytes": size, "bpp": bpp, "kbps": rate} | measured["mean"] | {"file": entry.payload.name} | rest


def point_payload(point: Point, store: Store) -> Path:
    """The file or elementary stream of a point."""
    return store.folder / str(point["file"])


def _check(compute: bool) -> None:
    if not compute:
        raise NotFinished
