"""Constants and levels of the .cwrv format (chapter "Limits and levels" of the specification).

Every number here is normative. A reader compares a coded value with its limit before it allocates
anything; a test holds the tables of the specification equal to this file.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from nvcodec.core.errors import LimitError, UnsupportedError

__all__ = ["LEVELS", "Level", "level_by_number", "level_for", "max_segment_frames"]

# Descriptors
MAX_LEB128: Final = 2**31 - 1
MAX_LEB128_BYTES: Final = 5
MAX_SLEB: Final = 2**62 - 1  # the least value is -MAX_SLEB - 1
MAX_SLEB_BYTES: Final = 9

# Pictures and time
MAX_WIDTH: Final = 2**14
MAX_HEIGHT: Final = 2**14
MAX_PICTURE_SAMPLES: Final = 2**26
MAX_FRAMES: Final = 2**20
MAX_SEGMENTS: Final = 2**16
MAX_SEGMENT_FRAMES: Final = 2**10

# Bytes
MAX_HEAD_BYTES: Final = 2**10
MAX_INDEX_ENTRY_BYTES: Final = 7
MAX_SEGMENT_PAYLOAD_BYTES: Final = 2**28
MAX_METADATA_BYTES: Final = 2**16
MAX_AUDIO_BYTES: Final = 2**30
MAX_METADATA_DEPTH: Final = 32  # objects and arrays within each other
FRAME_HASH_BYTES: Final = 16
CRC_BYTES: Final = 4


@dataclass(frozen=True, slots=True)
class Level:
    """What a decoder of this level must cope with."""

    number: int
    max_picture_samples: int
    """Luma samples of one picture."""
    max_segment_samples: int
    """Luma samples of all frames of one segment."""
    example: str


LEVELS: Final[tuple[Level, ...]] = (
    Level(1, 352 * 288, 2**27, "352x288"),
    Level(2, 720 * 576, 2**28, "720x576"),
    Level(3, 1280 * 720, 2**29, "1280x720"),
    Level(4, 1920 * 1088, 2**30, "1920x1080"),
    Level(5, 4096 * 2176, 2**31, "4096x2160"),
    Level(6, MAX_PICTURE_SAMPLES, 2**32, "8192x8192"),
)


def level_by_number(number: int) -> Level:
    """The level that a stream header names; levels that version 6.0 does not define are refused."""
    if not 1 <= number <= len(LEVELS):
        raise UnsupportedError(f"level {number} is not defined (1..{len(LEVELS)})")
    return LEVELS[number - 1]


def level_for(width: int, height: int, segment_frames: int = 1) -> int:
    """The lowest level for pictures of this size in segments of at most that many frames.

    >>> level_for(416, 240), level_for(1920, 1080), level_for(1920, 1080, segment_frames=1000)
    (1, 4, 5)
    """
    if not (1 <= width <= MAX_WIDTH and 1 <= height <= MAX_HEIGHT):
        raise LimitError(f"picture size {width}x{height} is outside 1x1..{MAX_WIDTH}x{MAX_HEIGHT}")
    if not 1 <= segment_frames <= MAX_SEGMENT_FRAMES:
        raise LimitError(f"{segment_frames} frames in a segment (1..{MAX_SEGMENT_FRAMES})")
    samples = width * height
    for level in LEVELS:
        if samples <= level.max_picture_samples and samples * segment_frames <= level.max_segment_samples:
            return level.number
    raise LimitError(f"no level holds {segment_frames} frames of {width}x{height} in one segment")


def max_segment_frames(level: int, width: int, height: int) -> int:
    """How many frames of this size one segment may hold at this level (0: the pictures are too large).

    >>> max_segment_frames(1, 352, 288), max_segment_frames(4, 1920, 1080), max_segment_frames(1, 1920, 1080)
    (1024, 517, 0)
    """
    limits = level_by_number(level)
    if width * height > limits.max_picture_samples:
        return 0
    return min(MAX_SEGMENT_FRAMES, limits.max_segment_samples // (width * height))


# Programs of the exact machine
MAX_PROGRAM_BYTES: Final = 2**10
"""Of a PROGRAM section's payload."""
MAX_PROGRAM_NODE_BYTES: Final = 2**14
"""Of a program, decompressed."""
MAX_PROGRAMS: Final = 16
MAX_PROGRAM_NODES: Final = 512
MAX_PROGRAM_SIDE: Final = 2**15
MAX_PROGRAM_CHANNELS: Final = 2**16
MAX_PROGRAM_WEIGHTS: Final = 2**25
MAX_LATENT_CHANNELS: Final = 64
PROGRAM_LEAST_SAMPLES: Final = 352 * 288
"""Luma samples that a smaller picture counts for in the limits of programs."""
PROGRAM_ELEMENTS_A_SAMPLE: Final = 192
"""Values of a frame that are needed at once, for each luma sample; 4 bytes each."""
STATE_ELEMENTS_A_SAMPLE: Final = 16
"""Values that a frame hands on in its states."""
LATENTS_A_SAMPLE: Final = 4
MULTIPLICATIONS_A_SAMPLE: Final = 2**17
