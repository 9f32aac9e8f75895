"""Exports a torch module to ONNX: the one way in which recipes and parts do it.

The one invariant: equal modules, inputs and versions give equal bytes, and every axis that was declared dynamic
is dynamic in the file, or nothing is written.

In three steps: torch.export captures the module (with the fixes around it), torch.onnx translates what was
captured, and optimize.external writes it. What has no translation is looked for between the first two, since
the second takes minutes for large graphs.
"""

import inspect
import logging
import re
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Final

import torch
from onnx.checker import ValidationError
from onnx.shape_inference import InferenceError
from torch import nn
from torch.export import Dim, ExportedProgram
from torch.export.graph_signature import OutputKind
from torch.fx.experimental import _config as symbolic_shapes

from optimize.external import EXTERNAL_ABOVE_BYTES, save, size_with_data
from optimize.fixes import Fix, applied
from optimize.quick_matching import quick_matching
from optimize.unexportable import check_operators, failure, invalid
from serving.errors import BadInput, EngineFailed

if TYPE_CHECKING:
    import onnx_ir

Notify = Callable[[str], None]
Axes = Mapping[int, str]
"""Names of the dynamic axes of one tensor, by index."""

OPSET: Final = 20
EXPORTER: Final = "torch.onnx.export(dynamo=True)"
PACKAGES: Final = ("torch", "onnx", "onnxscript", "onnx-ir")
"""Whose versions decide the bytes."""


@dataclass(frozen=True)
class Exported:
    """What came of an export.

    Args:
        tools: versions of :data:`PACKAGES`, ``exporter``, ``opset``, and the fixes applied where there are any.
        fixes: names of the fixes that did something.
        bytes: of the ``.onnx`` file and its data.
        external: whether the weights lie in ``model.onnx.data``.
        outputs: the axes of each output as the file has them: a size, or the name of a dynamic one.
    """

    tools: Mapping[str, str]
    fixes: tuple[str, ...]
    bytes: int
    external: bool
    outputs: tuple[tuple[int | str, ...], ...]


@dataclass(frozen=True)
class Interface:
    """Names of the tensors of a file.

    Args:
        inputs, outputs: in the order in which the module takes and returns them.
        dynamic, output_axes: names of the dynamic axes of each.
    """

    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    dynamic: tuple[Axes, ...]
    output_axes: tuple[Axes, ...]


def export(
    module: nn.Module,
    inputs: Sequence[torch.Tensor],
    input_names: Sequence[str],
    output_names: Sequence[str],
    dynamic: Sequence[Axes],
    target: Path,
    *,
    output_axes: Sequence[Axes] = (),
    opset: int = OPSET,
    fixes: Sequence[Fix] = (),
    external_above: int = EXTERNAL_ABOVE_BYTES,
    notify: Notify = lambda step: None,
) -> Exported:
    """Export ``module`` at ``inputs``.

    Args:
        module: in eval mode, on the CPU. Takes tensors by position, returns one or a tuple, and keeps nothing.
        inputs: an example of each. Dynamic axes have sizes that differ where the axes do, and best at least 2: torch
            takes an axis of 1 for one that is broadcast.
        input_names: in the order of ``inputs``.
        output_names: in the order of what the module returns.
        dynamic: of each input, the names of its dynamic axes by index; the others are fixed at the example's size.
            Equal names mean equal sizes.
        target: the ``.onnx`` file; weights above ``external_above`` bytes go to ``<target>.data``.
        output_axes: as ``dynamic``, for outputs. What is not named gets what torch finds: a number, ``height``, or a
            formula such as ``2*frames + 1``; ``<output>_<axis>`` where the size depends on data.
        opset: of ONNX's own operators; 18 or newer.
        fixes: of :mod:`optimize.fixes`.
        external_above: see :func:`optimize.external.save`.
        notify: told ``capture``, ``translate``, ``write``, and then how far writing is.

    Raises:
        BadInput: names, inputs and axes do not fit together, or a layer is in training mode.
        EngineFailed: an operator or layer cannot be exported (which is named), an axis does not stay dynamic, or the
            module changes its own buffers. Nothing is written.
    """
    axes = tuple(output_axes) or tuple({} for _ in output_names)
    interface = Interface(tuple(input_names), tuple(output_names), tuple(dynamic), axes)
    _check(module, inputs, interface)
    model, done = _exported(module, inputs, interface, opset, fixes, notify)
    notify("write")
    try:
        external = save(model, target, external_above=external_above, notify=notify)
    except (ValidationError, InferenceError) as error:
        raise invalid(error, model) from error
    return Exported(_tools(opset, done), done, size_with_data(target), external, _output_axes(model))


def _exported(
    module: nn.Module,
    inputs: Sequence[torch.Tensor],
    interface: Interface,
    opset: int,
    fixes: Sequence[Fix],
    notify: Notify,
) -> tuple["onnx_ir.Model", tuple[str, ...]]:
    """The graph, whose tensors are those of the module, and the names of the fixes that did something."""
    with _quiet():
        notify("capture")
        with applied(fixes, module) as done:
            program = _capture(module, inputs, interface)
        _check_program(program, interface)
        check_operators(program, opset)
        notify("translate")
        model = _translate(module, program, opset)
    _name(model, program, interface)
    return model, tuple(sorted(done))


def _output_axes(model: "onnx_ir.Model") -> tuple[tuple[int | str, ...], ...]:
    return tuple(
        tuple(size if isinstance(size, int) else str(size.value) for size in output.shape or ())
        for output in model.graph.outputs
    )


def _tools(opset: int, fixes: Sequence[str]) -> dict[str, str]:
    versions = {package: metadata.version(package) for package in PACKAGES}
    tools = {**versions, "exporter": EXPORTER, "opset": str(opset)}
    return {**tools, "fixes": ", ".join(fixes)} if fixes else tools


def _check(module: nn.Module, inputs: Sequence[torch.Tensor], interface: Interface) -> None:
    """BadInput on what would otherwise fail in the middle, or silently export something else."""
    if not len(inputs) == len(interface.inputs) == len(interface.dynamic):
        counts = f"{len(inputs)} inputs, {len(interface.inputs)} names, axes of {len(interface.dynamic)}"
        raise BadInput(counts, field="inputs", fix="give one name and one mapping of axes to each input")
    if len(interface.output_axes) != len(interface.outputs):
        counts = f"{len(interface.outputs)} outputs, axes of {len(interface.output_axes)}"
        raise BadInput(counts, field="outputs", fix="give one mapping of axes to each output, or none at all")
    names = (*interface.inputs, *interface.outputs)
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise BadInput(f"named twice: {', '.join(twice)}", field="names", fix="give every tensor its own name")
    for name, value, axes in zip(interface.inputs, inputs, interface.dynamic, strict=True):
        if wrong := [axis for axis in axes if not 0 <= axis < value.ndim]:
            raise BadInput(f"{value.ndim} axes, none is {wrong[0]}", field=name, fix="correct the dynamic axes")
    leaves = [
        name or "the module" for name, part in module.named_modules() if part.training and not any(part.children())
    ]
    if leaves:
        raise BadInput(f"{leaves[0]} is in training mode", field="module", fix="call eval() before exporting")


@contextmanager
def _quiet() -> Iterator[None]:
    """Without the exporter's many warnings: what matters is checked here and by the gates."""
    loggers = {logger: logger.level for logger in map(logging.getLogger, ("torch.onnx", "onnxscript"))}
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        for logger, level in loggers.items():
            logger.setLevel(level)


def _capture(module: nn.Module, inputs: Sequence[torch.Tensor], interface: Interface) -> ExportedProgram:
    """All calls of torch that ``module`` makes at ``inputs``, with symbols for the sizes of dynamic axes.

    The sizes are ``Dim.AUTO``, with which torch fixes those that cannot vary instead of failing with pages of
    constraints; :func:`_check_program` tells which. As in the ONNX exporter's own capture, sizes of 0 and 1 are
    no special ones, and what must hold for sizes is asserted (which export drops) instead of fixing them.
    """
    shapes = [dict.fromkeys(axes, Dim.AUTO) or None for axes in interface.dynamic]
    spec = inspect.signature(module.forward).bind(*shapes).arguments
    try:
        with torch.no_grad(), symbolic_shapes.patch(backed_size_oblivious=True):  # type: ignore[attr-defined]
            return torch.export.export(
                module,
                tuple(inputs),
                dynamic_shapes=dict(spec),
                strict=False,
                prefer_deferred_runtime_asserts_over_guards=True,
            )
    except Exception as error:
        raise failure(error, module) from error


def _check_program(program: ExportedProgram, interface: Interface) -> None:
    """EngineFailed where what was captured is not what was declared."""
    values = {node.name: node.meta["val"] for node in program.graph.nodes if node.op == "placeholder"}
    fixed = {str(size): bounds.lower for size, bounds in program.range_constraints.items() if bounds.is_singleton()}
    for source, name, axes in zip(
        program.graph_signature.user_inputs, interface.inputs, interface.dynamic, strict=True
    ):
        for axis, label in axes.items():
            size = str(values[str(source)].shape[axis])
            if size.isdecimal() or size in fixed:
                problem = f"axis {label} of {name} was specialised to {fixed.get(size, size)}"
                raise EngineFailed(problem, field="export", fix="declare it static")
    found = program.graph_signature.user_outputs
    if len(found) != len(interface.outputs) or not all(isinstance(name, str) for name in found):
        problem = f"the module returns {found}, {len(interface.outputs)} are named"
        raise EngineFailed(problem, field="export", fix="return tensors only, and name each")


def _translate(module: nn.Module, program: ExportedProgram, opset: int) -> "onnx_ir.Model":
    try:
        # Without gradients as in the capture: else attention may be taken apart otherwise, with other strides.
        with torch.no_grad(), quick_matching():
            translated = torch.onnx.export(program, (), dynamo=True, opset_version=opset, verbose=False)
    except Exception as error:
        raise failure(error, module) from error
    if translated is None:
        raise EngineFailed("torch.onnx.export gave nothing", field="export")
    specs = () if translated.exported_program is None else translated.exported_program.graph_signature.output_specs
    if changed := [spec.target for spec in specs if spec.kind == OutputKind.BUFFER_MUTATION]:
        fix = "give what it keeps as an input and return it as an output"
        raise EngineFailed(f"the module changes its buffer {changed[0]}", field="export", fix=fix)
    return translated.model


def _name(model: "onnx_ir.Model", program: ExportedProgram, interface: Interface) -> None:
    """Give inputs, outputs and their axes their names, and drop what the exporter returns beyond them."""
    import onnx_ir
    from onnx_ir.passes.common import OutputFixPass

    del model.graph.outputs[len(interface.outputs) :]
    OutputFixPass()(model)
    shapes = {
        node.name: node.meta["val"].shape for node in program.graph.nodes if hasattr(node.meta.get("val"), "shape")
    }
    signature = program.graph_signature
    symbols: dict[str, str] = {}
    for value, name, axes, source in zip(
        model.graph.inputs, interface.inputs, interface.dynamic, signature.user_inputs, strict=True
    ):
        value.name = name
        value.shape = onnx_ir.Shape([axes.get(axis, size) for axis, size in enumerate(shapes[str(source)])])
        for axis, label in axes.items():
            symbols.setdefault(str(shapes[str(source)][axis]), label)
    for value, name, axes, source in zip(
        model.graph.outputs, interface.outputs, interface.output_axes, signature.user_outputs, strict=True
    ):
        value.name = name
        sizes = [_size(size, symbols, axes.get(axis)) for axis, size in enumerate(shapes[str(source)])]
        value.shape = onnx_ir.Shape([f"{name}_{axis}" if size is None else size for axis, size in enumerate(sizes)])


def _size(size: int | torch.SymInt, symbols: Mapping[str, str], named: str | None) -> int | str | None:
    """A fixed size, the axis's name, or the formula in the names of the inputs' axes; None if it rests on data."""
    formula = str(size)
    if formula.isdecimal():
        return int(formula)
    known = all(symbol in symbols for symbol in _SYMBOL.findall(formula))
    return named or (_SYMBOL.sub(lambda match: symbols[match[0]], formula) if known else None)


_SYMBOL: Final = re.compile(r"\b[su]\d+\b")
"""As torch names sizes: s77 that of an input, u0 one that depends on data."""
