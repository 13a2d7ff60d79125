"""What ``cwrv info`` tells: the properties of a file, and where every byte of it went."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from nvcodec.decoder import Decoder

__all__ = ["describe", "format_info"]

_CHROMA_LOCATIONS = ("unspecified", "left", "centre", "top left", "top", "bottom left", "bottom")
_RANGES = ("unspecified", "limited", "full")


def describe(decoder: Decoder, name: str) -> dict[str, Any]:
    """Everything about a file as JSON can hold it: properties, ``Decoder.account``, and bytes by purpose.

    The numbers in ``bytes_by_purpose``, those of the list ``levels`` (finest first) included, add up to
    ``file_bytes``. Entropy-coded parts share bytes, so theirs are fractions.
    """
    account = decoder.account()
    p, header = decoder.properties, decoder.header
    seconds = header.frame_count * header.frame_duration * float(p.time_base)
    return {
        "file": name,
        "version": f"1.{decoder.container.minor}",
        "level": header.level,
        "width": p.width,
        "height": p.height,
        "pix_fmt": p.pix_fmt,
        "bit_depth": p.bit_depth,
        "frame_count": header.frame_count,
        "frame_rate": str(p.frame_rate),
        "time_base": str(p.time_base),
        "sample_aspect_ratio": str(p.sample_aspect_ratio),
        "color_range": p.color_range,
        "color_primaries": p.color_primaries,
        "color_trc": p.color_trc,
        "colorspace": p.colorspace,
        "chroma_location": p.chroma_location,
        "metadata": decoder.container.metadata,
        "bitrate": 8 * account["file_bytes"] / seconds,
        "bytes_by_purpose": _purposes(account),
        **account,
    }


def _purposes(account: dict[str, Any]) -> dict[str, Any]:
    """Bytes of the file by purpose; ``coder_end`` is what ending the entropy coder took."""
    segments = account["segments"]
    parts: dict[str, Any] = {
        "weights": sum(s["weight_bits"] for s in segments) / 8,
        "motion": sum(s["motion_bits"] for s in segments) / 8,
        "levels": [sum(bits) / 8 for bits in zip(*(s["level_bits"] for s in segments), strict=True)],
        "segment_headers": sum(s["header_bytes"] for s in segments),
    }
    told = parts["weights"] + parts["motion"] + sum(parts["levels"]) + parts["segment_headers"]
    parts["coder_end"] = account["container"]["payload"] - told
    return parts | {purpose: n for purpose, n in account["container"].items() if purpose != "payload"}


def format_info(info: dict[str, Any]) -> str:
    """The same for people. Lines of text without a newline at the end."""
    sections = [_properties(info), _totals(info)]
    sections += [_segment(number, segment) for number, segment in enumerate(info["segments"])]
    return "\n\n".join("\n".join(lines) for lines in sections)


def _properties(info: dict[str, Any]) -> list[str]:
    color = "/".join(str(info[key]) for key in ("color_primaries", "color_trc", "colorspace"))
    rows = [
        ("picture", f"{info['width']}x{info['height']} {info['pix_fmt']}, {info['bit_depth']} bits"),
        ("frames", f"{info['frame_count']} at {info['frame_rate']} fps, time base {info['time_base']}"),
        ("sample aspect", info["sample_aspect_ratio"] if info["sample_aspect_ratio"] != "0" else "unknown"),
        ("colour", f"range {_RANGES[info['color_range']]}, primaries/transfer/matrix {color} (H.273)"),
        ("chroma samples", _CHROMA_LOCATIONS[info["chroma_location"]]),
        ("format", f"version {info['version']}, level {info['level']}"),
        ("size", f"{info['file_bytes']} bytes, {info['bpp']:.4f} bpp, {info['bitrate'] / 1000:.1f} kbit/s"),
    ]
    rows += [(f"metadata {key}", str(value)) for key, value in (info["metadata"] or {}).items()]
    return [f"{info['file']}:", *(f"  {name:<15} {value}" for name, value in rows)]


def _totals(info: dict[str, Any]) -> list[str]:
    parts, total = dict(info["bytes_by_purpose"]), info["file_bytes"]
    rows = [("network weights", parts.pop("weights")), ("grid: motion", parts.pop("motion"))]
    rows += [(f"grid: stride {2 << level}", count) for level, count in enumerate(parts.pop("levels"))]
    rows += [("end of entropy coder", parts.pop("coder_end"))]
    return [
        "bytes by purpose",
        *(_share(name, count, total) for name, count in rows),
        _share("container overhead", info["overhead_bytes"], total),
        *(_share("  " + name.replace("_", " "), count, total) for name, count in parts.items() if count),
        _share("total", total, total),
    ]


def _share(name: str, count: float, total: int) -> str:
    return f"  {name:<20} {count:>12.1f} {100 * count / total:>7.2f} %"


def _segment(number: int, segment: dict[str, Any]) -> list[str]:
    first, last = segment["first_frame"], segment["first_frame"] + segment["frames"] - 1
    levels = [f"s{2 << level}" for level in range(len(segment["level_bits"]))]
    table = [["frames", "type", "depth", "bytes", "a frame", "motion", *levels]]
    for unit in segment["units"]:
        numbers = [unit["bits"], unit["bits"] / len(unit["frames"]), unit["motion_bits"], *unit["level_bits"]]
        frames = ",".join(map(str, unit["frames"]))
        table += [[frames, unit["type"], str(unit["depth"]), *(f"{bits / 8:.1f}" for bits in numbers)]]
    bits = sum(unit["bits"] for unit in segment["units"])
    numbers = [bits, bits / segment["frames"], segment["motion_bits"], *segment["level_bits"]]
    table += [["all", "", "", *(f"{bits / 8:.1f}" for bits in numbers)]]
    return [
        f"segment {number}: frames {first} to {last}, {segment['bytes']} bytes, GOP {segment['gop']}",
        f"  network: width {segment['width']}, {segment['parameters']} parameters in "
        f"{segment['weight_bits'] / 8:.1f} bytes",
        *_columns(table),
    ]


def _columns(table: Sequence[Sequence[str]]) -> list[str]:
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    return ["  " + "  ".join(c.rjust(w) for c, w in zip(row, widths, strict=True)) for row in table]
