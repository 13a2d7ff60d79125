"""What refining the motion of a frame without bits could bring, and what matching its references brings.

    python tools/motion_refinement.py CLIP [CLIP ...] --segments 21

Segments are encoded in closed loop with the shipped start. Then the vectors of each 8x8 block are moved by one or two
steps of a vector to each side, and what the frame would be is measured against the source, the rest as it is coded:

- *oracle*: each block takes what is best for it; nobody knows that without the source. It is measured by block, and
  with all blocks at once, as they overlap.
- *matched*: in frames between two references, both vectors of a block are moved by the same in opposite directions, to
  where the references look most alike, if their squared difference falls below a share of what it was.
"""

from __future__ import annotations

from pathlib import Path

import click
import torch
from gathered_segments import gathered, started
from torch import Tensor
from torch.nn import functional as F

from nvcodec.core.fixedpoint import exact_inference
from nvcodec.core.memory import keep_freed_memory
from nvcodec.core.parallel import thread_limit
from nvcodec.implicit.encoder.overfit import record_part
from nvcodec.implicit.encoder.start import starting_point
from nvcodec.implicit.encoder.synthesis import UnitRecord
from nvcodec.motion.compensation import Compensated, blended
from nvcodec.motion.warp import Reference

_STRAIGHT = ((0, 1), (0, -1), (1, 0), (-1, 0), (0, 2), (0, -2), (2, 0), (-2, 0))
_AROUND = (*_STRAIGHT, (1, 1), (1, -1), (-1, 1), (-1, -1))
_SHARES = (0.95, 0.8, 0.5)
_ONE_REFERENCE = 0.75
"""Of the blend: beyond it one reference counts almost alone."""


class Frame:
    """A coded frame (a record of one) whose motion can be moved."""

    def __init__(self, record: UnitRecord, made: dict[int, Tensor]) -> None:
        self.record = record
        self.references = [Reference(made[d]) for d in record.unit.frames[0].references]
        self.fields = [field[0] for field in record.final_vectors]
        self.blend = record.blend[0] if record.blend is not None else torch.zeros(0)
        self.prediction = self.moved(self.fields).prediction

    def moved(self, fields: list[Tensor]) -> Compensated:
        with exact_inference():
            return blended([r.warp(f) for r, f in zip(self.references, fields, strict=True)], self.blend)

    def errors(self, fields: list[Tensor]) -> Tensor:
        """Weighted, of each block, if its vectors were these."""
        record = self.record
        assert record.made is not None
        change = self.moved(fields).prediction - self.prediction
        return by_block(((record.made[0] + change - record.target[0]).square() * record.weights[0]).sum(0))

    def step(self, of: tuple[int, int]) -> Tensor:
        return torch.tensor(of, dtype=self.prediction.dtype)[:, None, None]


def by_block(values: Tensor) -> Tensor:
    """Sums of a plane at half the resolution."""
    rows, columns = values.shape
    return F.avg_pool2d(F.pad(values[None, None], (0, -columns % 4, 0, -rows % 4)), 4)[0, 0] * 16


def oracle(frame: Frame) -> tuple[float, float, float]:
    """Errors as they are, at best in each block, and with all these choices at once."""
    before = best = frame.errors(frame.fields)
    choice = list(frame.fields)
    for k in range(len(frame.fields)):
        for of in _STRAIGHT:
            fields = list(frame.fields)
            fields[k] = fields[k] + frame.step(of)
            errors = frame.errors(fields)
            better = errors < best
            best = torch.where(better, errors, best)
            choice = [torch.where(better, field, known) for field, known in zip(fields, choice, strict=True)]
    return float(before.sum()), float(best.sum()), float(frame.errors(choice).sum())


def matched(frame: Frame) -> list[float]:
    """Errors as they are, then with blocks moved that match better by each of the shares."""

    def cost(fields: list[Tensor]) -> Tensor:
        difference = by_block(frame.moved(fields).difference.square().sum(0))
        return F.avg_pool2d(difference[None, None], 3, 1, 1)[0, 0]

    first, second = frame.fields
    before = best = cost(frame.fields)
    moves = torch.zeros_like(first)
    for of in _AROUND:
        found = cost([first + frame.step(of), second - frame.step(of)])
        moves = torch.where(found < best, frame.step(of), moves)
        best = torch.minimum(found, best)
    errors = [float(frame.errors(frame.fields).sum())]
    for share in _SHARES:
        move = moves * ((best < share * before) & (frame.blend[0].abs() < _ONE_REFERENCE))
        errors.append(float(frame.errors([first + move, second - move]).sum()))
    return errors


@click.command()
@click.argument("clips", nargs=-1, required=True, type=click.Path(exists=True, path_type=Path))
@click.option("--segments", default=21, help="How many, of the clips in turn.")
@click.option("--start", default="cwrnn16")
@click.option("--seed", default=0)
def main(clips: tuple[Path, ...], segments: int, start: str, seed: int) -> None:
    keep_freed_memory()
    of_oracle = {1: torch.zeros(3), 2: torch.zeros(3)}
    of_matching = torch.zeros(1 + len(_SHARES))
    with thread_limit(1):
        torch.set_num_threads(1)
        for segment in gathered(started(starting_point(start))[0], list(clips), segments, seed):
            made = {
                f.display: r.made[b] for r in segment.records for b, f in enumerate(r.unit.frames) if r.made is not None
            }
            for record in segment.records:
                for b in range(len(record.unit.frames) if record.vectors else 0):
                    frame = Frame(record_part(record, b), made)
                    of_oracle[len(record.vectors)] += torch.tensor(oracle(frame))
                    if len(record.vectors) == 2:
                        of_matching += torch.tensor(matched(frame))
    for count, name in ((1, "P"), (2, "B")):
        _, alone, together = (100 * (of_oracle[count] / of_oracle[count][0] - 1)).tolist()
        click.echo(f"{name} frames, oracle: errors {alone:+.2f} % by block, {together:+.2f} % all at once")
    for share, change in zip(_SHARES, (100 * (of_matching / of_matching[0] - 1)).tolist()[1:], strict=True):
        click.echo(f"B frames, matched where the references differ by less than {share} of before: {change:+.2f} %")


if __name__ == "__main__":
    main()
