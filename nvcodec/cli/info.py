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
    shown = f"{info['frame_count']} at {info['frame_rate']} fps, {info['seconds']:.3f} s"
    rows = [
        ("picture", f"{info['width']}x{info['height']} {info['pix_fmt']}, {info['bit_depth']} bits"),
        ("frames", f"{shown}, time base {info['time_base']}"),
        ("sample aspect", info["sample_aspect_ratio"] if info["sample_aspect_ratio"] != "0" else "unknown"),
        ("colour", f"range {_RANGES[info['color_range']]}, primaries/transfer/matrix {color} (H.273)"),
        ("chroma samples", _CHROMA_LOCATIONS[info["chroma_location"]]),
        ("format", f"version {info['version']}, level {info['level']}"),
        ("size", f"{info['file_bytes']} bytes, {info['bpp']:.4f} bpp, {info['bitrate'] / 1000:.1f} kbit/s"),
    ]
    if info["sound_bytes"]:
        tracks = info["sound_tracks"]
        named = "unreadable" if tracks is None else ", ".join(map(_track, tracks)) or "title and chapters alone"
        rows.append(("sound", f"{info['sound_bytes']} bytes, {named}"))
    rows += [(f"metadata {key}", str(value)) for key, value in (info["metadata"] or {}).items()]
    return [f"{info['file']}:", *(f"  {name:<15} {value}" for name, value in rows)]


def _track(track: dict[str, str]) -> str:
    return " ".join(word for word in (track["type"], track["codec"], track["language"]) if word)


def _totals(info: dict[str, Any]) -> list[str]:
    parts, total = dict(info["bytes_by_purpose"]), info["file_bytes"]
    named = {
        "weights": "network weights",
        "motion": "motion",
        "blocks": "blocks",
        "grid": "mixed residual grid",
        "latents": "latents",
        "coder_end": "end of entropy coder",
        "audio": "sound",
    }
    found = [(purpose, name, parts.pop(purpose, 0.0)) for purpose, name in named.items()]
    rows = [
        (name, count)
        for purpose, name, count in found
        if count or purpose not in ("blocks", "grid", "latents", "audio")
    ]
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
    is_hybrid = segment["representation"] == "hybrid"
    return [
        f"segment {number}: {segment['representation']}, frames {first} to {last}, {segment['bytes']} bytes, "
        f"GOP {segment['gop']}{'' if segment['motion_prediction'] else ', motion not predicted'}",
        *(_hybrid_network if is_hybrid else _implicit_network)(segment),
        *_columns(_units(segment, _appearance(segment))),
    ]


def _appearance(segment: dict[str, Any]) -> str:
    """What carries it."""
    if segment["representation"] == "hybrid":
        return "blocks"
    return "grid" if segment["grid_bits"] else "latents"


def _hybrid_network(segment: dict[str, Any]) -> list[str]:
    weights = segment["weight_bits"] / 8
    return [f"  network: width {segment['width']}, {segment['parameters']} parameters in {weights:.1f} bytes"]


def _implicit_network(segment: dict[str, Any]) -> list[str]:
    count, bits = segment["weights"], segment["weight_bits"]
    lines = [
        f"  network: program {segment['program']}, {segment['parameters']} parameters in {bits / 8:.1f} bytes, "
        f"{bits / max(segment['parameters'], 1):.2f} bits each, {100 * segment['zero_weights'] / max(count, 1):.1f} % "
        "of the weights zero",
        f"  {segment['multiplications_a_sample']:.0f} multiplications a luma sample, {segment['latents']} latents",
    ]
    if segment["grid_bits"]:
        grid = ", ".join(f"{bits / 8:.1f} at stride {stride}" for stride, bits in segment["grid_bits"].items())
        lines.append(f"  mixed residual grid: {segment['motion_bits'] / 8:.1f} bytes of motion; appearance {grid}")
    return lines + [f"  latents {level}: {bits / 8:.1f} bytes" for level, bits in segment["latent_bits"].items()]


def _units(segment: dict[str, Any], what: str) -> list[list[str]]:
    """A table of the units; ``what``: blocks or latents."""
    table = [["frames", "type", "depth", "bytes", "a frame", "motion", what]]
    total, motion = 0.0, 0.0
    for unit in segment["units"]:
        numbers = [unit["bits"], unit["bits"] / len(unit["frames"]), unit["motion_bits"]]
        numbers.append(unit["bits"] - unit["motion_bits"])
        frames = ",".join(map(str, unit["frames"]))
        table += [[frames, unit["type"], str(unit["depth"]), *(f"{bits / 8:.1f}" for bits in numbers)]]
        total, motion = total + unit["bits"], motion + unit["motion_bits"]
    numbers = [total, total / segment["frames"], motion, total - motion]
    return [*table, ["all", "", "", *(f"{bits / 8:.1f}" for bits in numbers)]]


def _columns(table: Sequence[Sequence[str]]) -> list[str]:
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    return ["  " + "  ".join(c.rjust(w) for c, w in zip(row, widths, strict=True)) for row in table]
