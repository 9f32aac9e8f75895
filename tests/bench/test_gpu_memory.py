"""The estimates of bench/gpu are what the networks keep alive at full size, counted tensor by tensor."""

from typing import Any

import pytest
import torch
from torch import Tensor
from torch.multiprocessing.reductions import StorageWeakRef
from torch.nn import functional as F  # noqa: N812
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_iter

from bench.gpu.networks import NAMES, network
from bench.gpu.worker import estimate_mib

FLOAT32_BYTES = 4


class Alive(TorchDispatchMode):
    """Counts the bytes that are alive after each operation, but for what was there before."""

    def __init__(self, before: list[Tensor]) -> None:
        super().__init__()
        self.before = {StorageWeakRef(each.untyped_storage()).cdata for each in before}
        self.alive: dict[int, tuple[StorageWeakRef, int]] = {}
        self.most = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        for tensor in tree_iter(out):
            if isinstance(tensor, Tensor):
                storage = tensor.untyped_storage()
                reference = StorageWeakRef(storage)
                if reference.cdata not in self.before:
                    self.alive.setdefault(reference.cdata, (reference, storage.nbytes()))
        self.alive = {key: told for key, told in self.alive.items() if not told[0].expired()}
        self.most = max(self.most, sum(size for _, size in self.alive.values()))
        return out


@pytest.mark.timeout(300)
@pytest.mark.parametrize("name", NAMES)
def test_the_estimate_is_what_a_full_network_keeps_alive(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    # On the meta device attention would be spelt out; on CUDA it is fused, and gives one tensor.
    monkeypatch.setattr(F, "scaled_dot_product_attention", lambda query, *_, **__: torch.empty_like(query))
    subject = network(name)
    with torch.device("meta"):
        made, inputs = subject.build().eval(), subject.inputs(subject.batch)
    alive = Alive([*made.parameters(), *made.buffers(), *inputs])
    with torch.no_grad(), alive:
        made(*inputs)
    assert FLOAT32_BYTES * subject.activations(subject.batch) == pytest.approx(alive.most, rel=0.02)


def test_the_estimate_grows_with_weights_and_batch() -> None:
    subject = network("sdxl")
    with torch.device("meta"):
        made = subject.build()
        one, four = (estimate_mib(subject, made, subject.inputs(batch)) for batch in (1, 4))
        half = estimate_mib(subject, made.half(), subject.inputs(1))
    assert 2567.46e6 * 4 / 2**20 < one < four
    assert half < one - 2567e6 * 2 / 2**20
