"""What a response's outputs become on their way out: classes, and bytes in shared memory; called by OipPlane.

The one invariant: an output is changed only where the request asks for it by the output's own parameters.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace

from serving.errors import Unsupported
from serving.protocol.oip import InferRequest, InferResponse, Parameters, Tensor
from serving.protocol.oip_classification import PARAMETER, classified
from serving.protocol.shared_memory import Regions, in_region

Labels = Mapping[str, Sequence[str]]


def with_outputs_as_asked(
    response: InferResponse, request: InferRequest, labels: Labels, regions: Regions | None, *, batched: bool
) -> InferResponse:
    """The response as the request's output parameters want it.

    Args:
        response: of the model.
        request: what was asked.
        labels: names of classes by output.
        regions: shared memory; None where there is none.
        batched: whether the model's first dimension is the batch.

    Raises:
        BadInput: an output has no classes, or does not fit where it shall go.
        NotFound: no such region.
        Unsupported: there is no shared memory here.
    """
    asked = {output.name: output.parameters for output in request.outputs if _changes(output.parameters)}
    if not asked:
        return response
    outputs = (
        _as_asked(tensor, asked[tensor.name], labels.get(tensor.name, ()), regions, batched)
        if tensor.name in asked
        else tensor
        for tensor in response.outputs
    )
    return replace(response, outputs=tuple(outputs))


def _changes(parameters: Parameters) -> bool:
    return bool(parameters) and (bool(parameters.get(PARAMETER)) or in_region(parameters))


def _as_asked(
    tensor: Tensor, parameters: Parameters, labels: Sequence[str], regions: Regions | None, batched: bool
) -> Tensor:
    if count := int(parameters.get(PARAMETER, 0)):
        tensor = classified(tensor, count, labels, batched=batched)
    if not in_region(parameters):
        return tensor
    if regions is None:
        raise Unsupported(f"shared memory is not supported for '{tensor.name}'", field=tensor.name)
    return regions.place_output(tensor, parameters)
