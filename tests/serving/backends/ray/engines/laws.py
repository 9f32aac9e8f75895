"""What every engine of a network must do, as checks that the families' tests call with requests of their own.

The one invariant: results are compared by their bytes, or pixel by pixel where rows shared a batch.
"""

import asyncio
import io
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image

from serving.artifacts.store import ArtifactStore
from serving.backends.call import Call
from serving.backends.ray.engines.diffusion.engine import DiffusionEngine
from serving.backends.ray.engines.network.steps import Steps
from serving.errors import Cancelled, EngineFailed
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


async def pixels(store: ArtifactStore, result: TaskResult) -> NDArray[np.int16]:
    """Of a picture, or of every frame of a clip."""
    data = await store.get_bytes(file_of(result))
    if hasattr(result, "image"):
        return np.asarray(Image.open(io.BytesIO(data)), np.int16)
    with av.open(io.BytesIO(data)) as clip:
        return np.stack([frame.to_ndarray(format="rgb24").astype(np.int16) for frame in clip.decode(video=0)])


async def seeds_decide(engine: Engine, request: TaskRequest) -> None:
    """Equal seeds give equal bytes, other seeds and other steps do not."""
    first = await sha(engine, request, seed=1)
    assert await sha(engine, request, seed=1) == first
    assert await sha(engine, request, seed=2) != first
    assert await sha(engine, request, seed=1, steps=(getattr(request, "steps", None) or 1) + 1) != first


async def progress_is_told(engine: Engine, request: TaskRequest) -> None:
    """Several increasing values, the last of them 1, and as many steps as were asked for."""
    told: list[float] = []
    result = await engine.run(request.model_copy(update={"steps": 4}), Call(on_progress=told.append))
    assert told == sorted(told)
    assert {0.25, 0.5, 0.75, 1.0} <= set(told)
    assert result.made is not None
    assert result.made.steps == 4


async def a_cancel_takes_one_step(engine: Engine, request: TaskRequest) -> None:
    """Cancelled at the first of twenty steps, the network makes no second, and the next request is as it was."""
    before, told = await sha(engine, request), []
    call = Call()

    def cancel(done: float) -> None:
        told.append(done)
        call.cancel()

    call.on_progress = cancel
    with pytest.raises(Cancelled):
        await engine.run(request.model_copy(update={"steps": 20}), call)
    assert told == [0.05]
    assert await sha(engine, request) == before


async def numbers_that_are_none_fail_alone(engine: Engine, request: TaskRequest, layer: torch.nn.Module) -> None:
    """A weight that is no number makes no file; once it is one again, so is the picture."""
    before = await sha(engine, request)
    bias: Any = layer.bias
    healthy = bias.detach().clone()
    with torch.no_grad():
        bias[0] = float("nan")
    try:
        with pytest.raises(EngineFailed, match=r"values that are no numbers.*try another seed"):
            await engine.run(request, Call())
    finally:
        with torch.no_grad():
            bias.copy_(healthy)
    assert await sha(engine, request) == before


async def rows_share_a_batch(engine: Engine, store: ArtifactStore, requests: list[TaskRequest], most: int = 1) -> None:
    """Requests of one key run together, and each looks as it does alone, to ``most`` levels of 255."""
    alone = [await pixels(store, await engine.run(request, Call())) for request in requests]
    together = await asyncio.gather(*(engine.run(request, Call()) for request in requests))
    assert [result.made and result.made.batch for result in together] == [len(requests)] * len(requests)
    for one, result in zip(alone, together, strict=True):
        assert np.abs(one - await pixels(store, result)).max() <= most


async def outputs(engine: Engine, requests: list[TaskRequest]) -> list[Any]:
    """What the network makes of requests in one pass, before a codec magnifies the smallest difference."""
    prepared = [engine.prepare(request, await engine._files(request)) for request in requests]
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
