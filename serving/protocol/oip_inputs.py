"""Inputs: the inputs of one request while it is decoded; used by the decoders of both wires.

The one invariant: elements are counted, and shared memory is read, only for an input that the model has, of its
datatype and shape: neither is done for what would be refused anyway.
"""

from serving.protocol.oip import Parameters, Raw, Tensor
from serving.protocol.oip_config import RequestCheck
from serving.protocol.shared_memory import Regions, region_data


class Inputs:
    """What was decoded so far.

    Args:
        check: of the model; None where it is not known.
        regions: where inputs in shared memory lie; None refuses them.
    """

    def __init__(self, check: RequestCheck | None, regions: Regions | None) -> None:
        self.tensors: list[Tensor] = []
        self._check = check
        self._regions = regions

    def add(self, name: str, datatype: str, shape: tuple[int, ...], data: Raw, parameters: Parameters) -> None:
        """One whose data came with the request; raises :class:`BadInput`."""
        if datatype == "BYTES" and self._check is not None:
            self._check.declared(name, datatype, shape)
        self.tensors.append(Tensor(name, datatype, shape, data, parameters))

    def add_shared(self, name: str, datatype: str, shape: tuple[int, ...], parameters: Parameters) -> None:
        """One that lies in shared memory; raises as :meth:`Regions.input_data`."""
        if self._check is not None:
            self._check.declared(name, datatype, shape)
        data = region_data(self._regions, name, parameters, self.tensors)
        self.tensors.append(Tensor(name, datatype, shape, data, parameters))
