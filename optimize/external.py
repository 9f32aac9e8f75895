"""Weights beside an ONNX file: writes those of large models one by one, and checks files that come from elsewhere.

The one invariant: no tensor is copied as a whole: each goes from where it lies (memory, or a mapped file of
weights) to the data file, so that a model of any size is written in the memory that it takes anyway.
"""

import math
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Final

from optimize.canonical import save_canonical
from serving.errors import BadInput, foreign_text, shown

if TYPE_CHECKING:
    import onnx_ir
    from onnx import GraphProto, ModelProto, TensorProto

EXTERNAL_ABOVE_BYTES: Final = 128 * 1024**2
"""Weights above this go to a data file. Below, a model is one file, and takes about four times its weights to write."""
SMALL_BYTES: Final = 1024
"""Tensors up to this stay in the graph: shapes and scalars, which ONNX Runtime needs to fold constants."""
ALIGNMENT_BYTES: Final = 4096
"""Offsets of tensors over 1 MiB: a page, so that runtimes map them."""
PROTOBUF_BYTES: Final = 2**31 - 1
"""The longest message that protobuf reads."""


def data_file(path: Path) -> Path:
    """Where the weights of the ONNX file ``path`` lie, if they are not in it."""
    return path.with_name(f"{path.name}.data")


def size_with_data(path: Path) -> int:
    """Bytes of an ONNX file and of its external data, if it has any."""
    return sum(file.stat().st_size for file in (path, data_file(path)) if file.is_file())


def weight_bytes(model: "onnx_ir.Model") -> int:
    """Size of all initializers."""
    return sum(value.const_value.nbytes for value in model.graph.initializers.values() if value.const_value is not None)


def save(
    model: "onnx_ir.Model",
    path: Path,
    *,
    external_above: int = EXTERNAL_ABOVE_BYTES,
    notify: Callable[[str], None] = lambda step: None,
) -> bool:
    """Write ``model`` in canonical form; whether its weights went to :func:`data_file`.

    Args:
        model: its tensors may be lazy. They are sorted by name and, once written, replaced by references.
        path: the ``.onnx`` file.
        external_above: bytes of weights.
        notify: told ``write 3/120`` after each tensor that went to the data file.

    Raises:
        onnx.checker.ValidationError: the model is not ONNX; neither file is left.
    """
    import onnx_ir

    ordered = sorted(model.graph.initializers.items())
    model.graph.initializers.clear()
    model.graph.initializers.update(ordered)
    data = data_file(path)
    data.unlink(missing_ok=True)
    try:
        if weight_bytes(model) > external_above:
            onnx_ir.external_data.unload_from_model(
                model,
                path.parent,
                data.name,
                size_threshold_bytes=SMALL_BYTES,
                alignment=ALIGNMENT_BYTES,
                callback=lambda tensor, info: notify(f"write {info.index + 1}/{info.total}"),
            )
        save_canonical(onnx_ir.to_proto(model), path)
    except BaseException:
        data.unlink(missing_ok=True)
        raise
    return data.is_file()


def check_file(path: Path) -> tuple[Path, ...]:
    """Check that an ONNX file can be loaded, without reading any weights; the data files that it names.

    Raises:
        BadInput: it is missing, no ONNX, over 2 GB without external data, or names data that is missing, shorter
            than the graph says, or outside its folder.
    """
    if not path.is_file():
        raise BadInput("is not there", field=str(path), fix="export the part again")
    size = path.stat().st_size
    if size > PROTOBUF_BYTES:
        raise BadInput(
            f"holds {size / 1e9:.1f} GB: protobuf reads 2 GB, so its weights must lie beside it",
            field=str(path),
            fix="save it with external data: onnx.save(model, path, save_as_external_data=True)",
        )
    folder = path.parent.resolve()
    files = {_check_tensor(path, folder, tensor) for tensor in _external_tensors(_parse(path).graph)}
    return tuple(sorted(files))


def _parse(path: Path) -> "ModelProto":
    import onnx

    try:
        model = onnx.load(path, load_external_data=False)
    except Exception as error:
        raise BadInput(f"is no ONNX: {foreign_text(error)}", field=str(path), fix="export the part again") from error
    if not model.graph.node:
        raise BadInput("is no ONNX: it has no graph", field=str(path), fix="export the part again")
    return model


def _external_tensors(graph: "GraphProto") -> Iterator["TensorProto"]:
    from onnx import external_data_helper

    tensors = [*graph.initializer, *(attribute.t for node in graph.node for attribute in node.attribute)]
    yield from filter(external_data_helper.uses_external_data, tensors)
    for node in graph.node:
        for attribute in node.attribute:
            if attribute.HasField("g"):
                yield from _external_tensors(attribute.g)


def _check_tensor(path: Path, folder: Path, tensor: "TensorProto") -> Path:
    entries = {entry.key: entry.value for entry in tensor.external_data}
    location = entries.get("location", "")
    file = (folder / location).resolve()
    if not location or folder not in file.parents:
        raise BadInput(
            f"tensor {tensor.name!r} names data outside the model's folder: {location[:128]!r}",
            field=str(path),
            fix="keep the data file beside the model",
        )
    if not file.is_file():
        raise BadInput(
            f"the weights are missing: tensor {tensor.name!r} lies in {location}",
            field=str(path),
            fix=f"copy {location} beside it: both files make the model",
        )
    start, length = _place(path, tensor, entries)
    if file.stat().st_size < start + length:
        raise BadInput(
            f"{location} has {file.stat().st_size} bytes, tensor {tensor.name!r} ends at {start + length}: "
            "it was cut short",
            field=str(path),
            fix=f"copy {location} again",
        )
    return file


def _place(path: Path, tensor: "TensorProto", entries: Mapping[str, str]) -> tuple[int, int]:
    """Offset and length in bytes."""
    from onnx_ir import DataType

    needed = math.ceil(math.prod(tensor.dims) * DataType(tensor.data_type).bitwidth / 8)
    try:
        start, length = int(entries.get("offset", 0)), int(entries.get("length", needed))
    except ValueError:
        start, length = -1, -1
    if start < 0 or length != needed:
        written = {key: entries[key] for key in ("offset", "length") if key in entries}
        problem = f"tensor {tensor.name!r} lies at {shown(written)}, it has {needed} bytes"
        raise BadInput(problem, field=str(path), fix="export the part again")
    return start, length
