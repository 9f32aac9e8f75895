"""OnnxEngine: an ONNX model of task ``tensor``, run by ONNX Runtime in the replica itself; loaded by Ray replicas.

The one invariant: a request fails for its own sake only; when a joined batch fails, each of its requests runs alone.
"""

import asyncio
import time
from collections.abc import AsyncIterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Final

import numpy as np

from serving.backends.base import EngineContext
from serving.backends.ray.engines.tensor_config import (
    Array,
    datatypes,
    instance_count,
    output_shapes,
    reshaped,
    reshapes,
    tensor_of,
)
from serving.backends.ray.engines.tensor_onnx_config import check_tensors, completed
from serving.backends.ray.engines.tensor_onnx_session import BF16, STRING, open_session, run
from serving.errors import BadInput, EngineFailed, ReelmeshError, Unsupported
from serving.protocol.oip import InferRequest, InferResponse
from serving.repository.model import Model

INLINE_S: Final = 0.0005
"""A batch expected to take less runs on the event loop: handing it to a thread and back would cost about as much."""
INLINE_BYTES: Final = 256 << 10
_MEMORY: Final = 0.9
"""Weight of the past in the running mean of what a batch takes."""

Feed = dict[str, Array]
Answer = InferResponse | ReelmeshError


class OnnxEngine:
    """One ONNX Runtime session, used by as many threads as ``instance_group`` counts.

    Attributes:
        config: config.pbtxt with what it leaves out completed from the file.
    """

    def __init__(self, model: Model, context: EngineContext) -> None:
        self._session = open_session(model.version_folder(), model.config, context.device)
        # Initializers that may be overridden are what ONNX has for optional inputs.
        inputs, outputs = self._session.get_inputs(), self._session.get_outputs()
        self.config = completed(model.config, inputs, outputs)
        self._batched = self.config.max_batch_size > 0
        every = [*inputs, *self._session.get_overridable_initializers()]
        check_tensors(model.name, "input", self.config.input, every, self._batched)
        check_tensors(model.name, "output", self.config.output, outputs, self._batched)
        self._name, self._version = model.name, model.version_folder().name
        self._inputs = tuple(tensor.name for tensor in self.config.input)
        self._outputs = tuple(tensor.name for tensor in self.config.output)
        self._datatypes = datatypes(self.config)
        self._inward, self._outward = reshapes(self.config, self.config.input), output_shapes(self.config)
        self._strings = {node.name for node in every if node.type == STRING}
        self._brain_floats = any(node.type == BF16 for node in (*every, *outputs))
        self._threads = ThreadPoolExecutor(instance_count(self.config), thread_name_prefix=f"onnx-{model.name}")
        self._mean_s = INLINE_S * 2

    async def execute(self, requests: Sequence[InferRequest]) -> Sequence[Answer]:
        """Answer a batch; alike requests are joined along the batch dimension."""
        if self._mean_s < INLINE_S and _bytes(requests) <= INLINE_BYTES:
            return self._timed(requests)
        return await asyncio.get_running_loop().run_in_executor(self._threads, self._timed, requests)

    def stream(self, request: InferRequest) -> AsyncIterator[InferResponse]:
        """An ONNX model answers once."""
        raise Unsupported(f"model '{self._name}' is not decoupled", field="model_transaction_policy")

    async def close(self) -> None:
        """Free the session once its threads are done."""
        await asyncio.to_thread(self._threads.shutdown)
        del self._session

    def _timed(self, requests: Sequence[InferRequest]) -> list[Answer]:
        began = time.perf_counter()
        try:
            return self._answer(requests)
        finally:
            self._mean_s = _MEMORY * self._mean_s + (1 - _MEMORY) * (time.perf_counter() - began)

    def _answer(self, requests: Sequence[InferRequest]) -> list[Answer]:
        feeds = [self._feed(request) for request in requests]
        answers: list[Answer] = [
            feed if isinstance(feed, ReelmeshError) else EngineFailed("was not run") for feed in feeds
        ]
        for places in alike(feeds) if self._batched else [[place] for place in range(len(feeds))]:
            chosen = [(requests[place], feed) for place in places if isinstance(feed := feeds[place], dict)]
            for place, answer in zip(places, self._answer_group(chosen), strict=False):
                answers[place] = answer
        return answers

    def _answer_group(self, group: list[tuple[InferRequest, Feed]]) -> list[Answer]:
        if len(group) == 1:
            return [self._answer_one(*group[0])]
        sizes = [next(iter(feed.values())).shape[0] for _, feed in group]
        names = [name for name in self._outputs if any(request.wants(name) for request, _ in group)]
        try:
            joined = {name: np.concatenate([feed[name] for _, feed in group]) for name in group[0][1]}
            outputs = dict(zip(names, run(self._session, names, joined, self._brain_floats), strict=True))
        except ReelmeshError:  # told to the request that caused it, below
            return [self._answer_one(request, feed) for request, feed in group]
        if any(array.ndim == 0 or array.shape[0] != sum(sizes) for array in outputs.values()):
            return [self._answer_one(request, feed) for request, feed in group]
        edges = np.cumsum([0, *sizes]).tolist()
        return [
            self._respond(request, {name: outputs[name][start:end] for name in names if request.wants(name)})
            for (request, _), start, end in zip(group, edges[:-1], edges[1:], strict=True)
        ]

    def _answer_one(self, request: InferRequest, feed: Feed) -> Answer:
        names = [name for name in self._outputs if request.wants(name)]
        try:
            arrays = run(self._session, names, feed, self._brain_floats)
            return self._respond(request, dict(zip(names, arrays, strict=True)))
        except ReelmeshError as error:
            return error

    def _respond(self, request: InferRequest, arrays: Feed) -> InferResponse:
        outputs = tuple(
            tensor_of(name, reshaped(array, self._outward.get(name), self._batched), self._datatypes[name])
            for name, array in arrays.items()
        )
        return InferResponse(self._name, self._version, request.id, {}, outputs)

    def _feed(self, request: InferRequest) -> Feed | ReelmeshError:
        """The request's arrays by name, leaving out optional ones that are absent; or why it has none."""
        feed: Feed = {}
        for tensor in request.inputs:
            name = tensor.name
            try:
                array = decoded(tensor.array()) if name in self._strings else tensor.array()
            except UnicodeDecodeError:
                return BadInput(f"input '{name}' holds a string that is not UTF-8", field=name)
            try:
                feed[name] = reshaped(array, self._inward.get(name), self._batched)
            except ValueError:
                return BadInput(f"input '{name}' of shape {list(array.shape)} does not reshape", field=name)
        return feed


def alike(feeds: Sequence[Feed | ReelmeshError]) -> list[list[int]]:
    """Places of the feeds that can be concatenated: the same tensors with the same shape after the batch."""
    groups: dict[object, list[int]] = {}
    for place, feed in enumerate(feeds):
        if isinstance(feed, dict):
            key = tuple((name, feed[name].shape[1:]) for name in sorted(feed))
            groups.setdefault(key, []).append(place)
    return list(groups.values())


def decoded(array: Array) -> Array:
    """The protocol's bytes as the str that ONNX Runtime takes."""
    words = [word.decode() if isinstance(word, bytes) else str(word) for word in array.reshape(-1)]
    return np.array(words, dtype=object).reshape(array.shape)


def _bytes(requests: Sequence[InferRequest]) -> int:
    return sum(len(tensor.data) for request in requests for tensor in request.inputs)
