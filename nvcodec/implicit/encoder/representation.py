"""The implicit representation as the pipeline uses it: from what the user chose to an encoder of segments."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from copy import deepcopy
from dataclasses import dataclass, replace
from typing import Any

from torch import Tensor, nn

from nvcodec.bitstream.container import program_bytes
from nvcodec.core.errors import EncodeError
from nvcodec.encoder.rate_control import Target
from nvcodec.encoder.representation import CodedSegment, Keep, StageReport
from nvcodec.exact.operation import Sizes
from nvcodec.implicit.encoder.settings import EFFORTS, Effort
from nvcodec.implicit.encoder.stages import BITS_A_NUMBER, SegmentTask, encode_segment
from nvcodec.implicit.models import hinerv, hnerv, nerv, siren
from nvcodec.motion.levels import FrameGeometry

__all__ = ["MODELS", "ImplicitEncoder", "Module", "check_choices", "module_identity"]

MODELS: Mapping[str, Callable[[Sizes, float], nn.Module]] = {
    "hnerv": hnerv.HNeRV,
    "nerv": nerv.NeRV,
    "siren": siren.SIREN,
    "hinerv": hinerv.HiNeRV,
}
"""By name: makes a module for pictures of some size, with about so many parameters."""

Module = nn.Module | Callable[[Sizes], nn.Module]
"""Made of layers of ``nvcodec.exact``: a module for the video at hand, or what makes one from its sizes."""


def check_choices(effort: str, quality: float | None, params: float | None, epochs: int | None) -> None:
    """Raises EncodeError for values outside their range."""
    if effort not in EFFORTS:
        raise EncodeError(f"unknown effort {effort!r}; choose {', '.join(EFFORTS)}")
    if quality is not None:
        raise EncodeError("a network is fitted to a size: give bpp, bitrate, size or params, not quality")
    if params is not None and not 1e3 <= params <= 1e8:
        raise EncodeError(f"params {params:g} lies outside 1000 .. 100000000")
    if epochs is not None and not 1 <= epochs <= 100_000:
        raise EncodeError(f"epochs {epochs} lies outside 1 .. 100000")


def module_identity(module: Module) -> str:
    """What of a module the bytes of a file depend on, as a text: its layers and their first values."""
    if not isinstance(module, nn.Module):
        return f"{getattr(module, '__module__', '')}.{getattr(module, '__qualname__', repr(module))}"
    digest = hashlib.blake2b(repr(module).encode(), digest_size=16)
    for name, value in module.state_dict().items():
        digest.update(name.encode())
        digest.update(value.detach().cpu().contiguous().numpy().tobytes() if isinstance(value, Tensor) else b"")
    return f"{type(module).__name__} {digest.hexdigest()}"


@dataclass(frozen=True)
class ImplicitEncoder:
    """A ``nvcodec.encoder.representation.SegmentEncoder``. ``programs``: those of the file so far, as coded."""

    build: Callable[[Sizes, float], nn.Module]
    effort: Effort
    params: float | None
    has_target: bool
    programs: list[bytes]

    @staticmethod
    def chosen(
        model: str | Module,
        effort: str,
        params: float | None,
        epochs: int | None,
        has_target: bool,
        programs: list[bytes],
    ) -> ImplicitEncoder:
        """By what the user chose. ``model``: one of MODELS, or a module."""
        settings = EFFORTS[effort]
        if epochs is not None:
            settings = replace(settings, epochs=epochs)
        build = MODELS[model] if isinstance(model, str) else _maker(model)
        return ImplicitEncoder(build, settings, params, has_target, programs)

    def smallest_payload(self, frames: int, geometry: FrameGeometry) -> int:
        """Nothing that is known before a module is built and its steps are tried."""
        return 1

    def encode_segment(
        self,
        samples: Tensor,
        geometry: FrameGeometry,
        target: Target,
        seed: int,
        on_unit: Callable[[StageReport], None],
        *,
        kept: dict[str, Any] | None,
        keep: Keep,
    ) -> CodedSegment:
        total = target.total_bytes if self.has_target else None
        params = self.params
        if params is None:
            params = 8 * target.total_bytes / BITS_A_NUMBER if target.total_bytes else 0.0
        build = self.build

        def overhead(program: bytes) -> int:
            return 0 if program in self.programs else program_bytes([program])

        task = SegmentTask(
            samples, geometry, lambda sizes: build(sizes, params), total, self.effort, seed, self._index, overhead
        )
        coded, figures = encode_segment(task, on_unit, kept=kept, keep=keep)
        return replace(coded, stages=vars(figures))

    def _index(self, program: bytes) -> int:
        if program not in self.programs:
            self.programs.append(program)
        return self.programs.index(program)


def _maker(module: Module) -> Callable[[Sizes, float], nn.Module]:
    if isinstance(module, nn.Module):
        return lambda sizes, params: deepcopy(module)
    return lambda sizes, params: module(sizes)
