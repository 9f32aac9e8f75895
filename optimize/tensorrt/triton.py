"""Triton's config.pbtxt and the card of a model of plans; written by whoever publishes what build_plan made.

The one invariant: of a configuration that is there only the lines that name plans are changed, so that a person's
settings and comments stay.
"""

import re
from pathlib import Path
from typing import Final

import yaml
from google.protobuf import text_format
from tritonclient.grpc import model_config_pb2 as pb

from optimize.publish import replace_text
from optimize.recipe import BATCH
from optimize.triton_config import TRITON_TYPES
from serving.errors import BadInput
from serving.repository.model import TENSOR_TASK, ModelCard, Share, Source
from serving.repository.plan_file import PlanFile, PlanTensor

PLATFORM: Final = "tensorrt_plan"
QUEUE_SIZE: Final = 1024
"""Bound of the queue, as the default of ``limits.queued_per_model``: Triton's own has none."""
_TYPES: Final = {**TRITON_TYPES, "bfloat16": "TYPE_BF16"}
_ENTRY: Final = 'cc_model_filenames {{ key: "{}" value: "{}" }}'
_KEPT_PRECISIONS: Final = ("fp32", "fp16", "bf16", "int8")


def render(name: str, made: PlanFile) -> str:
    """A whole config.pbtxt.

    Args:
        name: of the model.
        made: the plan to serve; its compute capability leads to its file.

    Raises:
        BadInput: a tensor has no axis, which Triton cannot configure without batches.
    """
    batch = max_batch(made)
    config = pb.ModelConfig(name=name, platform=PLATFORM, max_batch_size=batch)
    for entries, tensors in ((config.input, made.inputs), (config.output, made.outputs)):
        for tensor in tensors:
            entry = entries.add(name=tensor.name, data_type=pb.DataType.Value(_types(tensor)))
            entry.dims.extend(_dims(tensor, batch))
            if batch and len(tensor.axes) == 1:
                entry.reshape.SetInParent()
    group = config.instance_group.add(kind=pb.ModelInstanceGroup.KIND_GPU, count=1)
    if len(made.profiles) > 1:
        group.profile.extend(str(index) for index in range(len(made.profiles)))
    if batch:
        config.dynamic_batching.default_queue_policy.max_queue_size = QUEUE_SIZE
    return f"{text_format.MessageToString(config)}{_entry(made)}\n"


def write_config(folder: Path, made: PlanFile) -> None:
    """Make a model's config.pbtxt, or let the one that is there name the plan for its compute capability.

    Args:
        folder: of the model, ``<repository>/<model>_<part>_trt``.
        made: the plan to serve.

    Raises:
        BadInput: the configuration that is there declares other tensors, or cannot be read.
    """
    file = folder / "config.pbtxt"
    if not file.exists():
        folder.mkdir(parents=True, exist_ok=True)
        replace_text(file, render(folder.name, made))
        return
    text = file.read_text(encoding="utf-8")
    _check(file, text, made)
    capability = re.escape(made.compute_capability)
    line = re.compile(rf'^cc_model_filenames {{ key: "{capability}" value: "[^"]*" }}$', re.M)
    entry = _entry(made)
    changed = line.sub(entry, text) if line.search(text) else f"{text.rstrip()}\n{entry}\n"
    if changed != text:
        replace_text(file, changed)


def card(of: ModelCard, made: PlanFile, model: str, part: str) -> str:
    """The text of a model.yaml for plans: served where somebody asks for it, under the terms of the weights.

    Args:
        of: card of the model that the part belongs to.
        made: the plan.
        model: that model's name.
        part: the part's name.
    """
    found = ModelCard(
        description=f"{part} of {model} as TensorRT plans, built on the GPUs that run them",
        task=TENSOR_TASK,
        backend="triton",
        engine=TENSOR_TASK,
        license=of.license,
        source=Source(uri=f"export:{model}", revision=of.source.revision),
        precision=made.precision if made.precision in _KEPT_PRECISIONS else "none",
        share=Share(gpu=of.share.gpu or 1),
        optional=True,
    )
    return yaml.safe_dump(found.model_dump(exclude_defaults=True), sort_keys=False, allow_unicode=True, width=100)


def max_batch(made: PlanFile) -> int:
    """Triton's ``max_batch_size``: of the largest profile where every tensor leads with the axis ``batch``, else 0."""
    tensors = (*made.inputs, *made.outputs)
    if any(tensor.axes[:1] != (BATCH,) for tensor in tensors):
        return 0
    return max(profile[made.inputs[0].name].max[0] for profile in made.profiles)


def _dims(tensor: PlanTensor, batch: int) -> list[int]:
    axes = tensor.axes[1:] if batch else tensor.axes
    if not tensor.axes:
        raise BadInput("has no axis", field=tensor.name, fix="take it with an axis of 1: Triton serves no scalars")
    return [axis if isinstance(axis, int) else -1 for axis in axes or (1,)]


def _types(tensor: PlanTensor) -> str:
    if tensor.dtype not in _TYPES:
        raise BadInput(f"Triton has no {tensor.dtype}", field=tensor.name, fix=f"use one of {', '.join(_TYPES)}")
    return _TYPES[tensor.dtype]


def _entry(made: PlanFile) -> str:
    return _ENTRY.format(made.compute_capability, made.plan)


def _check(file: Path, text: str, made: PlanFile) -> None:
    fix = "correct it, or remove it and it is written anew"
    try:
        there = text_format.Parse(text, pb.ModelConfig())
    except text_format.ParseError as error:
        raise BadInput(f"is no configuration: {error}", field=str(file), fix=fix) from error
    batch = max_batch(made)
    wanted = [(one.name, _types(one), _dims(one, batch)) for one in (*made.inputs, *made.outputs)]
    written = [(one.name, pb.DataType.Name(one.data_type), list(one.dims)) for one in (*there.input, *there.output)]
    # A person may lower the largest batch; Triton refuses a larger one than the profiles take.
    lowest = 1 if batch else 0
    if written != wanted or not lowest <= there.max_batch_size <= batch:
        problem = f"declares {written} with max_batch_size {there.max_batch_size}, the plan has {wanted} with {batch}"
        raise BadInput(problem, field=str(file), fix=fix)
