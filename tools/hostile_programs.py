"""Hostile programs of the exact machine, and hostile implicit segments, for ``fault_files.HOSTILE``.

``PROGRAMS`` are the contents of a PROGRAM section before it is packed; ``PAYLOADS`` are segment payloads with the
content of the program that they name. All checksums are right, and nothing else is wrong.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final

import numpy as np
from program_vectors import Body

from nvcodec.core.errors import (
    BitstreamError,
    ChecksumError,
    LimitError,
    SyntaxViolation,
    TruncatedError,
    UnsupportedError,
)
from nvcodec.entropy.numbers import best_scale, code_number, code_scales, code_symbols
from nvcodec.entropy.symbols import SymbolWriter
from nvcodec.exact.arithmetic import EXPONENT_LOW, Function
from nvcodec.exact.arrangement import Concatenation, Fitting, Reshaping, Shuffle, Slicing, Unshuffle, Upsampling
from nvcodec.exact.convolution import Convolution
from nvcodec.exact.latents import GridInput, LatentInput
from nvcodec.exact.normalisation import Normalisation
from nvcodec.exact.operation import Operation
from nvcodec.exact.outputs import Correction, SamplesOutput, StateOutput
from nvcodec.exact.pointwise import Addition, Rescaling, Table
from nvcodec.exact.position import CoordinatesInput, PhasesInput, TimeInput
from nvcodec.exact.program import Program
from nvcodec.exact.references import PredictionInput, StateInput, VectorsInput
from nvcodec.exact.warping import Warping

__all__ = ["PAYLOADS", "PROGRAMS", "long_program", "right_program", "widest_program"]

ROWS, COLUMNS = 6, 8
"""Of the working domain of the pictures in these files."""

Build = Callable[[], bytes]


def right_program() -> bytes:
    """One that is right."""
    return _convolution(6, 6, 3)


def _convolution(inputs: int, outputs: int, kernel: int) -> bytes:
    """A latent and a convolution, of which six channels are the samples."""
    body = Body(16)
    made = body.convolved(body.latent(inputs, ROWS, COLUMNS, 4), outputs, kernel)
    body(SamplesOutput, body(Slicing, made, start=0, channels=6))
    return Program(16, tuple(body.nodes)).write()


def _nodes(*nodes: Operation) -> Build:
    """These nodes behind two that are right: 0 is a latent of six channels, 1 are the samples."""
    return lambda: Program(12, (LatentInput((), 0, 6, ROWS, COLUMNS), SamplesOutput((0,)), *nodes)).write()


def _kept(*nodes: Operation) -> Build:
    """As ``_nodes``, with a state that uses the last of them."""
    return _nodes(*nodes, StateOutput((len(nodes) + 1,)))


def _chain(first: Sequence[Operation], again: Callable[[int], Operation], count: int) -> Build:
    """``first``, then ``again`` of the node before, so many times."""
    return _kept(*first, *(again(2 + len(first) + n) for n in range(count)))


def long_program() -> bytes:
    """As many nodes as there may be, each one of which depends on all before it, the last but one a correction."""
    body = Body(12)
    x = body(VectorsInput, slot=0)
    for _ in range(507):
        x = body(Rescaling, x)
    body(Correction, x, slot=0)
    latent = body.latent(6, ROWS, COLUMNS, 4)
    body(SamplesOutput, latent)
    return Program(12, tuple(body.nodes)).write()


def widest_program() -> bytes:
    """Nodes of 32 operands, nearly as many as its bytes allow; it is right."""
    body = Body(12)
    body(SamplesOutput, body.latent(6, ROWS, COLUMNS, 4))
    x = body(TimeInput)
    for _ in range(100):
        for _ in range(3):
            x = body(Concatenation, *[x] * 32)
        x = body(Slicing, x, start=32767, channels=1)
    body(StateOutput, x, index=0)
    return Program(12, tuple(body.nodes)).write()


LATENT: Final = bytes([LatentInput.CODE, 0, 5, ROWS - 1, COLUMNS - 1, 4])
START: Final = bytes([12, 2]) + LATENT
HUGE: Final = b"\xff\xff\xff\xff\x07"

PROGRAMS: Final[dict[str, tuple[Build, type[BitstreamError]]]] = {
    "activation_bits 255": (lambda: b"\xff" + right_program()[1:], LimitError),
    "node_count 2^31-1": (lambda: b"\x0c" + HUGE + right_program()[2:], LimitError),
    "node_count 512, three of them there": (lambda: b"\x0c\x80\x04" + right_program()[2:], TruncatedError),
    "node_count without end": (lambda: b"\x0c" + b"\xff" * 9000, LimitError),
    "an unknown operation": (lambda: START + b"\xff\1", UnsupportedError),
    "an operand that is the node itself": (lambda: START + bytes([SamplesOutput.CODE, 0]), SyntaxViolation),
    "an operand before the first node": (lambda: START + bytes([SamplesOutput.CODE, 2]), SyntaxViolation),
    "an operand 2^31-1 nodes back": (lambda: START + bytes([SamplesOutput.CODE]) + HUGE, SyntaxViolation),
    "2^31-1 operands": (lambda: START + bytes([Concatenation.CODE]) + HUGE, LimitError),
    "no operands": (lambda: START + bytes([Concatenation.CODE, 0]), LimitError),
    "a parameter of 2^31-1": (lambda: START + bytes([Upsampling.CODE]) + HUGE + b"\0\1", LimitError),
    "nodes that nothing uses": (_nodes(*[Rescaling((0,))] * 500), SyntaxViolation),
    "no samples": (lambda: Program(12, (LatentInput(), StateOutput((0,)))).write(), SyntaxViolation),
    "512 samples": (_nodes(*[SamplesOutput((0,))] * 510), SyntaxViolation),
    "510 concatenations of concatenations": (
        _chain((Slicing((0,)),), lambda n: Concatenation((n - 1, n - 1)), 508),
        LimitError,
    ),
    "concatenations of 32": (_chain((Slicing((0,)),), lambda n: Concatenation((n - 1,) * 32), 5), LimitError),
    "upsampling by 32^3": (_chain((Slicing((0,)),), lambda n: Upsampling((n - 1,), 32), 3), LimitError),
    "upsampling by 2^500": (_chain((Slicing((0,)),), lambda n: Upsampling((n - 1,), 2), 500), LimitError),
    "unshuffling by 2, then by 2": (_chain((Slicing((0,)),), lambda n: Unshuffle((n - 1,), 2), 9), SyntaxViolation),
    "shuffling what does not divide": (_kept(Shuffle((0,), 4)), SyntaxViolation),
    "up and together again": (
        _kept(*[op for n in range(2, 60, 2) for op in (Upsampling((n - 1 if n > 2 else 0,), 32), Unshuffle((n,), 8))]),
        LimitError,
    ),
    "a sum of a row and a column": (
        _kept(Fitting((0,), 16384, 1), Fitting((0,), 1, 16384), Addition((2, 3))),
        LimitError,
    ),
    "16384 x 16384 out of one": (_kept(Fitting((0,), 16384, 16384)), LimitError),
    "coordinates of 16384 x 16384": (_kept(CoordinatesInput((), 16384, 16384)), LimitError),
    "500 coordinates of 16384 x 16384": (
        _kept(*[CoordinatesInput((), 16384, 16384)] * 31, Concatenation(tuple(range(2, 33)))),
        LimitError,
    ),
    "many that are needed at once": (
        _kept(*[CoordinatesInput((), 400, 400)] * 31, Concatenation(tuple(range(2, 33)))),
        LimitError,
    ),
    "another number of elements": (_kept(Reshaping((0,), 65536, 16384, 16384)), SyntaxViolation),
    "channels 65536 and on": (_kept(Slicing((0,), 65536, 65536)), SyntaxViolation),
    "norm of 513 channels": (
        _kept(Fitting((0,), 342, 9), Reshaping((2,), 513, 12, 3), Normalisation((3,), 0)),
        SyntaxViolation,
    ),
    "vectors of three channels": (_kept(Slicing((0,), 0, 3), Warping((0, 2))), SyntaxViolation),
    "128 frequencies from base 1024": (_kept(PhasesInput((), 128, 1024)), SyntaxViolation),
    "function 6": (lambda: START + bytes([Table.CODE, len(Function), 0, 0, 1]), LimitError),
    "an even kernel": (_kept(Convolution((0,), 6, 8)), SyntaxViolation),
    "kernel 11": (lambda: START + bytes([Convolution.CODE, 5, 10, 0, 1]), LimitError),
    "groups that do not divide": (_kept(Convolution((0,), 6, 1, 4)), SyntaxViolation),
    "2^32 weights": (
        _kept(Fitting((0,), 1, 1), *(Convolution((n + 1,), 4096, 9) for n in range(1, 4))),
        LimitError,
    ),
    "10^11 multiplications": (
        _kept(Fitting((0,), 300, 300), *(Convolution((n + 1,), 64, 9) for n in range(1, 7))),
        LimitError,
    ),
    "a latent of 2^14 x 2^14": (_kept(LatentInput((), 1, 1, 1 << 14, 1 << 14)), LimitError),
    "a latent of 4096 channels": (_kept(LatentInput((), 1, 4096, 1, 1)), LimitError),
    "a grid of 1024 slices of 2^14 x 2^14": (_kept(GridInput((), 1, 1024, 64, 1 << 14, 1 << 14)), LimitError),
    "a grid of 1024 slices of 200 x 200": (_kept(GridInput((), 1, 1024, 1, 200, 200)), LimitError),
    "level 15 of two": (_kept(LatentInput((), 15)), SyntaxViolation),
    "two latents of one level": (_kept(LatentInput((), 0)), SyntaxViolation),
    "17 levels": (lambda: START + bytes([LatentInput.CODE, 16, 0, 0, 0, 0]), LimitError),
    "a state that nothing stores": (
        _nodes(StateInput((), 0, 1), StateOutput((2,), 0)),
        SyntaxViolation,
    ),
    "a state of another size": (_kept(StateInput((), 0, 0, 4096, 1 << 14, 1 << 14), Slicing((2,))), SyntaxViolation),
    "a state that is not what is stored": (_kept(StateInput((), 0, 0, 5, 6, 8), Slicing((2,))), SyntaxViolation),
    "two stores of one state": (_nodes(StateOutput((0,)), StateOutput((0,))), SyntaxViolation),
    "states that are too large": (
        _nodes(Fitting((0,), 300, 300), *(StateOutput((2,), n) for n in range(8))),
        LimitError,
    ),
    "samples that are too small": (
        lambda: Program(12, (LatentInput((), 0, 6), SamplesOutput((0,)))).write(),
        SyntaxViolation,
    ),
    "samples of 7 channels": (
        lambda: Program(12, (LatentInput((), 0, 7, ROWS, COLUMNS), SamplesOutput((0,)))).write(),
        SyntaxViolation,
    ),
    "samples of a picture of 16384 x 16384": (
        lambda: Program(12, (LatentInput((), 0, 6), Fitting((0,), 16384, 16384), SamplesOutput((1,)))).write(),
        LimitError,
    ),
    "a correction that depends on what it corrects": (
        _nodes(PredictionInput(), Slicing((2,), 0, 2), Fitting((3,), 2, 2), Correction((4,))),
        SyntaxViolation,
    ),
    "a correction where nothing moves": (
        _nodes(Slicing((0,), 0, 2), Fitting((2,), 2, 2), Correction((3,))),
        SyntaxViolation,
    ),
    "a correction of another size": (_nodes(VectorsInput(), Fitting((2,), 3, 2), Correction((3,))), SyntaxViolation),
    "a program that goes on behind its end": (lambda: right_program() + bytes(9000), SyntaxViolation),
    "a program of zeros": (lambda: bytes(16384), LimitError),
    "an empty program": (lambda: b"", LimitError),
}
"""By what is wrong with them."""


def _tensors(outputs: int, length: int, weight: int, exponent: int, difference: int = 0) -> bytes:
    """The entropy-coded data of a convolution: all weights the same."""
    writer = SymbolWriter()
    code_number(writer, 15, 4)
    code_number(writer, exponent - EXPONENT_LOW, 9)
    weights = np.full((outputs, length) if length >= 64 else (1, outputs * length), weight, np.int32)
    differences = np.zeros((1, outputs), np.int32)
    differences[0, -1] = difference
    for rows in (differences, np.full((1, outputs), 127, np.int32), weights):
        code_symbols(writer, rows, rows.shape, _coded_scales(writer, rows))
    return writer.finish()


def _coded_scales(writer: SymbolWriter, rows: np.ndarray) -> np.ndarray:
    scales = best_scale(rows)
    code_scales(writer, scales, len(rows))
    return scales


def _start_of_tensors(outputs: int) -> bytes:
    """The entropy-coded data of a convolution but for its weights, whose scales are the largest."""
    writer = SymbolWriter()
    code_number(writer, 0, 4)
    code_number(writer, -EXPONENT_LOW, 9)
    for _ in range(2):
        rows = np.zeros((1, outputs), np.int32)
        code_symbols(writer, rows, rows.shape, _coded_scales(writer, rows))
    code_scales(writer, np.full(outputs, 63), outputs)
    return writer.finish()


def _large() -> bytes:
    """As many weights as there may be in one convolution of such a picture, all of them in one row of symbols."""
    return _convolution(64, 1024, 9)


PAYLOADS: Final[dict[str, tuple[Callable[[], tuple[bytes, bytes]], type[BitstreamError]]]] = {
    "representation 3": (lambda: (b"\x30\1", right_program()), UnsupportedError),
    "an unknown start": (lambda: (b"\x20\1\0\0\0\0" + bytes(8), right_program()), UnsupportedError),
    "representation 15": (lambda: (b"\xf0\1", right_program()), UnsupportedError),
    "program_index 1 of one": (lambda: (b"\x11\1", right_program()), SyntaxViolation),
    "program_index 15 of one": (lambda: (b"\x1f\1", right_program()), SyntaxViolation),
    "gop 0": (lambda: (b"\x10\0", right_program()), LimitError),
    "gop 2^31-1": (lambda: (b"\x10" + HUGE, right_program()), LimitError),
    "a header of one byte": (lambda: (b"\x10", right_program()), TruncatedError),
    "three bytes of data": (lambda: (b"\x10\1abc", right_program()), SyntaxViolation),
    "no data": (lambda: (b"\x10\1", _convolution(64, 64, 9)), LimitError),
    "no data for 5 million weights": (lambda: (b"\x10\1", _large()), LimitError),
    "data that end before 5 million weights": (lambda: (b"\x10\1" + _start_of_tensors(1024), _large()), TruncatedError),
    "data that end before 33 million weights": (
        lambda: (b"\x10\1" + _start_of_tensors(4096), _convolution(64, 4096, 9)),
        TruncatedError,
    ),
    "331 thousand weights beyond the bound of sums": (
        lambda: (b"\x10\1" + _tensors(64, 64 * 81, 127, 0), _convolution(64, 64, 9)),
        LimitError,
    ),
    "data that end in the tensors": (lambda: (b"\x10\1" + _tensors(6, 54, 1, 0)[:8], right_program()), ChecksumError),
    "a symbol that no table has": (lambda: (b"\x10\1" + b"\xff" * 8, right_program()), TruncatedError),
    "the same before 5 million weights": (lambda: (b"\x10\1" + b"\xff" * 8, _large()), TruncatedError),
    "random data": (lambda: (b"\x10\1" + bytes(range(1, 255)) * 4, right_program()), SyntaxViolation),
    "exponent 97": (lambda: (b"\x10\1" + _tensors(6, 54, 1, 97), right_program()), LimitError),
    "exponent 96 and 127": (lambda: (b"\x10\1" + _tensors(6, 54, 1, 96, 127), right_program()), LimitError),
    "exponent -256 less 127": (lambda: (b"\x10\1" + _tensors(6, 54, 1, -256, -127), right_program()), LimitError),
    "weights beyond the bound of sums": (
        lambda: (b"\x10\1" + _tensors(6, 8 * 81, 127, 0), _convolution(8, 6, 9)),
        LimitError,
    ),
    "words behind the data": (
        lambda: (b"\x10\1" + _tensors(6, 54, 1, 0) + bytes(4000), right_program()),
        SyntaxViolation,
    ),
}
"""By what is wrong with them: the payload, and the content of the program."""
