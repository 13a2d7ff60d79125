"""Whether a file may hold a program: asked before anything is fitted."""

from __future__ import annotations

from nvcodec.bitstream.syntax import write_program
from nvcodec.core.errors import BitstreamError, EncodeError
from nvcodec.core.limits import MAX_PROGRAM_BYTES
from nvcodec.exact.operation import Sizes
from nvcodec.exact.program import Program

__all__ = ["check_storable"]

_PROGRAM_MARGIN = 128
"""Bytes that a program may still grow by."""


def check_storable(program: Program, sizes: Sizes) -> None:
    """Raise EncodeError for a program that no file may hold."""
    try:
        program.check(sizes)
        stored = len(write_program(program.write()))
    except BitstreamError as error:
        raise EncodeError(f"the module makes no program that a file may hold: {error}") from None
    if stored > MAX_PROGRAM_BYTES - _PROGRAM_MARGIN:  # fixed points are still to be found
        raise EncodeError(f"the module's program takes {stored} bytes, a file may hold {MAX_PROGRAM_BYTES}")
