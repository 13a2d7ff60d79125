"""Every vector of tests/vectors through the product and through the decoder written from the specification."""

from __future__ import annotations

import hashlib
import importlib.util
import json
import os
import platform
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from nvcodec.account import describe
from nvcodec.cli.info import format_info
from nvcodec.core.errors import BitstreamError
from nvcodec.decoder import Decoder, FrameHash
from nvcodec.exact import machine
from nvcodec.hybrid.blocks import contexts
from nvcodec.implicit.starts import shipped_starts

ROOT = Path(__file__).parent.parent
FOLDER = ROOT / "tests" / "vectors"
LISTED: dict[str, dict[str, Any]] = json.loads((FOLDER / "vectors.json").read_text(encoding="utf-8"))
GOOD = {name: str(record["frame_hash"]) for name, record in LISTED.items() if "error" not in record}
FAULTY = {name: str(record["error"]) for name, record in LISTED.items() if "error" in record}
ONLY_ON_X86 = pytest.mark.skipif(platform.machine() not in ("x86_64", "AMD64"), reason="names of x86 kernels")


def load_tool(name: str) -> ModuleType:
    found = importlib.util.spec_from_file_location(name, ROOT / "tools" / f"{name}.py")
    assert found is not None
    assert found.loader is not None
    module = importlib.util.module_from_spec(found)
    sys.modules[name] = module
    found.loader.exec_module(module)
    return module


reference: Any = load_tool("reference_decoder")
reference_machine: Any = sys.modules["reference_machine"]


def path_of(name: str) -> Path:
    return FOLDER / f"{name}.cwrv"


def product_frames(name: str, start: int = 0, stop: int | None = None, threads: int = 1) -> list[tuple[Any, ...]]:
    with Decoder(path_of(name), device="cpu", threads=threads) as decoder:
        return [frame.planes for frame in decoder.frames(start, stop)]


def product_hash(frames: list[tuple[Any, ...]]) -> str:
    digest = FrameHash()
    for planes in frames:
        digest.add(planes)
    return digest.digest().hex()


def reference_decode(data: bytes) -> Any:
    reader = reference.Reader(data)
    stream = reference.read_stream(reader, 6)
    return stream, list(reference.decode_segments(reader, stream))


def test_the_folder_is_what_is_listed() -> None:
    assert {path.stem for path in FOLDER.glob("*.cwrv")} == set(LISTED)
    for name, record in LISTED.items():
        data = path_of(name).read_bytes()
        assert (len(data), hashlib.sha256(data).hexdigest()) == (record["bytes"], record["sha256"]), name
    assert sum(record["bytes"] for record in LISTED.values()) < 1_000_000


def test_vectors_and_spec_are_what_the_code_makes() -> None:
    """After a change of the format: python tools/make_vectors.py."""
    tool: Any = load_tool("make_vectors")
    assert tool.differences(tool.contents()) == []


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("name", GOOD)
def test_product(name: str, threads: int) -> None:
    assert product_hash(product_frames(name, threads=threads)) == GOOD[name]


@pytest.mark.parametrize("name", ["program_hinerv", "program_references", "program_cwrnn", "program_residual"])
def test_frames_of_a_unit_one_by_one(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """As they are computed where they are large."""
    monkeypatch.setattr(machine, "_ELEMENTS_AT_ONCE", 1)
    assert product_hash(product_frames(name)) == GOOD[name]


@pytest.mark.parametrize("name", ["segments", "program_several", "program_inputs", "program_cwrnn", "program_residual"])
def test_account_adds_up(name: str) -> None:
    with Decoder(path_of(name), device="cpu") as decoder:
        info = describe(decoder, name)
    parts = info["bytes_by_purpose"]
    assert sum(parts.values()) == pytest.approx(info["file_bytes"]) == LISTED[name]["bytes"]
    assert 0 <= parts["coder_end"] <= 12 * len(info["segments"])
    assert format_info(info).count("\nsegment ") == len(info["segments"])


@dataclass
class Seen:
    """What the reference decoder made of the vectors, and which parts of the format it met."""

    decoded: dict[str, Any] = field(default_factory=dict)
    widths: set[int] = field(default_factory=set)
    depths: set[int] = field(default_factory=set)
    motion: set[tuple[int, int]] = field(default_factory=set)
    sizes: set[int] = field(default_factory=set)
    modes: set[tuple[int, int]] = field(default_factory=set)
    choices: set[int] = field(default_factory=set)
    offsets: set[int] = field(default_factory=set)
    largest: int = 0
    contexts: set[int] = field(default_factory=set)
    changed: set[str] = field(default_factory=set)
    programs: dict[int, Any] = field(default_factory=dict)
    exponents: set[int] = field(default_factory=set)
    weight_sums: set[int] = field(default_factory=set)
    appearance: set[tuple[int, int]] = field(default_factory=set)
    channels: set[tuple[int, int]] = field(default_factory=set)
    gains: set[int] = field(default_factory=set)
    largest_image: int = 0
    changed_weights: int = 0
    moved_weights: int = 0
    codes: set[int] = field(default_factory=set)


@pytest.fixture(scope="module")
def seen() -> Seen:
    result = Seen()
    read_level, read_network = reference.motion_level, reference.decode_network
    read_bin, read_blocks = reference.BlockReader.c, reference.BlockReader.read

    def level(coder: Any, net: Any, frames: Any, k: int) -> None:
        read_level(coder, net, frames, k)
        result.motion.update((k, len(f.references)) for f in frames if f.grid[k].any())

    def one_bin(reader: Any, context: int, name: str) -> int:
        result.contexts.add(context)
        return int(read_bin(reader, context, name))

    def blocks(reader: Any) -> Any:
        found = read_blocks(reader)
        result.sizes.update(found.size.ravel().tolist())
        result.modes.update(
            (n, int(found.mode[r + i // 2, q + i % 2])) for r, q, n in found.leaves for i in range(4 if n == 2 else 1)
        )
        result.choices.update(found.chroma_choice.ravel().tolist())
        result.offsets.update(found.step_offset.ravel().tolist())
        result.largest = max([result.largest, *(int(abs(plane).max()) for plane in found.level)])
        return found

    def unit(coder: Any, net: Any, probabilities: Any, frames: Any) -> None:
        result.depths.add(frames[0].depth)
        decode_unit(coder, net, probabilities, frames)

    decode_unit = reference.decode_unit

    def network(coder: Any, width: int, offset: int) -> Any:
        net = read_network(coder, width, offset)
        result.widths.add(width)
        start = reference.starting_network(width)
        result.changed.update(name for name, tensor in net.items() if (tensor != start[name]).any())
        return net

    read_appearance, make_residual, merge = reference.appearance_levels, reference.residual_of, reference.merge

    def appearance(coder: Any, frames: Any, moves: bool) -> Any:
        found = read_appearance(coder, frames, moves)
        for f, levels in zip(frames, found, strict=True):
            result.appearance.update((k, f.depth) for k, level in levels.items() if level.any())
            result.channels.update((k, c) for k, level in levels.items() for c in range(len(level)) if level[c].any())
        return found

    def residual(f: Any, g: Any, least: list[int], quantiser: int) -> Any:
        result.gains.update(max(value, quantiser) for value in least)
        return make_residual(f, g, least, quantiser)

    def merged(low: Any, high: Any, n: int) -> Any:
        out = merge(low, high, n)
        result.largest_image = max(result.largest_image, int(abs(out).max()))
        return out

    class Decoding(reference.ImplicitDecoder):  # type: ignore[misc]
        def changed(self, node: Any) -> Any:
            tensors, start = super().changed(node), self.start.nodes[node.index]
            anchor = self.anchor(start.weight, start.weight_directions)
            result.changed_weights += int((tensors.weight.reshape(anchor.shape) != anchor).sum())
            result.moved_weights += int((anchor != start.weight).sum())
            result.codes.update(self.code.tolist())
            return tensors

        def conv_tensors(self, node: Any) -> Any:
            tensors = super().conv_tensors(node)
            result.programs[id(self.program)] = self.program
            result.exponents.update(tensors.exponent.tolist())
            result.weight_sums.update(abs(tensors.weight).sum((1, 2, 3)).tolist())
            return tensors

        def unit(self, frames: Any) -> Any:
            result.programs[id(self.program)] = self.program
            return super().unit(frames)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(reference, "ImplicitDecoder", Decoding)
        patch.setattr(reference, "appearance_levels", appearance)
        patch.setattr(reference, "residual_of", residual)
        patch.setattr(reference, "merge", merged)
        patch.setattr(reference, "motion_level", level)
        patch.setattr(reference, "decode_unit", unit)
        patch.setattr(reference.BlockReader, "c", one_bin)
        patch.setattr(reference.BlockReader, "read", blocks)
        patch.setattr(reference, "decode_network", network)
        for name in GOOD:
            result.decoded[name] = reference_decode(path_of(name).read_bytes())
    return result


@pytest.mark.parametrize("name", GOOD)
def test_reference(seen: Seen, name: str) -> None:
    stream, frames = seen.decoded[name]
    assert reference.frame_hash(frames).hex() == GOOD[name]
    with Decoder(path_of(name), device="cpu") as decoder:
        assert list(decoder.container.pts) == stream.pts
        assert decoder.container.metadata == stream.metadata


@pytest.mark.parametrize("name", FAULTY)
def test_faulty(name: str) -> None:
    with pytest.raises(reference.DecodeError, match=f"^{FAULTY[name]}: "):
        reference_decode(path_of(name).read_bytes())
    with Path(path_of(name)).open("rb") as source, pytest.raises(BitstreamError) as caught:
        Decoder(source, device="cpu").verify()
    assert caught.value.reason == FAULTY[name]


def sections_of(data: bytes) -> list[tuple[int, bytes]]:
    """Type and payload of each section."""
    found, reader = [], reference.Reader(data, 10)
    while reader.left:
        kind = reader.u8("type")
        found.append((kind, reader.take(reader.leb128("length"), "payload")))
        reader.take(4, "crc32")
    return found


def test_vectors_use_the_whole_format(seen: Seen) -> None:
    """Every width, depth, level of motion and of appearance, size, mode and context of blocks, tensor, kind of section,
    representation and name of an error occurs."""
    sections = [section for name in GOOD for section in sections_of(path_of(name).read_bytes())]
    assert {kind for kind, _ in sections} == {0x01, 0x02, 0x03, 0x04, 0x7F, 0x80, 0x81, 0x82, 0x83, 0x84, 0x85, 0xFF}
    assert {payload[0] for kind, payload in sections if kind == 4} == {1, 0x28}
    representations = {payload[0] >> 4 for kind, payload in sections if kind == 3}
    assert representations == ({0, 1, 2} if shipped_starts() else {0, 1})
    assert (seen.changed_weights > 100) == (2 in representations)
    if 2 in representations:
        assert seen.moved_weights > 1000
        assert min(seen.codes) < -20
        assert max(seen.codes) > 20
    assert seen.widths == set(reference.WIDTHS)
    assert seen.depths == set(range(8))
    assert seen.motion == {(k, r) for k in range(5) for r in (1, 2)}
    assert seen.sizes == {2, 3, 4, 5}
    assert {mode for _, mode in seen.modes} == set(range(37))
    assert {(n, mode) for n in (2, 3, 4, 5) for mode in (0, 1, 10, 26, 35, 36)} <= seen.modes
    assert seen.choices == set(range(6))
    assert {-63, 0, 63} <= seen.offsets
    assert seen.largest > 32000
    assert seen.contexts == reachable_contexts()
    assert seen.changed == set(reference.tensor_shapes(8))
    assert seen.appearance == {(k, depth) for k in range(5) for depth in range(8)}
    assert seen.channels == {(k, c) for k, count in enumerate((3, 9, 9, 9, 12)) for c in range(count)}
    assert {0, 63} <= seen.gains
    assert len(seen.gains) > 30
    assert seen.largest_image == reference.MAX_BAND
    assert set(FAULTY.values()) == {error.reason for error in BitstreamError.__subclasses__()}


def reachable_contexts() -> set[int]:
    """All but those of coordinates that no block of their size has."""
    groups = {2: 3, 3: 5, 4: 7, 5: 9}
    unused = {
        contexts.LAST + 80 * chroma + 20 * (n - 2) + 10 * axis + group
        for chroma in range(2)
        for n in groups
        for axis in range(2)
        for group in range(10)
        if group >= groups[n] or (chroma and n == 5)
    }
    return set(range(contexts.CONTEXTS)) - unused


NOT_ALL = ("channels", "rows", "columns", "start", "groups", "level")


def test_vectors_use_all_operations(seen: Seen) -> None:
    """In programs that segments name: every operation, number of activation bits, and the smallest and the largest
    value of every parameter but sizes and levels."""
    values: dict[tuple[str, str], set[int]] = {}
    for program in seen.programs.values():
        for node in program.nodes:
            values.setdefault((node.operation, ""), set())
            for name, value in node.p.items():
                values.setdefault((node.operation, name), set()).add(value)
    assert {program.activation_bits for program in seen.programs.values()} == set(range(8, 17))
    for operation in reference_machine.OPERATIONS.values():
        assert (operation.name, "") in values
        for name, low, high in operation.parameters:
            if name not in NOT_ALL:
                found = values[operation.name, name]
                assert (min(found), max(found)) == (low, high), (operation.name, name)
    assert values["latent", "level"] | values["grid", "level"] == set(range(16))
    assert values["residual", "level"] == set(range(5))
    assert values["conv", "kernel"] == {1, 3, 5, 7, 9}
    assert values["table", "function"] == set(range(6))
    assert values["warp", "block_log2"] == set(range(4))
    assert values["add", "shift"] == values["multiply", "shift"] == values["rescale", "shift"] == set(range(31))
    assert {-256, 96} <= seen.exponents
    assert {2**17 - 1, (2**31 - 1) // (2**15 - 1)} <= seen.weight_sums


@pytest.mark.parametrize("name", ["segments", "p_only", "program_several", "program_hinerv", "program_residual"])
def test_any_range_of_frames(name: str) -> None:
    whole = product_frames(name)
    assert product_hash(whole) == GOOD[name]
    for start in range(len(whole)):
        for stop in range(start + 1, len(whole) + 1):
            assert product_hash(product_frames(name, start, stop)) == product_hash(whole[start:stop]), (start, stop)


DECODE_ALL = """
import contextlib, sys
import torch
from nvcodec.decoder import Decoder, FrameHash

onednn = sys.argv[1] == "onednn"
with contextlib.nullcontext() if onednn else torch.backends.mkldnn.flags(enabled=False):
    for path in sys.argv[2:]:
        digest = FrameHash()
        with Decoder(path, device="cpu", threads=1) as decoder:
            for frame in decoder:
                digest.add(frame.planes)
        print(digest.digest().hex())
print("capability", torch.backends.cpu.get_cpu_capability())
"""


def decode_apart(onednn: str = "onednn", **environment: str) -> str:
    """What a process of its own prints: the hash of each vector, and the kernels it used."""
    clean = {k: v for k, v in os.environ.items() if not k.startswith(("ATEN_", "ONEDNN_", "OMP_", "MKL_"))}
    command = [sys.executable, "-c", DECODE_ALL, onednn, *(str(path_of(name)) for name in GOOD)]
    environment = clean | {"OMP_WAIT_POLICY": "passive"} | environment
    done = subprocess.run(command, env=environment, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def hashes_in(output: str) -> list[str]:
    """The lines that are a hash; verbose libraries may print others."""
    return [line for line in output.splitlines() if len(line) == 32 and set(line) <= set("0123456789abcdef")]


def test_product_without_onednn() -> None:
    output = decode_apart(onednn="plain", ONEDNN_VERBOSE="1")
    assert "convolution" not in output
    assert hashes_in(output) == list(GOOD.values())


@ONLY_ON_X86
def test_product_without_vector_kernels() -> None:
    output = decode_apart(ATEN_CPU_CAPABILITY="default")
    assert "capability DEFAULT\n" in output
    assert hashes_in(output) == list(GOOD.values())


@ONLY_ON_X86
def test_product_with_oldest_onednn_kernels() -> None:
    output = decode_apart(ONEDNN_MAX_CPU_ISA="SSE41", ONEDNN_VERBOSE="1")
    assert "isa:Intel SSE4.1" in output
    assert hashes_in(output) == list(GOOD.values())


def run_reference(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(ROOT / "tools" / "reference_decoder.py"), *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_reference_command(tmp_path: Path) -> None:
    done = run_reference(path_of("one_frame"), "--hash", "-o", tmp_path / "out.y4m")
    assert (done.returncode, done.stdout, done.stderr) == (0, GOOD["one_frame"] + "\n", "")
    head, _, frame = (tmp_path / "out.y4m").read_bytes().partition(b"FRAME\n")
    assert head == b"YUV4MPEG2 W35 H21 F25:1 Ip A0:0 C420jpeg\n"
    assert hashlib.blake2b(frame, digest_size=16).hexdigest() == GOOD["one_frame"]


def test_reference_command_refuses_in_one_line(tmp_path: Path) -> None:
    for path in (path_of("faulty_crc"), tmp_path / "absent.cwrv"):
        done = run_reference(path, "-o", tmp_path / "out.y4m")
        assert (done.returncode, done.stdout, done.stderr.count("\n")) == (1, "", 1)
        assert done.stderr.startswith(f"{path}: ")
        assert not (tmp_path / "out.y4m").exists()


@pytest.mark.parametrize("name", ["timestamps", "program_dictionary"])
def test_reference_stands_alone(name: str) -> None:
    """It decodes where neither torch nor the product can be imported, and has loaded neither."""
    program = (
        "import runpy, sys\n"
        "sys.modules['torch'] = sys.modules['nvcodec'] = None\n"
        "sys.argv = sys.argv[1:]\n"
        "try:\n    runpy.run_path(sys.argv[0], run_name='__main__')\n"
        "except SystemExit as end:\n    assert end.code == 0, end.code\n"
        "assert not [m for m in sys.modules if m.split('.')[0] in ('torch', 'nvcodec') and sys.modules[m]]\n"
        "print('alone')\n"
    )
    command = [sys.executable, "-c", program, str(ROOT / "tools" / "reference_decoder.py"), str(path_of(name))]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.endswith("alone\n"), name


def test_reference_sees_every_damaged_byte() -> None:
    data = path_of("one_sample").read_bytes()
    for position in range(len(data)):
        for bit in (1, 0x80):
            damaged = data[:position] + bytes([data[position] ^ bit]) + data[position + 1 :]
            with pytest.raises(reference.DecodeError):
                reference_decode(damaged)
    for length in range(len(data)):
        with pytest.raises(reference.DecodeError):
            reference_decode(data[:length])
