"""What ``cwrv rd`` found out, as JSON and as a table.

``results.json``::

    {"format": "nvcodec-rd", "format_version": 2, "command": ..., "created": ..., "environment": versions,
     "settings": ..., "our_settings": ..., "method": {topic: sentence}, "metrics": [{"key", "label", "unit", "about"}],
     "clips": [{"name", "source", ..., "ours": [point], "anchors": [
         {"name", "codec", "preset", "options", "settings_text", "points": [point], "misses": [words],
          "bd": {metric: {"rate": delta, "quality": delta}}}]}],
     "mean_bd": [{"name", "metrics": {metric: {"rate": {"value", "clips"}, "quality": ...}}}]}

A point holds ``bytes``, ``bpp``, ``kbps``, the means of all metrics, ``by_frame`` (quality), ``frame_bits``,
``file`` (in the clip's ``work``), and how it was made; see :mod:`nvcodec.rd.points`. A delta is
:class:`nvcodec.rd.bd.Delta`.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from dataclasses import asdict, replace
from datetime import UTC, datetime
from statistics import fmean
from typing import Any

from nvcodec.core.errors import InputError
from nvcodec.rd.bd import METHOD, Curve, Delta, bd_quality, bd_rate
from nvcodec.rd.quality import METRICS
from nvcodec.rd.run import WORK, ClipCurves, Plan, store_name
from nvcodec.rd.tool_versions import environment

__all__ = ["CSV_COLUMNS", "bd_figures", "build_results", "results_csv", "summary_lines"]

CSV_COLUMNS = (
    "clip", "codec", "preset", "target_bpp", "crf", "bytes", "bpp", "kbps", "psnr_y", "psnr_u", "psnr_v",
    "psnr_yuv_611", "psnr_rgb", "ms_ssim", "ms_ssim_db", "encode_seconds", "file",
)  # fmt: skip

_ABOUT = {
    "psnr_yuv_611": "(6 Y + U + V) / 8 of the PSNR of the planes",
    "psnr_rgb": "of the squared error of R, G and B together",
    "ms_ssim_db": "of luma, as -10 log10(1 - MS-SSIM)",
}
_METHOD = {
    "frames": "Every codec gets the same 4:2:0 frames, of 8 or 10 bits as the source has; its output is decoded again "
    "and compared with them.",
    "bits": "Ours: the whole file. Anchors: the elementary stream, without container and without x264's and x265's "
    "text of settings, with AV1's temporal delimiters. Bits per pixel count luma samples. By frame, what AV1 codes "
    "early and shows later counts with the frame that is shown next.",
    "anchors": "Tuned for PSNR (tune=psnr, in SVT-AV1's numbers tune=1); constant rate factor; one thread; one key "
    "frame, at the start, unless --segment asks for more. Rate factors are searched: one for the bits of each of our "
    "points, as near as 2 % where the encoder can, and on to both sides until the curve brackets ours in rate and in "
    "PSNR 6:1:1.",
    "PSNR": "Peak 255, or 1023 with 10 bits, 100 dB for identical planes; the mean of the frames' figures in dB.",
    "PSNR RGB": "Both pictures as 8-bit R'G'B' by the matrix stated for the clip.",
    "MS-SSIM": "Of luma, five scales, by pytorch-msssim in float64; mean of the frames. In dB: -10 log10(1 - mean).",
    "BD": f"Package bjontegaard, method {METHOD}, over the part that both curves have; without such a part there is "
    "none. Points of an anchor that another of its points beats in rate and quality are left out, in its favour.",
}


def build_results(plan: Plan, curves: Sequence[ClipCurves], command: str) -> dict[str, Any]:
    """Everything, as JSON can hold it."""
    clips = [_clip(found) for found in curves]
    return {
        "format": "nvcodec-rd",
        "format_version": 2,
        "command": command,
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "environment": environment(),
        "settings": {
            **asdict(plan.settings),
            "bpp": sorted(plan.bpps),
            "frames": list(plan.frames) if plan.frames else None,
            "anchors": [spec.name for spec in plan.anchors],
            "jobs": plan.jobs,
        },
        "our_settings": ", ".join(
            f"{name} {value}" for name, value in asdict(plan.settings).items() if value is not None
        ),
        "method": _METHOD,
        "metrics": [asdict(metric) | {"about": _ABOUT.get(metric.key, "")} for metric in METRICS],
        "clips": clips,
        "mean_bd": [_mean_bd(spec.name, clips) for spec in plan.anchors],
    }


def _clip(found: ClipCurves) -> dict[str, Any]:
    clip, p = found.clip, found.clip.properties
    return {
        "name": clip.name,
        "source": clip.source,
        "frames": list(clip.frames) if clip.frames else None,
        "frame_count": clip.count,
        "width": p.width,
        "height": p.height,
        "frame_rate": str(p.frame_rate),
        "frames_per_second": float(p.frame_rate),
        "rgb_matrix": clip.rgb_matrix,
        "content": clip.digest,
        "work": f"{WORK}/{store_name(clip)}",
        "ours": [_point(point) for point in found.ours],
        "anchors": [
            {
                "name": spec.name,
                "codec": spec.codec,
                "preset": spec.preset,
                "options": " ".join(f"{name}={value}" for name, value in points[0]["options"].items()),
                "settings_text": points[0]["settings_text"],
                "points": [_point(point) for point in points],
                "misses": _misses(points, found.ours),
                "bd": bd_figures(points, found.ours),
            }
            for spec, points in found.anchors.items()
        ],
    }


def _misses(anchor: Sequence[dict[str, Any]], ours: Sequence[dict[str, Any]]) -> list[str]:
    """In words, what the anchor's rate factors do not reach of our curve, in rate and in PSNR 6:1:1."""
    missed = []
    for key, name in (("bytes", "rate"), ("psnr_yuv_611", "PSNR")):
        theirs, mine = [point[key] for point in anchor], [point[key] for point in ours]
        missed += [f"lowest {name}"] if min(theirs) > min(mine) else []
        missed += [f"highest {name}"] if max(theirs) < max(mine) else []
    return missed


def _point(point: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in point.items() if name != "packet_bytes"}


def bd_figures(anchor: Sequence[dict[str, Any]], ours: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """For each metric that both have: BD-rate and BD-quality of our points against the anchor's.

    Points of the anchor that another of its points beats in rate and quality are left out, in its favour, and the
    note tells how many. Ours are taken as they are.
    """
    figures: dict[str, Any] = {}
    for key in (metric.key for metric in METRICS):
        if any(point[key] is None for point in (*anchor, *ours)):
            continue
        try:
            whole, b = (Curve((point["bpp"], point[key]) for point in points) for points in (anchor, ours))
            a = whole.front()
        except InputError as error:
            none = asdict(Delta(None, None, None, 0.0, 0.0, str(error)))
            figures[key] = {"rate": none, "quality": none}
            continue
        beaten = len(whole.points) - len(a.points)
        figures[key] = {
            kind: asdict(_noting(delta, f"{beaten} of the anchor's points left out" if beaten else ""))
            for kind, delta in (("rate", bd_rate(a, b)), ("quality", bd_quality(a, b)))
        }
    return figures


def _noting(delta: Delta, text: str) -> Delta:
    return replace(delta, note="; ".join(part for part in (delta.note, text) if part))


def _mean_bd(name: str, clips: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Mean over the clips that have a figure, and how many those are."""
    found = [anchor["bd"] for clip in clips for anchor in clip["anchors"] if anchor["name"] == name]
    metrics: dict[str, Any] = {}
    for key in (metric.key for metric in METRICS):
        metrics[key] = {}
        for kind in ("rate", "quality"):
            values = [bd[key][kind]["value"] for bd in found if key in bd and bd[key][kind]["value"] is not None]
            metrics[key][kind] = {"value": fmean(values) if values else None, "clips": len(values)}
    return {"name": name, "metrics": metrics}


def results_csv(results: dict[str, Any]) -> str:
    """One line a point, with the columns ``CSV_COLUMNS``; empty where a codec has no such thing."""
    text = io.StringIO()
    writer = csv.DictWriter(text, CSV_COLUMNS, extrasaction="ignore", lineterminator="\n")
    writer.writeheader()
    for clip in results["clips"]:
        for points in (clip["ours"], *(anchor["points"] for anchor in clip["anchors"])):
            writer.writerows({"clip": clip["name"]} | point for point in points)
    return text.getvalue()


def summary_lines(results: dict[str, Any]) -> list[str]:
    """For the terminal: BD-rate by PSNR 6:1:1 of every clip against every anchor."""
    lines = []
    for clip in results["clips"]:
        for anchor in clip["anchors"]:
            rate, quality = (anchor["bd"]["psnr_yuv_611"][kind] for kind in ("rate", "quality"))
            if rate["value"] is None:
                lines.append(f"{clip['name']} against {anchor['name']}: no BD-rate ({rate['note']})")
                continue
            psnr = "" if quality["value"] is None else f", BD-PSNR {quality['value']:+.2f} dB"
            note = f", {rate['note']}" if rate["note"] else ""
            lines.append(
                f"{clip['name']} against {anchor['name']}: BD-rate {rate['value']:+.1f} %{psnr} (6:1:1; "
                f"{rate['low']:.1f} to {rate['high']:.1f} dB, {100 * rate['overlap_of_test']:.0f} % of our curve{note})"
            )
    return lines
