"""Lower rooms know nothing of higher ones, and a decoder needs nothing of the encoder, nor PyAV."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path

import pytest

import nvcodec

ROOT = Path(__file__).parent.parent

DECODER_ROOMS = (
    ("core", "errors limits device parallel memory compiled fixedpoint frame gop color metrics package_versions"),
    ("core", "quantiser"),
    ("bitstream", "bitio syntax container salvage"),
    ("entropy", "tables range_decoder context context_cpu symbols numbers weights"),
    ("motion", "levels warp_cpu warp agreement_cpu side_cpu prediction side compensation unit"),
    (
        "exact",
        "arithmetic simulation operation layer pointwise arrangement kernels_cpu convolution latents normalisation",
    ),
    ("exact", "outputs position references warping program machine"),
    ("grid", "levels wavelet_cpu wavelet side contexts coding"),
    ("hybrid.blocks", "contexts layout bins_cpu syntax_cpu transform_cpu prediction_cpu rebuild_cpu picture"),
    ("hybrid", "cell_cpu network base unit payload"),
    ("implicit", "weights starts latents unit payload"),
    ("", "decoder account"),
)
"""Rooms of what a decoder needs, and the modules of each. A module may use those before it in its room, and the rooms
before. A new module gets its place here."""

OTHER_ROOMS = (
    (
        "media",
        "output_file matroska y4m av_frame hdr packet_clock subtitles sound sound_write video_write source_length "
        "picture_names",
    ),
    ("media", "video_io video_digest"),
    # what a representation's encoder is made of
    ("encoder", "arithmetic working_domain distortion rate_control representation power_kernels rate_kernels rate"),
    ("encoder", "motion_kernels motion_search unit_motion_search lookahead temporal_filter segment_analysis"),
    ("encoder", "gop_trials weight_changes"),
    ("grid.encoder", "transform descent_kernels descent fit"),
    ("hybrid.encoder", "twin quantise block_kernels fit segment_fit final_pass stages representation"),
    ("exact", "tracing"),
    ("implicit.models", "parts nerv siren hinerv hnerv cwrnn"),
    (
        "implicit.encoder",
        "settings storable steps prune rate model budget coding frames sequence stages representation",
    ),
    ("implicit.encoder", "synthesis exact_synthesis recurrent_fit overfit start weight_fit recurrent_final"),
    ("implicit.encoder", "recurrent_stages recurrent_representation"),
    # what makes a file with one
    ("encoder", "cuts source tree_file checkpoint identity pipeline own_module"),
    ("rd", "extra bd quality anchors ladder store tool_versions clip workers points run results plot stills report"),
    ("rd", "output"),
    ("cli", "types options progress interrupt info rd commands"),
    ("", "__main__"),
)


def in_order(rooms: Iterable[tuple[str, str]]) -> list[str]:
    """Names within the package."""
    return [f"{room}.{module}".removeprefix(".") for room, listed in rooms for module in listed.split()]


ORDER = in_order(DECODER_ROOMS + OTHER_ROOMS)

USE_PYAV = {
    "media.av_frame",
    "media.hdr",
    "media.packet_clock",
    "media.sound",
    "media.subtitles",
    "media.sound_write",
    "media.video_write",
    "media.video_io",
    "rd.anchors",
}


ONE_MODULE = {"implicit.starts"}
"""Folders of data whose ``__init__`` is a module as any other: there are none below it."""


def is_package(path: Path) -> bool:
    """Whether it is the ``__init__`` of a folder with modules."""
    return path.name == "__init__.py" and ".".join(path.parent.relative_to(ROOT / "nvcodec").parts) not in ONE_MODULE


def modules() -> dict[str, Path]:
    """Every module but the ``__init__`` files of packages, by its name within the package."""
    package = ROOT / "nvcodec"
    paths = [path for path in package.rglob("*.py") if not is_package(path)]
    named = {path.relative_to(package).with_suffix("").parts: path for path in paths}
    return {".".join(parts).removesuffix(".__init__"): path for parts, path in named.items()}


def imported(path: Path) -> Iterator[str]:
    """Full names of what a module imports, wherever in the file."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: a relative import"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def used(path: Path) -> Iterator[str]:
    """Which modules of the package a module imports."""
    for name in imported(path):
        parts = name.split(".")
        if parts[0] == "nvcodec":
            yield from (m for n in range(2, len(parts) + 1) if (m := ".".join(parts[1:n])) in ORDER)


def test_every_module_has_a_place() -> None:
    assert sorted(ORDER) == sorted(modules())


@pytest.mark.parametrize("name", ORDER)
def test_modules_use_those_before_them(name: str) -> None:
    path = modules()[name]
    allowed = ORDER[: ORDER.index(name)]
    assert [module for module in used(path) if module not in allowed] == []
    uses_pyav = any(module.split(".")[0] == "av" for module in imported(path))
    assert uses_pyav == (name in USE_PYAV)


def test_packages_load_nothing() -> None:
    """What an ``__init__`` imports, every module below it would load: nothing but what Python has."""
    for path in filter(is_package, (ROOT / "nvcodec").rglob("*/__init__.py")):
        assert {name.split(".")[0] for name in imported(path)} <= sys.stdlib_module_names


def run(program: str) -> None:
    subprocess.run([sys.executable, "-W", "error", "-c", program], check=True, cwd=ROOT)


def test_decoder_loads_without_encoder_and_pyav() -> None:
    run(
        """
import sys

class Refuse:
    def find_spec(self, name, path=None, target=None):
        parts = name.split(".")
        if parts[0] == "av" or {"encoder", "models", "media", "tracing"} & set(parts[1:]) and parts[0] == "nvcodec":
            raise ImportError(f"{name} is not for decoders")

sys.meta_path.insert(0, Refuse())
import nvcodec
assert nvcodec.Decoder.__module__ == "nvcodec.decoder"
assert nvcodec.BitstreamError and nvcodec.VideoProperties
try:
    nvcodec.encode
except ImportError:
    pass
else:
    raise SystemExit("the encoder was loaded")
"""
    )


def test_the_command_line_starts_light() -> None:
    run(
        """
import sys
import nvcodec.cli.commands
heavy = {"torch", "numpy", "av", "constriction", "matplotlib", "PIL", "scipy"} & set(sys.modules)
assert not heavy, heavy
"""
    )


def test_public_names() -> None:
    assert {"__version__", *nvcodec._HOMES} == set(nvcodec.__all__)
    for name in nvcodec.__all__:
        assert getattr(nvcodec, name) is not None
    for name, home in nvcodec._HOMES.items():
        assert getattr(nvcodec, name).__module__ == home
    assert set(nvcodec.__all__) <= set(dir(nvcodec))
    with pytest.raises(AttributeError, match="no attribute 'nonsense'"):
        _ = nvcodec.nonsense
