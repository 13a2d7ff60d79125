"""From a ``torch.nn.Module`` made of exact layers to a program of the exact machine.

``torch.fx`` follows one call of the module. Exact layers are its leaves; everything else that computes is refused, by
name. What a module may branch on is known when it is built, and nothing of a frame.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from torch import fx, nn

from nvcodec.core.errors import BitstreamError, EncodeError
from nvcodec.exact.convolution import Conv2d, ConvTensors
from nvcodec.exact.latents import Latent
from nvcodec.exact.layer import Builder, ExactLayer, Traced
from nvcodec.exact.operation import Operation, Shape, Sizes
from nvcodec.exact.program import Program

__all__ = ["TracedProgram", "place", "trace"]

_HINTS = {
    "add": "Add", "iadd": "Add", "sub": "Add", "mul": "Multiply", "cat": "Concat", "getitem": "Slice",
    "reshape": "Reshape", "view": "Reshape", "relu": "ReLU", "gelu": "GELU", "sin": "Sine", "tanh": "Tanh",
    "sigmoid": "Sigmoid", "interpolate": "Upsample", "pixel_shuffle": "PixelShuffle", "conv2d": "Conv2d",
}  # fmt: skip


@dataclass(frozen=True)
class TracedProgram:
    """``convolutions``: by node number, the layer and the fixed point of its operand. ``latents``: by level."""

    program: Program
    shapes: tuple[Shape, ...]
    convolutions: dict[int, tuple[Conv2d, int]]
    latents: tuple[Latent, ...]

    def tensors(self) -> dict[int, ConvTensors]:
        """The integers of all convolutions, as the layers are now."""
        return {number: layer.tensors(fraction) for number, (layer, fraction) in self.convolutions.items()}


class _Tracer(fx.Tracer):
    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        return isinstance(m, ExactLayer) or super().is_leaf_module(m, module_qualified_name)


class _Builder(Builder):
    def __init__(self, bits: int, sizes: Sizes) -> None:
        self.bits, self.sizes = bits, sizes
        self.nodes: list[Operation] = []
        self.shapes: list[Shape] = []
        self.fractions: list[int] = []
        self.convolutions: dict[int, tuple[Conv2d, int]] = {}
        self._known: dict[Operation, Traced] = {}

    def add(self, operation: Operation, fraction: int, layer: ExactLayer | None = None) -> Traced:
        if layer is None and operation in self._known:  # the same of the same
            return self._known[operation]
        shape = operation.shape([self.shapes[n] for n in operation.operands], self.sizes)
        made = Traced(len(self.nodes), shape, fraction)
        self.nodes.append(operation)
        self.shapes.append(shape)
        self.fractions.append(fraction)
        if isinstance(layer, Conv2d):
            self.convolutions[made.number] = (layer, self.fractions[operation.operands[0]])
        if layer is None:
            self._known[operation] = made
        return made


def place(module: nn.Module, sizes: Sizes) -> tuple[Latent, ...]:
    """Tell the layers of a module the size of the picture and how many frames there are; number its latents.

    Returns the latents by level; their values start from zero.
    """
    latents: list[Latent] = []
    for layer in module.modules():
        if isinstance(layer, Latent):
            layer.level = len(latents)
            latents.append(layer)
        for name, argument in (("allocate", sizes.frames), ("place", sizes)):
            act: Callable[[Any], None] | None = getattr(layer, name, None)
            if isinstance(layer, ExactLayer) and act is not None:
                act(argument)
    return tuple(latents)


def trace(module: nn.Module, sizes: Sizes, bits: int) -> TracedProgram:
    """The program that computes what ``module`` does, with the fixed points that its layers have.

    ``module(frame)`` takes a FrameInputs and gives what ``Samples``, ``Store`` and ``Correct`` layers gave.
    Raises EncodeError for what is no program.
    """
    graph = _traced_graph(module)
    builder = _Builder(bits, sizes)
    known: dict[fx.Node, Traced | None] = {}
    for node in graph.nodes:
        if node.op == "placeholder":
            known[node] = None
        elif node.op == "call_module":
            layer = module.get_submodule(str(node.target))
            if not isinstance(layer, ExactLayer):
                raise EncodeError(f"{node.target}: {type(layer).__name__} is not made of layers of nvcodec.exact")
            operands = [made for argument in node.args if (made := known[argument]) is not None]
            try:
                known[node] = layer.emit(builder, *operands)
            except BitstreamError as error:
                raise EncodeError(f"{node.target}: {error}") from None
        elif node.op != "output":
            name = str(getattr(node.target, "__name__", node.target))
            hint = f"; use the layer nvcodec.exact.{_HINTS[name]}" if name in _HINTS else ""
            raise EncodeError(f"{name}: a program is made of layers of nvcodec.exact alone{hint}")
    program = Program(bits, tuple(builder.nodes))
    latents = sorted((m for m in module.modules() if isinstance(m, Latent)), key=lambda latent: latent.level)
    try:
        program.check_structure()
        shapes = program.shapes(sizes)
        Program.parse(program.write())
    except BitstreamError as error:
        raise EncodeError(f"the module makes no program: {error}") from None
    return TracedProgram(program, shapes, builder.convolutions, tuple(latents))


def _traced_graph(module: nn.Module) -> fx.Graph:
    try:
        return _Tracer().trace(module)
    except fx.proxy.TraceError as error:
        raise EncodeError(f"the module cannot be followed: it looks at the frame itself ({error})") from None
    except TypeError as error:
        raise EncodeError(f"the module cannot be followed: {error}") from None
