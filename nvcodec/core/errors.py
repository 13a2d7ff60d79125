"""Every error that nvcodec raises on purpose.

::

    NvcodecError                    .reason is a stable, machine-readable code
    |-- InputError                  the source video or an argument cannot be used
    |   |-- UnreadableError(OSError)          a .cwrv file cannot be opened
    |   `-- MissingError(FileNotFoundError)   there is none
    |-- OutputError                 the output cannot be written
    |-- EncodeError                 the encoder could not do what was asked
    |   |-- TargetError             the requested size is out of reach
    |   |-- CheckpointError         a checkpoint lies beside the output that this encode cannot use
    |   `-- MismatchError           the finished file does not decode to what the encoder meant
    `-- BitstreamError(ValueError)  the .cwrv file is at fault
        |-- SignatureError          not a .cwrv file
        |-- UnsupportedError        a version or feature that this decoder does not know
        |-- TruncatedError          the file ends early
        |-- ChecksumError           a CRC or a frame hash does not match
        |-- LimitError              a value is beyond the limits of the format
        `-- SyntaxViolation         a value contradicts the specification

    CheckpointWarning(UserWarning)  an encode goes on without a checkpoint
    SourceWarning(UserWarning)      what a user should know of a source: damage, a clock that jumps, several streams
"""

from __future__ import annotations

__all__ = [
    "BitstreamError",
    "CheckpointError",
    "CheckpointWarning",
    "ChecksumError",
    "EncodeError",
    "InputError",
    "LimitError",
    "MismatchError",
    "MissingError",
    "NvcodecError",
    "OutputError",
    "SignatureError",
    "SourceWarning",
    "SyntaxViolation",
    "TargetError",
    "TruncatedError",
    "UnreadableError",
    "UnsupportedError",
]


class NvcodecError(Exception):
    """Base of all errors; ``reason`` names the kind and never changes between versions."""

    reason = "error"


class InputError(NvcodecError):
    reason = "input"


class UnreadableError(InputError, OSError):
    reason = "unreadable"


class MissingError(UnreadableError, FileNotFoundError):
    reason = "missing"


class OutputError(NvcodecError):
    reason = "output"


class EncodeError(NvcodecError):
    reason = "encode"


class TargetError(EncodeError):
    reason = "target"


class CheckpointError(EncodeError):
    reason = "checkpoint"


class MismatchError(EncodeError):
    reason = "mismatch"


class BitstreamError(NvcodecError, ValueError):
    reason = "bitstream"


class SignatureError(BitstreamError):
    reason = "signature"


class UnsupportedError(BitstreamError):
    reason = "unsupported"


class TruncatedError(BitstreamError):
    reason = "truncated"


class ChecksumError(BitstreamError):
    reason = "checksum"


class LimitError(BitstreamError):
    reason = "limit"


class SyntaxViolation(BitstreamError):
    reason = "syntax"


class CheckpointWarning(UserWarning):
    """The state of an encode could not be written: killed, it would have to begin earlier."""


class SourceWarning(UserWarning):
    """A source is read in a way that its user may not expect."""
