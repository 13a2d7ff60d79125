"""The curves as one picture: SVG for print, PNG for everything else."""

from __future__ import annotations

import io
import math
from typing import Any

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator

__all__ = ["COLOURS", "plot_curves"]

METRIC = "psnr_yuv_611"
COLOURS = ("#2457d6", "#c2640a", "#0b8577", "#8d35c9", "#c42a4e", "#55751a", "#a8327c", "#5b5f66")
"""Of ours and the anchors in turn, as on the page."""
_MARKERS = "os^Dv"
_STYLE: Any = {
    "font.size": 9,
    "font.family": "DejaVu Sans",
    "axes.edgecolor": "#9a9ea6",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.color": "#e6e7ea",
    "svg.hashsalt": "nvcodec",
    "svg.fonttype": "none",
}


def plot_curves(results: dict[str, Any]) -> tuple[bytes, bytes]:
    """(SVG, PNG): PSNR 6:1:1 against bits per pixel, one diagram a clip."""
    clips = results["clips"]
    columns = min(len(clips), 3)
    rows = math.ceil(len(clips) / columns)
    with mpl.rc_context(_STYLE):
        figure = Figure(figsize=(1.2 + 4.9 * columns, 0.5 + 3.7 * rows), layout="constrained")
        FigureCanvasAgg(figure)
        grid = figure.subplots(rows, columns, squeeze=False)
        for number, axes in enumerate(grid.flat):
            if number < len(clips):
                _draw(axes, clips[number], f"nvcodec {results['settings']['effort']}")
            else:
                axes.set_visible(False)
        pictures = []
        for kind, options in (("svg", {"metadata": {"Date": None}}), ("png", {"dpi": 160})):
            buffer = io.BytesIO()
            figure.savefig(buffer, format=kind, facecolor="white", **options)
            pictures.append(buffer.getvalue())
    return pictures[0], pictures[1]


def _draw(axes: Axes, clip: dict[str, Any], our_name: str) -> None:
    series = [(our_name, clip["ours"])] + [(anchor["name"], anchor["points"]) for anchor in clip["anchors"]]
    for number, (name, points) in enumerate(series):
        ordered = sorted((point["bpp"], point[METRIC]) for point in points)
        axes.plot(
            [bpp for bpp, _ in ordered],
            [quality for _, quality in ordered],
            label=name,
            color=COLOURS[number % len(COLOURS)],
            marker=_MARKERS[number % len(_MARKERS)],
            markersize=5,
            linewidth=1.8,
            markeredgecolor="white",
            zorder=10 - number,
        )
    axes.set_xscale("log")
    axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.margins(0.06)
    axes.set_xlabel("bits per pixel")
    axes.set_ylabel("PSNR 6:1:1 (dB)")
    axes.set_title(f"{clip['name']}, {clip['frame_count']} frames", fontsize=10, loc="left")
    axes.legend(frameon=False)
