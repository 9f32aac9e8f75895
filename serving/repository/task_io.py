"""Checks that a Ray model's config.pbtxt declares the tensors its typed task implies; used by repository.checks.

The one invariant: the expected tensors come from serving.protocol.task_tensors, as do those a replica answers with.
"""

from collections.abc import Iterator, Sequence

from tritonclient.grpc.model_config_pb2 import DataType, ModelConfig, ModelInput, ModelOutput

from serving.protocol.task_tensors import config_inputs, config_outputs
from serving.protocol.tasks import TASKS
from serving.repository.findings import Finding
from serving.repository.read import RawModel


def check_task_io(raw: RawModel, config: ModelConfig, task: str) -> Iterator[Finding]:
    """One finding per tensor that is missing, unknown or declared otherwise; nothing for an unknown task."""
    if task not in TASKS:
        return
    if config.max_batch_size != 0:
        fix = "set it to 0"
        yield _finding(raw, "max_batch_size", f"{config.max_batch_size}, but typed tasks are not batched", fix)
    yield from _compare(raw, "input", config.input, config_inputs(task))
    yield from _compare(raw, "output", config.output, config_outputs(task))


def _compare(
    raw: RawModel,
    kind: str,
    declared: Sequence[ModelInput] | Sequence[ModelOutput],
    expected: Sequence[ModelInput] | Sequence[ModelOutput],
) -> Iterator[Finding]:
    have = {tensor.name: tensor for tensor in declared}
    want = {tensor.name: tensor for tensor in expected}
    task_fix = f"`reelmesh models config {raw.name}` prints the whole file"
    missing = [name for name in want if name not in have]
    if missing:
        problem = f"the task's tensors {', '.join(missing)} are not declared"
        yield _finding(raw, kind, problem, task_fix)
    for name, tensor in have.items():
        if name not in want:
            yield _finding(raw, f"{kind}.{name}", f"the task has no such {kind}", task_fix, find=name)
        elif _shape(tensor) != _shape(want[name]):
            problem = f"declared as {_shape(tensor)}, but the task has {_shape(want[name])}"
            yield _finding(raw, f"{kind}.{name}", problem, task_fix, find=name)


def _shape(tensor: ModelInput | ModelOutput) -> str:
    optional = " optional" if isinstance(tensor, ModelInput) and tensor.optional else ""
    return f"{DataType.Name(tensor.data_type)} {list(tensor.dims)}{optional}"


def _finding(raw: RawModel, field: str, problem: str, fix: str, *, find: str = "") -> Finding:
    return Finding(raw.config_file, raw.config_line(find or field), field, problem, fix)
