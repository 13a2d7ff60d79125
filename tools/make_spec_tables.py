"""Write the generated tables of bitstream_spec.md: tensors, files that belong to it, constants of the decoder.

    python tools/make_spec_tables.py

Run it after a starting network, the starting probabilities of the contexts, a start of an implicit network, the context
model of the appearance levels, the dictionary of programs, or a normative constant has changed; tests/test_spec.py
holds the two equal. Then make the vectors that depend on these files: tools/make_vectors.py.
"""

from __future__ import annotations

import hashlib
import math
import re
from collections.abc import Iterable
from pathlib import Path

import numpy as np

from nvcodec.bitstream import syntax
from nvcodec.core import limits
from nvcodec.core.quantiser import CHROMA_GAIN_STEPS, gain_values, quantiser_steps
from nvcodec.entropy.context import LOG_BOUND, log_table
from nvcodec.entropy.tables import FRACTIONS, SCALES, TABLE_BOUND, table_frequencies
from nvcodec.exact.arithmetic import Function, function_table, root_table
from nvcodec.exact.operation import InputOperation, Operation
from nvcodec.exact.program import OPERATIONS
from nvcodec.grid.contexts import CONTEXT_SHAPES
from nvcodec.hybrid.base import TRAINED_WIDTHS, WIDTHS, starting_tensors
from nvcodec.hybrid.blocks import contexts
from nvcodec.hybrid.blocks.layout import scans
from nvcodec.hybrid.blocks.picture import MODEL_DEPTHS
from nvcodec.hybrid.blocks.transform_cpu import cosines
from nvcodec.hybrid.network import NetworkShape
from nvcodec.implicit.starts import start_name

ROOT = Path(__file__).parent.parent
SPEC = ROOT / "bitstream_spec.md"
SHOWN_TABLES = (0, 1, 8, 112, 114, 224, 255)
SHOWN_SYMBOLS = (-127, -2, -1, 0, 1, 2, 127)
SHOWN_LOGARITHMS = 32
CONTEXT_TENSORS = {
    "hidden": "hidden.weight",
    "hidden_bias": "hidden.bias",
    "output": "output.weight",
    "output_bias": "output.bias",
    "group_bias": "group.bias",
}
"""Of the context model of the appearance levels: names in ``nvcodec.grid.contexts`` and in the specification."""
CONTEXTS = (
    ("SPLIT", "SPLIT", "is_split"),
    ("KIND", "KIND", "has_own_modes"),
    ("ANY", "ANY", "has_levels"),
    ("LIKELY", "LIKELY", "is_likely, not_first, not_second"),
    ("MODE", "MODE", "other_mode"),
    ("CHROMA", "CHROMA_MODE", "not_luma_mode, not_linear, listed_mode"),
    ("CODED", "CODED", "is_coded"),
    ("LAST", "LAST", "group_goes_on"),
    ("PRESENT", "PRESENT", "is_present"),
    ("ABOVE_ONE", "ABOVE_ONE", "above_one"),
    ("ABOVE_TWO", "ABOVE_TWO", "above_two"),
    ("REST", "REST", "rest_goes_on"),
    ("STEP", "STEP", "step_changes, step_goes_on"),
)
"""Names of the contexts in ``nvcodec.hybrid.blocks.contexts`` and in the specification, and the elements that they
code."""


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


def contexts_table() -> str:
    """Numbers of the contexts, and SHA-256 of what each is at first."""
    starts = [getattr(contexts, name) for name, _, _ in CONTEXTS]
    counts = [b - a for a, b in zip(starts, [*starts[1:], contexts.CONTEXTS], strict=True)]
    rows: list[tuple[object, ...]] = [("Name", "First context", "Contexts", "Elements")]
    for (_, name, elements), start, count in zip(CONTEXTS, starts, counts, strict=True):
        rows.append((f"`{name}`", start, count, ", ".join(f"`{element}`" for element in elements.split(", "))))
    first = np.stack([contexts.initial_probabilities(depth)[:, 0] >> 8 for depth in range(MODEL_DEPTHS)])
    data = first.astype(np.uint8).tobytes()
    digest = hashlib.sha256(data).hexdigest()
    return (
        _rows(rows) + f"\n\nThere are {contexts.CONTEXTS} contexts. The file of starting probabilities has {len(data)} "
        f"bytes and the SHA-256\n`{digest}`."
    )


def appearance_context_table() -> str:
    """The tensors of the context model of the appearance levels, in the order of the file, and its SHA-256."""
    rows: list[tuple[object, ...]] = [("Tensor", "Dimensions", "Bytes")]
    for name, text in CONTEXT_TENSORS.items():
        shape = CONTEXT_SHAPES[name]
        rows.append((f"`{text}`", " x ".join(map(str, shape)), 2 * math.prod(shape)))
    if list(CONTEXT_SHAPES) != list(CONTEXT_TENSORS):
        raise SystemExit("the file of the context model has other tensors, or another order")
    data = (ROOT / "nvcodec/grid/contexts.bin").read_bytes()
    digest = hashlib.sha256(data).hexdigest()
    return _rows(rows) + f"\n\nThe file has {len(data)} bytes and the SHA-256\n`{digest}`."


def files_table(paths: Iterable[Path], *, named: bool) -> str:
    """Size and SHA-256 of files. ``named``: with the names that starts have."""
    rows: list[tuple[object, ...]] = [("File", *(["`start`"] if named else []), "Bytes", "SHA-256")]
    for path in paths:
        data = path.read_bytes()
        name = [f"`{start_name(data).hex(' ')}`"] if named else []
        rows.append((f"`{path.relative_to(ROOT)}`", *name, len(data), f"`{hashlib.sha256(data).hexdigest()}`"))
    return _rows(rows)


def quantiser_steps_table() -> str:
    """Steps of luma by their index; those of chroma are the same, some indices finer."""
    values = gain_values()
    expected = [(v, values[max(i - CHROMA_GAIN_STEPS, 0)]) for i, v in enumerate(values)]
    if quantiser_steps().tolist() != [list(pair) for pair in expected]:
        raise SystemExit("the steps of chroma are not those of luma at another index")
    return _numbers(values, 16)


def scan_table() -> str:
    """Places of the levels of a 4x4 block, in coding order."""
    return "```\n" + " ".join(f"({y},{x})" for y, x in scans()[0][:16].tolist()) + "\n```"


def logarithms_table() -> str:
    """The first values of the table of logarithms, and SHA-256 of all."""
    values = log_table().astype(np.uint8)
    digest = hashlib.sha256(values.tobytes()).hexdigest()
    return (
        _numbers(values[:SHOWN_LOGARITHMS].tolist(), 16)
        + f"\n\nThese are the first {SHOWN_LOGARITHMS}; the last, `LOG[{LOG_BOUND}]`, is {values[-1]}. All "
        f"{LOG_BOUND + 1} values, one byte each, have the SHA-256\n`{digest}`."
    )


def functions_table() -> str:
    """SHA-256 and some entries of the tables of functions."""
    tables = {f.name: np.array(function_table(f)) for f in Function if f < Function.LEAKY_RELU}
    tables["ROOT"] = root_table()
    rows: list[tuple[object, ...]] = [("Table", "First", "At a quarter", "In the middle", "Last", "SHA-256")]
    for name, values in sorted(tables.items()):
        places = (0, len(values) // 4, len(values) // 2, len(values) - 1)
        digest = hashlib.sha256(values.astype("<i4").tobytes()).hexdigest()
        rows.append((f"`{name}`", *(values[n] for n in places), f"`{digest}`"))
    return _rows(rows) + "\n\nThe hashes are over all entries, each as `le(32)`, negative ones in two's complement."


MULTIPLICATIONS = {
    "conv": "elements * C / groups * kernel^2",
    "upsample": "elements, four times if bilinear",
    "norm": "4 * elements",
    "warp": "4 * elements if block_log2 = 0, else 20 * elements",
    "grid": "2 * elements",
    "samples": "0",
    "store": "0",
    "correct": "0",
}
"""Of the operations that do not count one for each element; inputs count none."""


def operations_table() -> str:
    """Codes, operands, parameters and costs of all operations."""

    def cost(kind: type[Operation]) -> str:
        return MULTIPLICATIONS.get(kind.NAME, "0" if issubclass(kind, InputOperation) else "elements")

    rows: list[tuple[object, ...]] = [("Code", "Operation", "Operands", "Parameters: low..high", "Multiplications")]
    for code, kind in sorted(OPERATIONS.items()):
        parameters = ", ".join(f"{p.name} {p.low}..{p.high}" for p in kind.PARAMETERS) or "none"
        operands = "any number" if kind.OPERANDS is None else kind.OPERANDS
        rows.append((code, f"`{kind.NAME}`", operands, parameters, cost(kind)))
    return _rows(rows)


CONSTANTS = {
    "MAX_LEB128": "value of `leb128()`",
    "MAX_LEB128_BYTES": "bytes of `leb128()`",
    "MAX_SLEB": "value of `sleb()`; magnitude of a pts",
    "MAX_SLEB_BYTES": "bytes of `sleb()`",
    "MAX_WIDTH": "`width`",
    "MAX_HEIGHT": "`height`",
    "MAX_PICTURE_SAMPLES": "`width * height`",
    "MAX_FRAMES": "`frame_count`",
    "MAX_SEGMENTS": "`segment_count`",
    "MAX_SEGMENT_FRAMES": "`segment_frame_count[i]`",
    "MAX_HEAD_BYTES": "`length` of HEAD",
    "MAX_INDEX_ENTRY_BYTES": "`length` of INDEX, for each segment",
    "MAX_SEGMENT_PAYLOAD_BYTES": "bytes of a segment payload",
    "MAX_METADATA_BYTES": "`size` of METADATA",
    "MAX_AUDIO_BYTES": "`length` of AUDIO",
    "MAX_METADATA_DEPTH": "nesting in METADATA",
    "FRAME_HASH_BYTES": "(size of `frame_hash`)",
    "CRC_BYTES": "(size of `crc32`)",
    "MAX_PROGRAM_BYTES": "`length` of PROGRAM",
    "MAX_PROGRAM_NODE_BYTES": "bytes of a program, decompressed",
    "MAX_PROGRAMS": "sections PROGRAM of a file",
    "MAX_PROGRAM_NODES": "`node_count`",
    "MAX_PROGRAM_SIDE": "rows and columns of a node",
    "MAX_PROGRAM_CHANNELS": "channels of a node",
    "MAX_PROGRAM_WEIGHTS": "weights of a program (13.2)",
    "MAX_LATENT_CHANNELS": "channels of a node latent or grid",
    "PROGRAM_LEAST_SAMPLES": "luma samples that a smaller picture counts for (13.2)",
    "PROGRAM_ELEMENTS_A_SAMPLE": "elements of a program at once, for each luma sample (13.2)",
    "STATE_ELEMENTS_A_SAMPLE": "elements of states, likewise",
    "LATENTS_A_SAMPLE": "latents of a frame, with all grids, likewise",
    "MULTIPLICATIONS_A_SAMPLE": "multiplications of a program, likewise",
}
"""What each constant limits, in the order of ``nvcodec.core.limits``."""


def constants_table() -> str:
    """All limits, with their values."""
    rows: list[tuple[object, ...]] = [("Name", "Value", "Limit of")]
    rows += [(f"`{name}`", getattr(limits, name), text) for name, text in CONSTANTS.items()]
    return _rows(rows)


def generated_tables() -> dict[str, str]:
    """Text of each generated table by its name in the markers."""
    return {
        "tensors": tensors_table(),
        "starting networks": starting_networks_table(),
        "contexts": contexts_table(),
        "appearance context": appearance_context_table(),
        "starts": files_table(sorted((ROOT / "nvcodec/implicit/starts").glob("*.bin")), named=True),
        "program dictionary": files_table([ROOT / "nvcodec/bitstream/programs.dict"], named=False),
        "quantiser steps": quantiser_steps_table(),
        "scan": scan_table(),
        "cosines": _numbers(cosines(), 11),
        "logarithms": logarithms_table(),
        "probability tables": probability_table(),
        "functions": functions_table(),
        "operations": operations_table(),
        "constants": constants_table(),
        "HEAD": syntax.fields_table(syntax.HEAD_FIELDS),
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
