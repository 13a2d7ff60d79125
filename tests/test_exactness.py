"""The same file decodes to the same frames whatever the machine's arithmetic looks like."""

from __future__ import annotations

import hashlib
import os
import platform
import re
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import Encoded

from nvcodec.decoder import Decoder

ROOT = Path(__file__).parent.parent

DECODE = """
import contextlib, hashlib, sys
import torch

class Refuse:
    def find_spec(self, name, path=None, target=None):
        parts = name.split(".")
        if parts[0] == "av" or {"encoder", "models", "media", "tracing"} & set(parts[1:]) and parts[0] == "nvcodec":
            raise ImportError(f"{name} is not for decoders")

sys.meta_path.insert(0, Refuse())
from nvcodec.decoder import Decoder

path, threads, mkldnn = sys.argv[1], int(sys.argv[2]), sys.argv[3] == "mkldnn"
torch.set_num_threads(threads)
digest = hashlib.sha256()
with contextlib.nullcontext() if mkldnn else torch.backends.mkldnn.flags(enabled=False):
    with Decoder(path, device="cpu", threads=threads) as decoder:
        for frame in decoder:
            for plane in frame.planes:
                digest.update(plane.numpy().tobytes())
print("capability", torch.backends.cpu.get_cpu_capability(), flush=True)
print("frames", digest.hexdigest(), flush=True)
"""


def decode_apart(path: Path, threads: int = 1, mkldnn: bool = True, **environment: str) -> str:
    """Everything a process of its own prints while it decodes."""
    clean = {k: v for k, v in os.environ.items() if not k.startswith(("ATEN_", "ONEDNN_", "OMP_", "MKL_"))}
    command = [sys.executable, "-c", DECODE, str(path), str(threads), "mkldnn" if mkldnn else "plain"]
    done = subprocess.run(
        command,
        env=clean | {"OMP_WAIT_POLICY": "passive"} | environment,
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def hash_here(path: Path) -> str:
    """The same hash by this process."""
    digest = hashlib.sha256()
    with Decoder(path, device="cpu", threads=1) as decoder:
        for frame in decoder:
            for plane in frame.planes:
                digest.update(plane.numpy().tobytes())
    return digest.hexdigest()


def hash_in(output: str) -> str:
    (found,) = re.findall(r"^frames ([0-9a-f]{64})$", output, flags=re.MULTILINE)
    return str(found)


@pytest.fixture(scope="module")
def expected(demo: Encoded) -> str:
    """The hash with one thread and the machine's own kernels."""
    return hash_in(decode_apart(demo.path))


def test_two_threads(demo: Encoded, expected: str) -> None:
    assert hash_in(decode_apart(demo.path, threads=2)) == expected


@pytest.mark.skipif(platform.machine() not in ("x86_64", "AMD64"), reason="names of x86 kernels")
@pytest.mark.parametrize("capability", ["default", "avx2"])
def test_other_vector_kernels(demo: Encoded, expected: str, capability: str) -> None:
    output = decode_apart(demo.path, ATEN_CPU_CAPABILITY=capability)
    assert f"capability {capability.upper()}\n" in output
    assert hash_in(output) == expected


@pytest.mark.skipif(platform.machine() not in ("x86_64", "AMD64"), reason="names of x86 instruction sets")
def test_oldest_onednn_kernels(demo: Encoded, expected: str) -> None:
    output = decode_apart(demo.path, ONEDNN_MAX_CPU_ISA="SSE41", ONEDNN_VERBOSE="1")
    assert "isa:Intel SSE4.1" in output
    assert hash_in(output) == expected


def test_without_onednn(demo: Encoded, expected: str) -> None:
    output = decode_apart(demo.path, mkldnn=False, ONEDNN_VERBOSE="1")
    assert "convolution" not in output
    assert hash_in(output) == expected
