"""The exact machine: runs a program on integers, the same ones on every processor."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from torch import Tensor

from nvcodec.core.parallel import run_all, thread_count
from nvcodec.exact.arithmetic import activation_bound
from nvcodec.exact.convolution import Convolution, ConvTensors
from nvcodec.exact.operation import Execution, FrameInputs, Sizes
from nvcodec.exact.outputs import GREY, Correction, SamplesOutput, StateOutput
from nvcodec.exact.pointwise import Table
from nvcodec.exact.program import Program

__all__ = ["FrameOutputs", "Machine"]


@dataclass(frozen=True)
class FrameOutputs:
    """Of B frames. ``samples``: (B, 6, h, w), 0 .. 1023. ``states``: by index, (B, C, H, W)."""

    samples: Tensor
    states: dict[int, Tensor]


_ELEMENTS_AT_ONCE = 1 << 24
"""Values that may be alive while a thread runs a program for more than one frame."""


class Machine:
    """A program with the tensors of a segment, for pictures of one size.

    ``multiplications``: of a frame. Nothing in here holds anything of a frame between two calls. Many frames, or large
    ones, are computed in parts, so that memory does not grow with their number.
    """

    def __init__(self, program: Program, tensors: dict[int, ConvTensors], sizes: Sizes, device: torch.device) -> None:
        """``tensors``: of each convolution, by node number. Raises LimitError where a sum might not be exact."""
        program.check_tensors(tensors)
        self.program, self.sizes, self.device = program, sizes, device
        self.shapes = program.shapes(sizes)
        self.multiplications = program.multiplications(self.shapes)
        self._frames_at_once = max(1, _ELEMENTS_AT_ONCE // program.most_alive(self.shapes))
        self._tensors = {number: found.to(device) for number, found in tensors.items()}
        self._fused = _tables_behind_convolutions(program) if device.type == "cpu" else {}
        self._ends = {n for n, node in enumerate(program.nodes) if isinstance(node, SamplesOutput | StateOutput)}
        self._corrections = {n for n, _ in program.of(Correction)}

    @property
    def corrects(self) -> bool:
        """Whether it corrects motion."""
        return bool(self._corrections)

    def corrections(self, inputs: FrameInputs) -> dict[int, Tensor]:
        """By slot, (B, 2, block rows, block columns), quarter luma samples. ``inputs``: without what is warped."""
        made = self._run(inputs, self._corrections)
        return {node.slot: made[n] for n, node in self.program.of(Correction)}

    def run(self, inputs: FrameInputs) -> FrameOutputs:
        """Samples and states."""
        made = self._run(inputs, self._ends)
        ((samples, _),) = self.program.of(SamplesOutput)
        rows, columns = self.sizes.half
        picture = (made[samples][:, :, :rows, :columns] + GREY).clamp(0, 2 * GREY - 1)
        states = {node.index: made[n].contiguous() for n, node in self.program.of(StateOutput)}
        return FrameOutputs(picture.contiguous(), states)

    def _run(self, inputs: FrameInputs, ends: set[int]) -> dict[int, Tensor]:
        """The values of some nodes. On a CPU frames run side by side, or, where there is one, pieces of it."""
        threads, count = thread_count(), len(inputs.numbers)
        side_by_side = min(threads, count, self._frames_at_once) if self.device.type == "cpu" else 1
        pieces = max(side_by_side, -(-count // self._frames_at_once))
        if pieces <= 1:
            return self._run_together(inputs, ends, threads)
        cuts = [count * k // pieces for k in range(pieces + 1)]
        found: dict[int, dict[int, Tensor]] = {}

        def run(number: int) -> None:
            part = inputs.part(slice(cuts[number], cuts[number + 1]))
            found[number] = self._run_together(part, ends, 1 if side_by_side > 1 else threads)

        if side_by_side > 1:
            run_all([partial(run, number) for number in range(pieces)])
        else:
            for number in range(pieces):
                run(number)
        return {n: torch.cat([found[number][n] for number in range(pieces)]) for n in ends}

    def _run_together(self, inputs: FrameInputs, ends: set[int], threads: int) -> dict[int, Tensor]:
        bound = activation_bound(self.program.bits)
        execution = Execution(inputs, self.sizes, bound, self.program.bits, self._tensors, self.device, threads)
        needed = sorted(self.program.needed_by(ends))
        last = {o: n for n in needed for o in self.program.nodes[n].operands}
        values: dict[int, Tensor] = {}
        for number in needed:
            node, shape = self.program.nodes[number], self.shapes[number]
            operands = [values[n] for n in node.operands]
            if number in values:  # came with the convolution before it
                made = values[number]
            elif isinstance(node, Convolution) and number in self._fused:
                table, lookup = self._fused[number]
                made = values[table] = node.run_fused(number, operands, execution, lookup)
            else:
                made = _by_itself(node.run(number, operands, shape, execution))
            values[number] = made
            for operand in set(node.operands):
                if last[operand] == number and operand not in ends:
                    del values[operand]
        return {n: values[n] for n in ends}


def _by_itself(x: Tensor) -> Tensor:
    """``x``, copied where it is a part of something larger, which would stay in memory with it."""
    return x.clone() if x.untyped_storage().nbytes() > 2 * x.nbytes else x


def _tables_behind_convolutions(program: Program) -> dict[int, tuple[int, np.ndarray]]:
    """Convolutions that only a table reads: the number of that, and its values."""
    readers: dict[int, list[int]] = {}
    for number, node in enumerate(program.nodes):
        for operand in node.operands:
            readers.setdefault(operand, []).append(number)
    found = {}
    for number, _ in program.of(Convolution):
        (first, *more) = readers[number]
        table = program.nodes[first]
        if not more and isinstance(table, Table):
            found[number] = (first, table.lookup(program.bits).numpy())
    return found
