"""Warm-up of a tensor model by the samples of its ``model_warmup``; called before it takes requests.

The one invariant: as in Triton, a sample that cannot be made refuses the load, and one that the model fails on is
logged.
"""

import asyncio
from pathlib import Path
from typing import Final

import numpy as np
import structlog
from tritonclient.grpc.model_config_pb2 import DataType, ModelConfig, ModelWarmup

from serving.backends.ray.engines.tensor_config import instance_count
from serving.backends.ray.served import Executes
from serving.errors import BadInput, ReelmeshError, foreign_text
from serving.protocol.oip import DATATYPES, LENGTH_PREFIX_BYTES, InferRequest, Tensor, check_elements, check_shape
from serving.protocol.oip_config import DATATYPE_OF_CONFIG, RequestCheck

log = structlog.get_logger()

WARM_UP_S: Final = 600.0
"""Longest warm-up of one version of a model."""
SAMPLE_BYTES: Final = 1 << 30
"""Largest tensor of a sample."""
_FOLDER: Final = "warmup"
_NUMBERS: Final = 128


async def warm_up(folder: Path, config: ModelConfig, version: str, engine: Executes) -> None:
    """Run every sample as often as it says, on as many instances at a time as there are.

    Args:
        folder: of the model; files of samples lie in its ``warmup``.
        config: as completed by the engine.
        version: that the engine runs.
        engine: takes no other requests yet.

    Raises:
        BadInput: a sample does not fit the model, or all of them take longer than :data:`WARM_UP_S`.
    """
    try:
        async with asyncio.timeout(WARM_UP_S):
            for sample in config.model_warmup:
                requests = await asyncio.to_thread(sample_requests, folder, config, sample, version)
                for _ in range(max(1, sample.count)):
                    await asyncio.gather(*(_run(engine, requests, config) for _ in range(instance_count(config))))
    except TimeoutError as error:
        problem = f"takes longer than {WARM_UP_S:g} s"
        raise BadInput(problem, field=f"{config.name}/config.pbtxt:model_warmup") from error


def sample_requests(folder: Path, config: ModelConfig, sample: ModelWarmup, version: str) -> list[InferRequest]:
    """One batch: as many requests of a single row as the sample's ``batch_size``, as Triton makes them.

    Raises:
        BadInput: names the sample and its input.
    """
    place = f"{config.name}/config.pbtxt:model_warmup '{sample.name[:64]}'"
    if sample.batch_size > max(1, config.max_batch_size):
        raise BadInput(f"batch_size {sample.batch_size} is over max_batch_size {config.max_batch_size}", field=place)
    batch = (1,) if config.max_batch_size else ()
    inputs = tuple(_tensor(folder, name, given, batch, place) for name, given in sorted(sample.inputs.items()))
    request = InferRequest(config.name, version, "warmup", {}, inputs)
    if not config.HasField("sequence_batching"):  # whose samples may fill control tensors too
        RequestCheck(config)(request)
    return [request] * max(1, sample.batch_size)


async def _run(engine: Executes, requests: list[InferRequest], config: ModelConfig) -> None:
    try:
        if config.model_transaction_policy.decoupled:
            for request in requests:
                async for _ in engine.stream(request):
                    continue
            return
        failed = [answer for answer in await engine.execute(requests) if isinstance(answer, ReelmeshError)]
        if failed:
            raise failed[0]
    except Exception as error:  # whatever a model raises; clients may send it what it likes better
        log.warning("warm_up_failed", model=config.name, error=foreign_text(error))


def _tensor(folder: Path, name: str, given: ModelWarmup.Input, batch: tuple[int, ...], place: str) -> Tensor:
    datatype = DATATYPE_OF_CONFIG.get(DataType.Name(given.data_type))
    kind = given.WhichOneof("input_data_type")
    if datatype is None or kind is None:
        raise BadInput(f"the input '{name[:64]}' has no data_type or no data", field=place)
    shape = (*batch, *given.dims)
    count = check_shape(name, datatype, shape)
    size_bytes = count * (DATATYPES[datatype].size_bytes or LENGTH_PREFIX_BYTES)
    if size_bytes > SAMPLE_BYTES:
        raise BadInput(f"the input '{name[:64]}' has {size_bytes} bytes, more than {SAMPLE_BYTES}", field=place)
    if kind == "input_data_file":
        data = _file(folder / _FOLDER, given.input_data_file, place)
    elif kind == "random_data" and DATATYPES[datatype].size_bytes is not None:
        data = _random(datatype, count)
    else:
        data = bytes(size_bytes)
    if datatype == "BYTES":
        check_elements(name, data, count)
    elif len(data) != size_bytes:
        raise BadInput(f"the input '{name[:64]}' has {len(data)} bytes, not {size_bytes}", field=place)
    return Tensor(name, datatype, shape, data)


def _random(datatype: str, count: int) -> bytes:
    """Numbers from 0 to 1 for floats, to 127 for others: every index of a small table, and no float that is none."""
    kind = DATATYPES[datatype].numpy
    numbers = np.random.default_rng(0).random(count)
    most = 1 if datatype.startswith(("FP", "BF")) else 2 if datatype == "BOOL" else _NUMBERS
    return (numbers * most).astype(np.uint8 if datatype == "BOOL" else kind).tobytes()


def _file(home: Path, name: str, place: str) -> bytes:
    path = (home / name).resolve()
    try:
        if not path.is_relative_to(home.resolve()) or path.stat().st_size > SAMPLE_BYTES:
            raise BadInput(f"'{name[:128]}' is no file of the folder {_FOLDER}, or too large", field=place)
        return path.read_bytes()
    except (OSError, ValueError) as error:
        raise BadInput(f"there is no file {_FOLDER}/{name[:128]}", field=place) from error
