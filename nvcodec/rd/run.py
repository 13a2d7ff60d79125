"""``cwrv rd`` without its command line: checks everything, computes what is not finished yet, and tells the figures.

::

    check -> read clips -> our points -> anchors' points (bracket ours) -> BD figures -> results.json, .csv,
                                                                           rd.svg, rd.png, report.html
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

from nvcodec.core.device import check_device
from nvcodec.core.errors import InputError, OutputError
from nvcodec.media.video_io import FrameRange
from nvcodec.rd.anchors import AnchorSpec, check_anchor
from nvcodec.rd.bd import MIN_POINTS
from nvcodec.rd.clip import Clip, inspect_clip, name_clips
from nvcodec.rd.points import CodecSettings, NotFinished, anchor_curve, our_point
from nvcodec.rd.store import Store
from nvcodec.rd.workers import Job, Report, run_jobs

__all__ = [
    "WORK",
    "ClipCurves",
    "Plan",
    "Progress",
    "check_clips",
    "check_options",
    "check_plan",
    "compute",
    "store_name",
    "store_of",
]

_OUR_WEIGHT, _ANCHOR_WEIGHT = 6.0, 1.0
"""How much longer a point of ours takes than a curve of an anchor, for the time left."""
MOST_POINTS = 32
WORK = "work"
"""Folder, below that of the plan, where finished work is kept."""


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What is asked for.

    Attributes:
        sources: clips, as :class:`nvcodec.media.video_io.VideoReader` takes them.
        folder: where everything goes; it is made when it does not exist.
        bpps: targets of our points, bits of the file per luma sample.
        frames: range of frames of every clip.
        anchors: what we are compared with; none are allowed.
        settings: of our encoder.
        jobs: processes at a time.
    """

    sources: tuple[str, ...]
    folder: Path
    bpps: tuple[float, ...]
    frames: FrameRange | None = None
    anchors: tuple[AnchorSpec, ...] = ()
    settings: CodecSettings = field(default_factory=CodecSettings)
    jobs: int = 1


@dataclass(frozen=True)
class ClipCurves:
    """The points of a clip, as :mod:`nvcodec.rd.points` makes them; lowest rate of ours first."""

    clip: Clip
    ours: list[dict[str, Any]]
    anchors: dict[AnchorSpec, list[dict[str, Any]]]


@dataclass(frozen=True)
class Progress:
    """``jobs_done`` of ``jobs``; ``fraction`` of the work that was left, 0 .. 1; ``what`` is being done."""

    jobs_done: int
    jobs: int
    fraction: float
    what: str


def check_plan(plan: Plan) -> list[Clip]:
    """Everything that can be told before any long work; reads the clips once. Returns them.

    Raises:
        InputError: a clip cannot be read or is shorter than the range; or as :func:`check_options` and
            :func:`check_clips`.
        OutputError, EncodeError: as those.
    """
    check_options(plan)
    clips = [
        inspect_clip(source, name, plan.frames)
        for source, name in zip(plan.sources, name_clips(plan.sources), strict=True)
    ]
    check_clips(plan, clips)
    return clips


def check_options(plan: Plan) -> None:
    """What can be told without the clips.

    Raises:
        InputError: targets are not distinct positive numbers, or too few for a BD figure against the anchors; there
            is no such device.
        OutputError: the folder is something else.
        EncodeError: a setting is out of its range.
    """
    if not plan.sources:
        raise InputError("no clips")
    if plan.jobs < 1:
        raise InputError(f"{plan.jobs} jobs")
    _check_targets(plan)
    check_device(plan.settings.device)
    for bpp in plan.bpps:
        plan.settings.options(bpp)
    if plan.folder.exists() and not plan.folder.is_dir():
        raise OutputError(f"{plan.folder} is not a directory")


def check_clips(plan: Plan, clips: Sequence[Clip]) -> None:
    """Whether the anchors can take the clips, and makes the folder.

    Raises:
        InputError: they cannot.
        OutputError: the folder cannot be made.
    """
    for clip in clips:
        for spec in plan.anchors:
            try:
                check_anchor(spec, clip.properties)
            except InputError as error:
                raise InputError(f"{clip.source}: {error}") from error
    Store(plan.folder).prepare()


def _check_targets(plan: Plan) -> None:
    for bpp in plan.bpps:
        if not (math.isfinite(bpp) and bpp > 0):
            raise InputError(f"{bpp} is no target in bits per pixel")
    if len(set(plan.bpps)) < len(plan.bpps):
        raise InputError("a target is given twice")
    if not plan.bpps or len(plan.bpps) > MOST_POINTS:
        raise InputError(f"{len(plan.bpps)} targets; 1 to {MOST_POINTS} are possible")
    if plan.anchors and len(plan.bpps) < MIN_POINTS:
        raise InputError(
            f"{len(plan.bpps)} points are too few for a BD figure: give --bpp at least {MIN_POINTS} targets, or "
            "--anchors none for curves without comparison"
        )


def store_name(clip: Clip) -> str:
    """Tells clips apart by their content, so that a changed file of the same name starts anew."""
    return f"{clip.name}-{clip.digest[:8]}"


def store_of(plan: Plan, clip: Clip) -> Store:
    """Where the work on a clip is kept."""
    return Store(plan.folder / WORK / store_name(clip))


def compute(plan: Plan, clips: Sequence[Clip], progress: Callable[[Progress], None]) -> list[ClipCurves]:
    """All points of all clips; those that are finished are read, not computed.

    Raises:
        NvcodecError: an encoder fails. What was finished until then stays finished.
    """
    plan = replace(plan, settings=_with_threads(plan))
    # The lowest target is the one that may be out of reach, which shows at once.
    ours = [(clip, bpp) for clip in clips for bpp in sorted(plan.bpps)]
    steps = _Steps(len(ours) * _OUR_WEIGHT, len(clips) * len(plan.anchors) * _ANCHOR_WEIGHT, progress)
    points = steps.run(
        [
            (f"{clip.name} {bpp:g} bpp", partial(our_point, clip, bpp, plan.settings, store_of(plan, clip)))
            for clip, bpp in ours
        ],
        _OUR_WEIGHT,
        plan.jobs,
    )
    by_clip = {clip.name: [p for (c, _), p in zip(ours, points, strict=True) if c is clip] for clip in clips}
    pairs = [(clip, spec) for clip in clips for spec in plan.anchors]
    curves = steps.run(
        [
            (
                f"{clip.name} {spec.name}",
                partial(anchor_curve, clip, spec, by_clip[clip.name], plan.settings, store_of(plan, clip)),
            )
            for clip, spec in pairs
        ],
        _ANCHOR_WEIGHT,
        plan.jobs,
    )
    found = {(clip.name, spec): curve for (clip, spec), curve in zip(pairs, curves, strict=True)}
    return [
        ClipCurves(clip, by_clip[clip.name], {spec: found[clip.name, spec] for spec in plan.anchors}) for clip in clips
    ]


def _with_threads(plan: Plan) -> CodecSettings:
    """Processes at the same time share the cores."""
    if plan.settings.threads is not None or plan.jobs == 1:
        return plan.settings
    return replace(plan.settings, threads=max(1, (os.cpu_count() or 1) // plan.jobs))


def _silent(done: float, what: str) -> None:
    pass


class _Steps:
    """Runs jobs one group after the other, those that are not finished yet, and tells how far all of it is."""

    def __init__(self, first: float, second: float, progress: Callable[[Progress], None]) -> None:
        self.total = first + second
        self.before = 0.0
        self.progress = progress

    def run(self, jobs: list[tuple[str, Callable[[Report, bool], Any]]], weight: float, processes: int) -> list[Any]:
        results: dict[int, Any] = {}
        for number, (_, job) in enumerate(jobs):
            try:
                results[number] = job(_silent, False)
            except NotFinished:
                continue
        todo = [number for number in range(len(jobs)) if number not in results]
        self.total -= weight * len(results)  # finished before: takes no time now
        parts = [0.0] * len(todo)

        def report(n: int, done: float, what: str) -> None:
            parts[n] = done
            fraction = (self.before + weight * sum(parts)) / self.total
            finished = len(results) + sum(part >= 1 for part in parts)
            self.progress(Progress(finished, len(jobs), min(fraction, 1.0), f"{jobs[todo[n]][0]}: {what}"))

        work: list[Job] = [_Computing(jobs[number][1]) for number in todo]
        done = run_jobs(work, processes, report)
        self.before += weight * len(todo)
        return [results[n] if n in results else done[todo.index(n)] for n in range(len(jobs))]


@dataclass(frozen=True)
class _Computing:
    """A job that computes what it does not find."""

    job: Callable[[Report, bool], Any]

    def __call__(self, report: Report) -> Any:
        result = self.job(report, True)
        report(1.0, "done")
        return result
