"""Write the generated tables of bitstream_spec.md: tensors, starting networks, constants of the decoder.

    python tools/make_spec_tables.py

Run it after the starting networks or a normative constant have changed; tests/test_spec.py holds the two equal.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import torch

from nvcodec.entropy.context import LOG_BOUND, log_feature
from nvcodec.entropy.tables import FRACTIONS, SCALES, TABLE_BOUND, table_frequencies
from nvcodec.fixedpoint import Rounding
from nvcodec.model.base import TRAINED_WIDTHS, WIDTHS, starting_tensors
from nvcodec.model.network import NetworkShape, gain_values

SPEC = Path(__file__).parent.parent / "bitstream_spec.md"
SHOWN_TABLES = (0, 1, 8, 112, 114, 224, 255)
SHOWN_SYMBOLS = (-127, -2, -1, 0, 1, 2, 127)
SHOWN_LOGARITHMS = 32


def _rows(rows: Iterable[Iterable[object]], *, head: int = 1) -> str:
    lines = ["| " + " | ".join(map(str, row)) + " |" for row in rows]
    lines.insert(head, "|" + "---|" * (lines[0].count("|") - 1))
    return "\n".join(lines)


def _numbers(values: Iterable[int], per_line: int) -> str:
    texts = [str(v) for v in values]
    lines = [", ".join(texts[i : i + per_line]) for i in range(0, len(texts), per_line)]
    return "```\n" + ",\n".join(lines) + "\n```"


def tensors_table() -> str:
    """Names, shapes, fraction bits and bounds of a network of any width W."""
    small, large = (NetworkShape(width).tensors for width in WIDTHS[:2])
    rows: list[tuple[object, ...]] = [("Tensor", "Dimensions", "Fraction bits", "Bound")]
    for a, b in zip(small, large, strict=True):
        shape = " x ".join(str(m) if m == n else "W" for m, n in zip(a.shape, b.shape, strict=True))
        rows.append((f"`{a.name}`", shape, a.fraction_bits, a.bound))
    return _rows(rows)


def starting_networks_table() -> str:
    """Size and SHA-256 of the starting network of each width, as little-endian int16."""
    rows: list[tuple[object, ...]] = [("`width_index`", "W", "Origin", "Bytes", "SHA-256")]
    for index, width in enumerate(WIDTHS):
        data = b"".join(t.numpy().astype("<i2").tobytes() for t in starting_tensors(width).values())
        origin = "file" if width in TRAINED_WIDTHS else f"widened from {max(w for w in TRAINED_WIDTHS if w < width)}"
        rows.append((index, width, origin, len(data), f"`{hashlib.sha256(data).hexdigest()}`"))
    return _rows(rows)


def probability_table() -> str:
    """Some frequencies, and SHA-256 of all."""
    tables = np.array([table_frequencies(t // FRACTIONS, t % FRACTIONS) for t in range(SCALES * FRACTIONS)])
    rows: list[tuple[object, ...]] = [("Table", *(f"q = {q}" for q in SHOWN_SYMBOLS))]
    rows += [(t, *(int(tables[t][q + TABLE_BOUND]) for q in SHOWN_SYMBOLS)) for t in SHOWN_TABLES]
    digest = hashlib.sha256(tables.astype("<u4").tobytes()).hexdigest()
    return (
        _rows(rows) + "\n\nAll tables in ascending order, each as the frequencies of -127..127, each as `le(32)`, have "
        f"the SHA-256\n`{digest}`."
    )


def logarithms_table() -> str:
    """The first values of the table of logarithms, and SHA-256 of all."""
    values = log_feature(torch.arange(LOG_BOUND + 1, dtype=torch.float32), Rounding.EXACT).numpy().astype(np.uint8)
    digest = hashlib.sha256(values.tobytes()).hexdigest()
    return (
        _numbers(values[:SHOWN_LOGARITHMS].tolist(), 16)
        + f"\n\nThese are the first {SHOWN_LOGARITHMS}; the last, `LOG[{LOG_BOUND}]`, is {values[-1]}. All "
        f"{LOG_BOUND + 1} values, one byte each, have the SHA-256\n`{digest}`."
    )


def generated_tables() -> dict[str, str]:
    """Text of each generated table by its name in the markers."""
    return {
        "tensors": tensors_table(),
        "starting networks": starting_networks_table(),
        "gains": _numbers(gain_values(), 16),
        "logarithms": logarithms_table(),
        "probability tables": probability_table(),
    }


def main() -> None:
    text = SPEC.read_text(encoding="utf-8")
    for name, table in generated_tables().items():
        pattern = rf"(<!-- table: {name} -->\n).*?(<!-- end -->)"
        text, count = re.subn(pattern, lambda m, t=table: f"{m[1]}{t}\n{m[2]}", text, flags=re.DOTALL)  # type: ignore[misc]
        if count != 1:
            raise SystemExit(f"{SPEC.name} has {count} places for the table {name!r}")
    SPEC.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
