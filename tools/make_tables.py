"""Writes nvcodec/entropy/tables.bin, the probability tables, from their definition.

    python tools/make_tables.py

tests/test_tables.py holds the two equal.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

import nvcodec.entropy
from nvcodec.entropy.tables import FRACTIONS, SCALES, derived_frequencies

OUTPUT = Path(nvcodec.entropy.__file__).parent / "tables.bin"


def packed() -> bytes:
    """All tables, scale by scale and fraction by fraction: 255 little-endian 32-bit numbers each."""
    rows = [derived_frequencies(s, f) for s in range(SCALES) for f in range(FRACTIONS)]
    return np.array(rows).astype("<u4").tobytes()


if __name__ == "__main__":
    OUTPUT.write_bytes(packed())
