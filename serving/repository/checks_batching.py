"""What Triton refuses in how a config.pbtxt batches requests and sequences; used by checks.

The one invariant: an error here is a refusal of tritonserver; what it loads and a person will regret is a warning.
"""

from collections.abc import Iterator
from typing import Final, TypeAlias

from tritonclient.grpc.model_config_pb2 import (
    DataType,
    ModelConfig,
    ModelDynamicBatching,
    ModelQueuePolicy,
    ModelSequenceBatching,
)

from serving.repository.findings import Finding
from serving.repository.places import at_config
from serving.repository.read import RawModel

_Control: TypeAlias = ModelSequenceBatching.Control
_PAIRS: Final = ("int32_false_true", "fp32_false_true", "bool_false_true")
_CORRELATION_TYPES: Final = (
    DataType.TYPE_UINT64, DataType.TYPE_INT64, DataType.TYPE_UINT32, DataType.TYPE_INT32, DataType.TYPE_STRING,
)  # fmt: skip


def check_batching(raw: RawModel, config: ModelConfig) -> Iterator[Finding]:
    """The largest batch, dynamic batching with its queues, sequence batching, the response cache."""
    if config.max_batch_size < 0:
        yield at_config(raw, "max_batch_size", "is negative", "use 0 for no batching")
    if config.HasField("dynamic_batching"):
        yield from _check_dynamic(raw, config, config.dynamic_batching)
    if config.HasField("sequence_batching"):
        yield from _check_sequences(raw, config, config.sequence_batching)
    if config.response_cache.enable and config.model_transaction_policy.decoupled:
        yield at_config(raw, "response_cache", "a decoupled model's answers are not cached", "remove it")


def _check_dynamic(raw: RawModel, config: ModelConfig, batching: ModelDynamicBatching) -> Iterator[Finding]:
    if config.max_batch_size == 0:
        fix = "set max_batch_size, or remove dynamic_batching"
        yield at_config(raw, "dynamic_batching", "has no effect while max_batch_size is 0", fix, warning=True)
    yield from _check_preferred(raw, "dynamic_batching", batching.preferred_batch_size, config.max_batch_size)
    yield from _check_priorities(raw, batching)
    policies = {f"priority_queue_policy[{index}]": batching.priority_queue_policy[level]
                for index, level in enumerate(sorted(batching.priority_queue_policy))}  # fmt: skip
    for name, policy in {"default_queue_policy": batching.default_queue_policy, **policies}.items():
        if batching.preserve_ordering and policy.timeout_action == ModelQueuePolicy.DELAY:
            field = f"dynamic_batching.{name}.timeout_action"
            yield at_config(raw, field, "is DELAY while preserve_ordering is true", "use REJECT")


def _check_preferred(raw: RawModel, where: str, sizes: Iterator[int], largest: int) -> Iterator[Finding]:
    for index, size in enumerate(sizes):
        field = f"{where}.preferred_batch_size[{index}]"
        if size < 1:
            yield at_config(raw, field, f"{size} is not positive", "use a size from 1 up")
        elif size > largest:
            fix = f"use at most {largest}" if largest > 0 else "set max_batch_size, or remove it"
            yield at_config(raw, field, f"{size} is over max_batch_size", fix)


def _check_priorities(raw: RawModel, batching: ModelDynamicBatching) -> Iterator[Finding]:
    levels, default = batching.priority_levels, batching.default_priority_level
    if not levels:
        if batching.priority_queue_policy:
            fix = "set priority_levels"
            field = "dynamic_batching.priority_queue_policy"
            yield at_config(raw, field, "has no effect without priority_levels", fix, warning=True)
        return
    if not 1 <= default <= levels:
        field = "dynamic_batching.default_priority_level"
        yield at_config(raw, field, f"{default} is not one of the {levels} levels", f"use 1 to {levels}")
    for level in sorted(batching.priority_queue_policy):
        if not 1 <= level <= levels:
            field = "dynamic_batching.priority_queue_policy"
            yield at_config(raw, field, f"{level} is not one of the {levels} levels", f"use 1 to {levels}")
    if batching.preserve_ordering and levels > 1:
        field = "dynamic_batching.preserve_ordering"
        yield at_config(raw, field, f"is true with {levels} priority levels", "use one level, or remove it")


def _check_sequences(raw: RawModel, config: ModelConfig, batching: ModelSequenceBatching) -> Iterator[Finding]:
    if batching.HasField("oldest"):
        sizes = batching.oldest.preferred_batch_size
        yield from _check_preferred(raw, "sequence_batching.oldest", sizes, config.max_batch_size)
    usage = batching.direct.minimum_slot_utilization
    if batching.HasField("direct") and not 0 <= usage <= 1:
        field = "sequence_batching.direct.minimum_slot_utilization"
        yield at_config(raw, field, f"{usage:g} is not between 0 and 1", "use a share, for example 0.5")
    names: set[str] = set()
    kinds: set[int] = set()
    for index, tensor in enumerate(batching.control_input):
        field = f"sequence_batching.control_input[{index}]"
        if tensor.control and not tensor.name:
            yield at_config(raw, f"{field}.name", "is empty", "name the tensor as the model does")
        elif tensor.name in names:
            yield at_config(raw, f"{field}.name", f"{tensor.name!r} is repeated", "use a tensor for each control")
        names.add(tensor.name)
        for control in tensor.control:
            yield from _check_control(raw, f"{field}.control", control, kinds)
    for index, state in enumerate(batching.state):
        for number, initial in enumerate(state.initial_state):
            if initial.WhichOneof("state_data") is None:
                field = f"sequence_batching.state[{index}].initial_state[{number}]"
                yield at_config(raw, field, "has no data", "set zero_data: true, or data_file")


def _check_control(raw: RawModel, field: str, control: _Control, kinds: set[int]) -> Iterator[Finding]:
    kind = _Control.Kind.Name(control.kind)
    if control.kind in kinds:
        yield at_config(raw, f"{field}.kind", f"{kind} is given twice", "keep one")
    kinds.add(control.kind)
    pairs = [name for name in _PAIRS if len(getattr(control, name))]
    if control.kind == _Control.CONTROL_SEQUENCE_CORRID:
        if pairs:
            yield at_config(raw, f"{field}.{pairs[0]}", f"{kind} has no false and true", "remove it")
        elif control.data_type not in _CORRELATION_TYPES:
            fix = f"use one of {', '.join(DataType.Name(each) for each in _CORRELATION_TYPES)}"
            yield at_config(raw, f"{field}.data_type", f"is {DataType.Name(control.data_type)}", fix)
    elif len(pairs) != 1:
        problem = f"{kind} has " + (f"all of {', '.join(pairs)}" if pairs else "no values for false and true")
        yield at_config(raw, field, problem, f"set one of {', '.join(_PAIRS)}, for example [0, 1]")
    elif len(getattr(control, pairs[0])) != len(("false", "true")):
        yield at_config(raw, f"{field}.{pairs[0]}", "does not have two entries", "write false first, then true: [0, 1]")
