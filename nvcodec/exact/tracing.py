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
from nvcodec.exact.outputs import Correct, Store
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
        self.convolutions: dict[int, tuple[Conv2d, int]] = {}
        self._known: dict[Operation, Traced] = {}

    def add(self, operation: Operation, fraction: int, layer: ExactLayer | None = None, fraction_in: int = 0) -> Traced:
        if layer is None and operation in self._known:  # the same of the same
            return self._known[operation]
        shape = operation.shape([self.shapes[n] for n in operation.operands], self.sizes)
        made = Traced(len(self.nodes), shape, fraction)
        self.nodes.append(operation)
        self.shapes.append(shape)
        if isinstance(layer, Conv2d):
            self.convolutions[made.number] = (layer, fraction_in)
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
    called: set[nn.Module] = set()
    known: dict[fx.Node, Traced | None] = {}
    for node in graph.nodes:
        if node.op == "placeholder":
            known[node] = None
        elif node.op == "call_module":
            layer = module.get_submodule(str(node.target))
            if not isinstance(layer, ExactLayer):
                raise EncodeError(f"{node.target}: {type(layer).__name__} is not made of layers of nvcodec.exact")
            operands = _operands(node, layer, known, called)
            try:
                known[node] = layer.emit(builder, *operands)
            except BitstreamError as error:
                raise EncodeError(f"{node.target}: {error}") from None
        elif node.op == "output":
            _check_returned(module, node.args[0], known)
        else:
            name = str(getattr(node.target, "__name__", node.target))
            hint = f"; use the layer nvcodec.exact.{_HINTS[name]}" if name in _HINTS else ""
            raise EncodeError(f"{name}: a program is made of layers of nvcodec.exact alone{hint}")
    for name, layer in module.named_modules():
        if isinstance(layer, Latent | Conv2d) and layer not in called:
            raise EncodeError(f"{name}: nothing calls this {type(layer).__name__}")
    program = Program(bits, tuple(builder.nodes))
    latents = sorted((m for m in module.modules() if isinstance(m, Latent)), key=lambda latent: latent.level)
    try:
        program.check_structure()
        shapes = program.shapes(sizes)
        Program.parse(program.write())
    except BitstreamError as error:
        raise EncodeError(f"the module makes no program: {error}") from None
    return TracedProgram(program, shapes, builder.convolutions, tuple(latents))


def _operands(
    node: fx.Node, layer: ExactLayer, known: dict[fx.Node, Traced | None], called: set[nn.Module]
) -> list[Traced]:
    """What a layer is called with, one value behind the other; the frame is none."""
    if node.kwargs or not all(isinstance(argument, fx.Node) for argument in node.args):
        raise EncodeError(f"{node.target}: {type(layer).__name__} takes its operands one by one, without names")
    if layer in called and isinstance(layer, Latent | Conv2d):
        raise EncodeError(f"{node.target}: a {type(layer).__name__} is called once, its numbers stand in the file once")
    called.add(layer)
    return [made for argument in node.args if (made := known[argument]) is not None]  # type: ignore[index]


def _check_returned(module: nn.Module, returned: Any, known: dict[fx.Node, Traced | None]) -> None:
    """A dict of "samples" and, as many as there are such layers, "states" and "corrections"."""
    if not isinstance(returned, dict) or not isinstance(returned.get("samples"), fx.Node):
        raise EncodeError("forward returns no dict with what a Samples layer gave as 'samples'")
    for key, kind in (("states", Store), ("corrections", Correct)):
        given, layers = returned.get(key, ()), [m for m in module.modules() if isinstance(m, kind)]
        if not isinstance(given, list | tuple) or len(given) != len(layers):
            raise EncodeError(f"forward returns no tuple of {len(layers)} {key!r}, one of each {kind.__name__} layer")
    unknown = set(returned) - {"samples", "states", "corrections"}
    if unknown:
        raise EncodeError(f"forward returns {', '.join(map(repr, sorted(unknown)))}, which nobody looks at")


def _traced_graph(module: nn.Module) -> fx.Graph:
    try:
        return _Tracer().trace(module)
    except fx.proxy.TraceError as error:
        raise EncodeError(f"the module cannot be followed: it looks at the frame itself ({error})") from None
    except TypeError as error:
        raise EncodeError(f"the module cannot be followed: {error}") from None
