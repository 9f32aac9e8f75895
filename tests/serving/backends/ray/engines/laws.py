"""What every engine of a network must do, as checks that the families' tests call with requests of their own.

The one invariant: results are compared whole, files by their bytes, or number by number where rows shared a batch.
"""

import asyncio
import io
import re
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
import soundfile
import torch
from numpy.typing import NDArray
from PIL import Image

from serving.artifacts.store import ArtifactStore
from serving.backends.call import Call
from serving.backends.ray.engines.diffusion.engine import DiffusionEngine
from serving.backends.ray.engines.network.engine import NetworkEngine
from serving.backends.ray.engines.network.steps import Steps
from serving.errors import BadInput, Cancelled, EngineFailed
from serving.protocol.artifact import ArtifactRef
from serving.protocol.tasks import TaskRequest, TaskResult

Engine = DiffusionEngine[Any, Any]


def file_of(result: Any) -> ArtifactRef:
    """The picture, clip or music of a result."""
    name = next(name for name in ("image", "video", "audio") if hasattr(result, name))
    found: ArtifactRef = getattr(result, name)
    return found


async def sha(engine: Engine, request: TaskRequest, **changes: Any) -> str:
    """Digest of what the request makes."""
    return file_of(await engine.run(request.model_copy(update=changes), Call())).sha256


async def answer(engine: NetworkEngine[Any, Any, Any], request: TaskRequest, call: Call | None = None) -> object:
    """What the request is answered with, but for how that was made; files stand in it by their digests."""
    return (await engine.run(request, call or Call())).model_dump(exclude={"made"})


async def pixels(store: ArtifactStore, result: TaskResult) -> NDArray[np.integer]:
    """Of a picture or of every frame of a clip; of a sound its 16-bit samples, as wide integers."""
    data = await store.get_bytes(file_of(result))
    if hasattr(result, "image"):
        return np.asarray(Image.open(io.BytesIO(data)), np.int16)
    if not hasattr(result, "video"):
        return np.asarray(soundfile.read(io.BytesIO(data), dtype="int16")[0], np.int32)
    with av.open(io.BytesIO(data)) as clip:
        return np.stack([frame.to_ndarray(format="rgb24").astype(np.int16) for frame in clip.decode(video=0)])


async def equal_seeds_give_equal_answers(engine: NetworkEngine[Any, Any, Any], request: TaskRequest) -> None:
    """To the byte, and other seeds do not."""
    first, again, other = [await answer(engine, request.model_copy(update={"seed": seed})) for seed in (1, 1, 2)]
    assert first == again != other


async def seeds_decide(engine: Engine, request: TaskRequest) -> None:
    """Equal seeds give equal bytes, other seeds and other steps do not."""
    await equal_seeds_give_equal_answers(engine, request)
    more = {"steps": (getattr(request, "steps", None) or 1) + 1}
    assert await sha(engine, request, **more) != await sha(engine, request)


async def progress_rises(
    engine: NetworkEngine[Any, Any, Any], request: TaskRequest, least: int = 1
) -> tuple[list[float], TaskResult]:
    """To the end, by at least so many different values; what was told, and the result."""
    told: list[float] = []
    result = await engine.run(request, Call(on_progress=told.append))
    assert told == sorted(told)
    assert len(set(told)) >= least
    assert told[-1] == 1
    return told, result


async def progress_is_told(engine: Engine, request: TaskRequest) -> None:
    """Several increasing values, the last of them 1, and as many steps as were asked for."""
    told, result = await progress_rises(engine, request.model_copy(update={"steps": 4}))
    assert {0.25, 0.5, 0.75, 1.0} <= set(told)
    assert result.made is not None
    assert result.made.steps == 4


class Stop:
    """Cancels a call at the first sign of progress, or the one after ``patience`` more."""

    def __init__(self, patience: int = 0) -> None:
        self.call, self.told = Call(), list[float]()
        self.call.on_progress = self._hear
        self._patience = patience

    def _hear(self, done: float) -> None:
        self.told.append(done)
        if len(self.told) > self._patience:
            self.call.cancel()


async def a_cancel_is_heard_at_once(
    engine: NetworkEngine[Any, Any, Any], request: TaskRequest, longer: TaskRequest
) -> float:
    """Cancelled at its first sign of progress, a longer request gives no second, and the next one is as it was.

    Returns:
        How far the longer one came.
    """
    before, stop = await answer(engine, request), Stop()
    with pytest.raises(Cancelled):
        await engine.run(longer, stop.call)
    (reached,) = stop.told
    assert await answer(engine, request) == before
    return reached


async def a_cancel_takes_one_step(engine: Engine, request: TaskRequest) -> None:
    """Cancelled at the first of twenty steps, the network makes no second, and the next request is as it was."""
    assert await a_cancel_is_heard_at_once(engine, request, request.model_copy(update={"steps": 20})) == 0.05


async def a_broken_weight_fails_alone(
    engine: NetworkEngine[Any, Any, Any], request: TaskRequest, weight: torch.Tensor, words: str, at: Any = ...
) -> None:
    """A weight that is no number, whole or ``at`` one place, makes no result; healed, it answers as before."""
    before, healthy = await answer(engine, request), weight.detach().clone()
    with torch.no_grad():
        weight[at] = float("nan")
    try:
        with pytest.raises(EngineFailed, match=words):
            await engine.run(request, Call())
    finally:
        with torch.no_grad():
            weight.copy_(healthy)
    assert await answer(engine, request) == before


async def numbers_that_are_none_fail_alone(engine: Engine, request: TaskRequest, layer: torch.nn.Module) -> None:
    """A weight that is no number makes no file; once it is one again, so is the picture."""
    words = r"values that are no numbers.*try another seed"
    await a_broken_weight_fails_alone(engine, request, layer.get_parameter("bias"), words, at=0)


async def rows_share_a_batch(
    engine: NetworkEngine[Any, Any, Any], store: ArtifactStore, requests: Sequence[TaskRequest], most: int = 1
) -> None:
    """Requests of one key run together; each is as it is alone, to ``most`` levels of 255, or of 32,768 in sound."""
    alone = [await pixels(store, await engine.run(request, Call())) for request in requests]
    together = await asyncio.gather(*(engine.run(request, Call()) for request in requests))
    assert [result.made and result.made.batch for result in together] == [len(requests)] * len(requests)
    for one, result in zip(alone, together, strict=True):
        shared = await pixels(store, result)
        assert one.shape == shared.shape
        assert np.abs(one - shared).max() <= most


async def outputs(engine: Engine, requests: list[TaskRequest]) -> list[Any]:
    """What the network makes of requests in one pass, before a codec magnifies the smallest difference."""
    prepared = [engine.prepare(request, await engine.files(request)) for request in requests]
    steps = Steps([Call() for _ in requests], lambda index, error: None)
    return list(await engine.runner.call(lambda: engine._generate(prepared, steps)))


async def clips_share_a_batch(engine: Engine, requests: list[TaskRequest]) -> None:
    """Requests of one key run together; each is as it is alone: frames to one level of 255, sound to a thousandth."""
    together = await asyncio.gather(*(engine.run(request, Call()) for request in requests))
    assert [result.made and result.made.batch for result in together] == [len(requests)] * len(requests)
    for request, row in zip(requests, await outputs(engine, requests), strict=True):
        (alone,) = await outputs(engine, [request])
        assert np.abs(alone.frames.astype(np.int16) - row.frames).max() <= 1
        if row.sound is not None:
            assert np.abs(alone.sound - row.sound).max() <= 1e-3


async def refused(run: Callable[[], Awaitable[object]], kind: type[Exception], field: str, words: str) -> None:
    """Fails with the error of that kind, which names the field and says the words on one line."""
    with pytest.raises(kind, match=words) as caught:
        await run()
    assert getattr(caught.value, "field", None) == field
    assert "\n" not in str(caught.value)


async def stored(store: ArtifactStore, folder: Path, picture: Image.Image, name: str = "given.png") -> ArtifactRef:
    """A picture that a request can refer to."""
    picture.save(folder / name)
    return await store.put_file(folder / name, media_type="image/png")


def refused_in_one_line(load: Callable[[], object], words: str) -> BadInput:
    """A checkpoint that does not fit is told in one line with what to do."""
    with pytest.raises(BadInput) as caught:
        load()
    told = f"{caught.value.field}: {caught.value}"
    assert re.search(words, told)
    assert caught.value.fix
    assert "\n" not in told
    return caught.value
