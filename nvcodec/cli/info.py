"""What ``cwrv info`` shows to people."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

__all__ = ["format_info"]

_CHROMA_LOCATIONS = ("unspecified", "left", "centre", "top left", "top", "bottom left", "bottom")
_RANGES = ("unspecified", "limited", "full")


def format_info(info: dict[str, Any]) -> str:
    """``info``, as :func:`nvcodec.account.describe` makes it, in lines of text without a newline at the end."""
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
    named = {"weights": "network weights", "motion": "motion", "blocks": "blocks", "latents": "latents"}
    named["coder_end"] = "end of entropy coder"
    rows = [(name, parts.pop(purpose)) for purpose, name in named.items()]
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
    is_implicit = "program" in segment
    table = [["frames", "type", "depth", "bytes", "a frame", "motion", "latents" if is_implicit else "blocks"]]
    for unit in segment["units"]:
        numbers = [unit["bits"], unit["bits"] / len(unit["frames"]), unit["motion_bits"], _content_bits(unit)]
        frames = ",".join(map(str, unit["frames"]))
        table += [[frames, unit["type"], str(unit["depth"]), *(f"{bits / 8:.1f}" for bits in numbers)]]
    bits = sum(unit["bits"] for unit in segment["units"])
    content = sum(map(_content_bits, segment["units"]))
    numbers = [bits, bits / segment["frames"], segment["motion_bits"], content]
    table += [["all", "", "", *(f"{bits / 8:.1f}" for bits in numbers)]]
    network = f"program {segment['program']}" if is_implicit else f"network: width {segment['width']}"
    return [
        f"segment {number}: frames {first} to {last}, {segment['bytes']} bytes, GOP {segment['gop']}",
        f"  {network}, {segment['parameters']} parameters in {segment['weight_bits'] / 8:.1f} bytes",
        *_columns(table),
    ]


def _content_bits(unit: dict[str, Any]) -> float:
    """Bits of a unit's blocks, or of its latents."""
    return float(unit["block_bits"] if "block_bits" in unit else sum(unit["latent_bits"].values()))


def _columns(table: Sequence[Sequence[str]]) -> list[str]:
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    return ["  " + "  ".join(c.rjust(w) for c, w in zip(row, widths, strict=True)) for row in table]
