"""What config.pbtxt says of a model's sequences: the control tensors and states its requests get; read by Sequences.

The one invariant: pure functions; a model sees the same control tensors that Triton's sequence batcher would add.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from math import prod
from typing import Final

import numpy as np
from tritonclient.grpc import model_config_pb2 as pb

from serving.errors import BadInput
from serving.protocol.oip import DATATYPES, InferRequest, Parameter, RequestedOutput, Tensor
from serving.protocol.oip_config import DATATYPE_OF_CONFIG

_IDLE_S: Final = 1.0
_MICROSECONDS: Final = 1e-6
_KINDS: Final = pb.ModelSequenceBatching.Control


@dataclass(frozen=True, slots=True)
class Flag:
    """One control tensor that is false or true: for START, END or READY."""

    name: str
    kind: int
    datatype: str
    false: bytes
    true: bytes


@dataclass(frozen=True, slots=True)
class State:
    """One tensor that the model gives out with one request and gets back with the sequence's next."""

    input: str
    output: str
    datatype: str
    dims: tuple[int, ...]

    def initial(self, batch: tuple[int, ...]) -> Tensor:
        """Zeros, or empty elements."""
        shape = (*batch, *(1 if size < 0 else size for size in self.dims))
        size = DATATYPES[self.datatype].size_bytes
        # An empty BYTES element is its length alone: four zero bytes.
        return Tensor(self.input, self.datatype, shape, bytes(prod(shape) * (4 if size is None else size)))


@dataclass(frozen=True, slots=True)
class SequenceRules:
    """How requests of one sequence belong together.

    Args:
        model: its name.
        batched: whether tensors have a batch dimension.
        idle_s: how long a sequence lives without a request.
        slots: sequences that are worked on at a time; more wait for one of them to end.
        flags: control tensors that are false or true.
        ids: control tensors that hold the sequence's id: name and datatype.
        states: implicit state.
        outputs: the model's own outputs.
    """

    model: str
    batched: bool
    idle_s: float
    slots: int
    flags: tuple[Flag, ...]
    ids: tuple[tuple[str, str], ...]
    states: tuple[State, ...]
    outputs: tuple[str, ...]

    def sequence_of(self, request: InferRequest) -> Parameter:
        """The sequence's id; raises :class:`BadInput` when there is none."""
        sequence = request.parameters.get("sequence_id", 0)
        if not sequence:
            raise BadInput(
                f"inference request to model '{self.model}' must specify a non-zero or non-empty correlation ID",
                field="sequence_id",
            )
        return sequence

    def prepared(self, request: InferRequest, states: Mapping[str, Tensor]) -> InferRequest:
        """The request as the model sees it: with control tensors and states.

        Args:
            request: as checked.
            states: those of the sequence so far, by input; what is missing starts as zeros.
        """
        batch = (request.inputs[0].shape[0],) if self.batched and request.inputs else ()
        extra = [self._flag(flag, request, batch) for flag in self.flags]
        extra += [self._id(name, datatype, request, batch) for name, datatype in self.ids]
        extra += [states.get(state.input) or state.initial(batch) for state in self.states]
        outputs = request.outputs
        if self.states:
            outputs = outputs or tuple(map(RequestedOutput, self.outputs))
            wanted = {output.name for output in outputs}
            outputs += tuple(RequestedOutput(state.output) for state in self.states if state.output not in wanted)
        return InferRequest(
            request.model_name,
            request.model_version,
            request.id,
            request.parameters,
            (*request.inputs, *extra),
            outputs,
            request.deadline_unix_s,
        )

    def _flag(self, flag: Flag, request: InferRequest, batch: tuple[int, ...]) -> Tensor:
        told = {
            _KINDS.CONTROL_SEQUENCE_START: bool(request.parameters.get("sequence_start")),
            _KINDS.CONTROL_SEQUENCE_END: bool(request.parameters.get("sequence_end")),
        }
        value = flag.true if told.get(flag.kind, True) else flag.false
        return Tensor(flag.name, flag.datatype, (*batch, 1), value * prod(batch))

    def _id(self, name: str, datatype: str, request: InferRequest, batch: tuple[int, ...]) -> Tensor:
        sequence = self.sequence_of(request)
        if datatype == "BYTES":
            return Tensor.from_elements(name, [str(sequence).encode()] * prod(batch), (*batch, 1))
        if isinstance(sequence, str):
            raise BadInput(
                f"model '{self.model}' takes correlation IDs of type {datatype}, not strings", field="sequence_id"
            )
        try:
            values = np.full((*batch, 1), int(sequence), DATATYPES[datatype].numpy)
        except OverflowError:
            raise BadInput(f"{sequence} does not fit {datatype}", field="sequence_id") from None
        return Tensor(name, datatype, values.shape, values.tobytes())


def sequence_rules_of(config: pb.ModelConfig) -> SequenceRules:
    """Read a configuration that has ``sequence_batching``; raises :class:`BadInput` for what cannot be served."""
    batching = config.sequence_batching
    flags, ids = [], []
    for entry in batching.control_input:
        for control in entry.control:
            if control.kind == _KINDS.CONTROL_SEQUENCE_CORRID:
                ids.append((entry.name, _datatype(config, control.data_type)))
            else:
                flags.append(_flag_of(config, entry.name, control))
    instances = max(1, sum(max(1, group.count) for group in config.instance_group))
    each = batching.oldest.max_candidate_sequences if batching.HasField("oldest") else config.max_batch_size
    return SequenceRules(
        model=config.name,
        batched=config.max_batch_size > 0,
        idle_s=batching.max_sequence_idle_microseconds * _MICROSECONDS or _IDLE_S,
        slots=instances * max(1, each),
        flags=tuple(flags),
        ids=tuple(ids),
        states=tuple(_state_of(config, state) for state in batching.state),
        outputs=tuple(output.name for output in config.output),
    )


def _flag_of(config: pb.ModelConfig, name: str, control: pb.ModelSequenceBatching.Control) -> Flag:
    given = {
        "INT32": control.int32_false_true,
        "FP32": control.fp32_false_true,
        "BOOL": control.bool_false_true,
    }
    for datatype, values in given.items():
        if len(values) == 2:  # noqa: PLR2004  false and true
            false, true = (np.array(value, DATATYPES[datatype].numpy).tobytes() for value in values)
            return Flag(name, control.kind, datatype, false, true)
    raise BadInput(
        f"the control tensor '{name}' needs int32_false_true, fp32_false_true or bool_false_true with two values",
        field=f"{config.name}/config.pbtxt:sequence_batching.control_input",
    )


def _state_of(config: pb.ModelConfig, state: pb.ModelSequenceBatching.State) -> State:
    if any(initial.data_file for initial in state.initial_state):
        raise BadInput(
            f"the state '{state.input_name}' starts from a file, which a Ray replica does not read",
            field=f"{config.name}/config.pbtxt:sequence_batching.state.initial_state",
            fix="use zero_data",
        )
    return State(state.input_name, state.output_name, _datatype(config, state.data_type), tuple(state.dims))


def _datatype(config: pb.ModelConfig, data_type: int) -> str:
    datatype = DATATYPE_OF_CONFIG.get(pb.DataType.Name(data_type))
    if datatype is None:
        raise BadInput("needs a data_type", field=f"{config.name}/config.pbtxt:sequence_batching")
    return datatype
