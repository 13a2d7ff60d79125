"""Writes what a run found: results.json, results.csv, rd.svg, rd.png, report.html, each whole or not at all."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

from nvcodec.core.frame import Frame
from nvcodec.core.package_versions import codec_versions
from nvcodec.decoder import Decoder
from nvcodec.media.output_file import atomic_output
from nvcodec.rd.anchors import CODERS, decode_stream
from nvcodec.rd.clip import Clip, open_clip
from nvcodec.rd.plot import plot_curves
from nvcodec.rd.points import point_payload
from nvcodec.rd.report import ClipStills, build_page
from nvcodec.rd.results import build_results, results_csv
from nvcodec.rd.run import ClipCurves, Plan, store_of
from nvcodec.rd.stills import StillMode, Stills, choose_mode, make_stills, pack, unpack
from nvcodec.rd.store import Store

__all__ = ["OUTPUTS", "STILLS_BUDGET", "collect_stills", "write_outputs"]

OUTPUTS = ("results.json", "results.csv", "rd.svg", "rd.png", "report.html")
STILLS_BUDGET = 24_000_000
"""Bytes of stills in a page, all clips together, as far as two frames a clip allow."""


def write_outputs(
    plan: Plan, curves: Sequence[ClipCurves], command: str, progress: Callable[[float, str], None]
) -> dict[str, Any]:
    """Writes ``OUTPUTS`` into the folder of the plan and returns what is in results.json.

    Raises:
        OutputError: one cannot be written.
    """
    results = build_results(plan, curves, command)
    stills = []
    for number, found in enumerate(curves):

        def tell(done: float, number: int = number) -> None:
            progress((number + done) / len(curves), "stills")

        stills.append(collect_stills(plan, found, STILLS_BUDGET // len(curves), tell))
    svg, png = plot_curves(results)
    contents = (
        (json.dumps(results, indent=1, allow_nan=False) + "\n").encode(),
        results_csv(results).encode(),
        svg,
        png,
        build_page(results, stills).encode(),
    )
    for name, content in zip(OUTPUTS, contents, strict=True):
        with atomic_output(plan.folder / name, overwrite=True) as temporary:
            temporary.write_bytes(content)
    return results


def collect_stills(plan: Plan, found: ClipCurves, budget: int, progress: Callable[[float], None]) -> ClipStills:
    """Stills of the source, of our points, and of the anchors' points that match ours."""
    clip, store = found.clip, store_of(plan, found.clip)
    points = [*found.ours, *(point for points in found.anchors.values() for point in points if point["matches"])]
    with open_clip(clip) as reader:
        mode = choose_mode(next(reader), clip.properties, clip.count, 1 + len(points), budget)
    variants: dict[str, Stills] = {}
    with open_clip(clip) as reader:
        variants["source"] = _kept(clip, "source", {}, mode, store, reader)
    for number, point in enumerate(points, 1):
        progress(number / (len(points) + 1))
        name = str(point["file"])
        origin = {"file": name, "decoder": codec_versions()["code"]}
        with closing(_decoded(plan, point, store)) as frames:
            variants[name] = _kept(clip, name, origin, mode, store, frames)
    return ClipStills(mode, variants)


def _decoded(plan: Plan, point: dict[str, Any], store: Store) -> Any:
    """A generator of its frames, which opens nothing until the first is asked for."""
    path = point_payload(point, store)
    if point["codec"] in CODERS:
        yield from decode_stream(path.read_bytes(), point["packet_bytes"], CODERS[point["codec"]])
        return
    with Decoder(path, device=plan.settings.device, threads=plan.settings.threads) as decoder:
        yield from decoder


def _kept(
    clip: Clip, name: str, origin: dict[str, Any], mode: StillMode, store: Store, frames: Iterable[Frame]
) -> Stills:
    """Stills from the store, or made now."""
    key = {"stills": name, "clip": clip.digest, "mode": mode.key()} | origin
    label = f"stills-{Path(name).stem}"
    entry = store.get(label, key)
    if entry is not None and entry.payload is not None:
        return unpack(entry.record, entry.payload.read_bytes())
    stills = make_stills(frames, clip.properties, mode)
    record, data = pack(stills)
    store.put(label, key, record, data=data, suffix=".bin")
    return stills
