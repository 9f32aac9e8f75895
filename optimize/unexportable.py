"""Names the operator and the layer that keep a module from being exported; called by optimize.onnx_export.

The one invariant: whatever the exporter raises becomes one EngineFailed of one line, which names the layer where
it can be known.
"""

import re
import traceback
from collections.abc import Iterator
from functools import lru_cache
from typing import TYPE_CHECKING, Final

from torch import fx, nn
from torch._ops import OpOverload
from torch.export import ExportedProgram
from torch.onnx._internal.exporter import _decomp, _errors, _registration

from serving.errors import EngineFailed, foreign_text

if TYPE_CHECKING:
    import onnx_ir

FIX: Final = "declare one of the fixes, or wrap the part so that it does without"
OLDEST_OPSET: Final = 18
"""Of the exporter's translations; for older ones it converts the finished graph."""


def check_operators(program: ExportedProgram, opset: int) -> None:
    """Look for operators that have no translation and are not made of others.

    Raises:
        EngineFailed: names the first, its layer, and how many there are.
    """
    known = _translatable(max(opset, OLDEST_OPSET))
    calls = _calls(program.graph_module)
    found = [call for call in calls if call[0].target not in known and not _is_made_of(call[0].target)]
    if found:
        more = f", and {len(found) - 1} more" if len(found) > 1 else ""
        raise EngineFailed(f"{_described(*found[0])} has no translation to ONNX{more}", field="export", fix=FIX)


def failure(error: Exception, module: nn.Module) -> EngineFailed:
    """The error for what capturing or translating ``module`` raised."""
    root, node = list(_chain(error))[-1], _node(error)
    where = _layer(error, module) if node is None else _described(node)
    untranslated = isinstance(root, _errors.DispatchError)
    what = "has no translation to ONNX" if untranslated else f"cannot be exported: {foreign_text(root)}"
    return EngineFailed(f"{where} {what}", field="export", fix=FIX)


def invalid(error: Exception, model: "onnx_ir.Model") -> EngineFailed:
    """The error for a ``model`` that ONNX's checker refused: the first node that its message names, and its layer."""
    words = set(re.findall(r"\w+", str(error)))
    origins = (node.meta.get("node") for node in model.graph if node.name in words)
    origin = next((node for node in origins if isinstance(node, fx.Node)), None)
    where = "" if origin is None else f" of {_described(origin)}"
    return EngineFailed(f"the exporter made invalid ONNX{where}: {foreign_text(error)}", field="export", fix=FIX)


def _calls(graph_module: fx.GraphModule, caller: fx.Node | None = None) -> Iterator[tuple[fx.Node, fx.Node]]:
    """Calls of torch's operators and the nodes that tell their layers: in a loop's body, those are the loop."""
    for node in graph_module.graph.nodes:
        if isinstance(node.target, OpOverload):
            yield node, caller or node
        for argument in node.all_input_nodes:
            body = getattr(graph_module, argument.target) if argument.op == "get_attr" else None
            if isinstance(body, fx.GraphModule):
                yield from _calls(body, caller or node)


@lru_cache
def _translatable(opset: int) -> frozenset[object]:
    """Operators that the exporter translates, takes apart into others, or drops."""
    registry = _registration.ONNXRegistry().from_torchlib(opset_version=opset)
    overloads = set(_decomp.get_onnx_implemented_overloads(registry))
    return frozenset(overloads | _decomp.create_onnx_friendly_decomposition_table(overloads).keys())


def _is_made_of(operator: object) -> bool:
    """Whether torch itself composes the operator of others, works in place (which torch undoes), or only asserts."""
    if not isinstance(operator, OpOverload):
        return False
    return (
        operator._can_decompose()
        or operator._schema.is_mutable
        or any(word in str(operator) for word in ("assert", "constrain"))
    )


def _described(node: fx.Node, place: fx.Node | None = None) -> str:
    """``aten.fft_fft.default in decoder.vocoder.stft (Stft)``; the layer is that of ``place``, or the node's own."""
    target = str(node.target)
    stack = list((place or node).meta.get("nn_module_stack", {}).values())
    if not stack:
        return target
    path, kind = stack[-1]
    layer = path.partition("@")[0] or "the module itself"
    return f"{target} in {layer} ({str(kind).rpartition('.')[2]})"


def _chain(error: BaseException) -> Iterator[BaseException]:
    """The error and its causes, the first cause last."""
    current: BaseException | None = error
    while current is not None:
        yield current
        current = current.__cause__


def _locals(error: BaseException, name: str) -> Iterator[object]:
    """What ``name`` stands for in the frames that the error and its causes passed, the innermost first."""
    for link in reversed(list(_chain(error))):
        frames = [frame for frame, _ in traceback.walk_tb(link.__traceback__)]
        yield from (frame.f_locals.get(name) for frame in reversed(frames))


def _node(error: BaseException) -> fx.Node | None:
    """The node that the exporter translated when it failed: its loop calls it so."""
    return next((value for value in _locals(error, "node") if isinstance(value, fx.Node)), None)


def _layer(error: BaseException, module: nn.Module) -> str:
    """The layer of ``module`` whose forward failed, as ``flow.wn.layers.3 (Conv1d)``; or ``the module itself``."""
    names = {id(part): name for name, part in module.named_modules()}
    inside = (value for value in _locals(error, "self") if isinstance(value, nn.Module) and names.get(id(value)))
    layer = next(inside, None)
    return "the module itself" if layer is None else f"{names[id(layer)]} ({type(layer).__name__})"
