"""SadTalker's motion stage on a checkpoint of the published layout: a voice becomes coefficients."""

import io
from collections.abc import AsyncIterator
from pathlib import Path

import numpy as np
import pytest
import soundfile

from serving.backends.base import Engine, EngineContext, StartsCold
from serving.backends.call import Call
from serving.errors import BadInput, TooLarge
from serving.protocol.tasks import FaceMotionRequest, FaceMotionResult
from tests.servers.tiny import context_in, tiny_engine

RATE = 16_000


@pytest.fixture
def context(tmp_path: Path) -> EngineContext:
    return context_in(tmp_path, threads=1)


@pytest.fixture
async def engine(context: EngineContext) -> AsyncIterator[Engine]:
    loaded = tiny_engine("face_motion", context, options={"audio_s": 5})
    yield loaded
    await loaded.close()


async def request(context: EngineContext, seconds: float, **changes: object) -> FaceMotionRequest:
    stream = io.BytesIO()
    noise = np.random.default_rng(1).uniform(-0.3, 0.3, int(seconds * RATE))
    soundfile.write(stream, noise, RATE, format="WAV", subtype="PCM_16")
    audio = await context.artifacts.put_bytes(stream.getvalue(), media_type="audio/wav", name="voice.wav")
    return FaceMotionRequest.model_validate({"audio": audio} | changes)


async def motion(engine: Engine, context: EngineContext, request: FaceMotionRequest) -> np.ndarray:
    result = await engine.run(request, Call())
    assert isinstance(result, FaceMotionResult)
    coefficients = np.load(await context.artifacts.local_path(result.coefficients), allow_pickle=False)
    assert result.frames == len(coefficients)
    return coefficients


@pytest.mark.parametrize(("seconds", "frames"), [(0.06, 1), (0.2, 5), (2.0, 50)], ids=["one frame", "short", "long"])
async def test_every_frame_has_70_coefficients(
    engine: Engine, context: EngineContext, seconds: float, frames: int
) -> None:
    coefficients = await motion(engine, context, await request(context, seconds))
    assert coefficients.shape == (frames, 70)
    assert coefficients.dtype == np.float32
    assert np.isfinite(coefficients).all()


async def test_equal_seeds_give_equal_motion_and_other_seeds_and_styles_another_head(
    engine: Engine, context: EngineContext
) -> None:
    one, same, seed, style = [
        await motion(engine, context, await request(context, 1.6, **changes))
        for changes in ({}, {}, {"seed": 3}, {"pose_style": 9})
    ]
    assert np.array_equal(one, same)
    assert not np.array_equal(one[:, 64:], seed[:, 64:])
    assert not np.array_equal(one[:, 64:], style[:, 64:])
    assert np.array_equal(one[:, :64], style[:, :64])


async def test_too_long_a_voice_is_refused(engine: Engine, context: EngineContext) -> None:
    with pytest.raises(TooLarge, match="longer than 5 s"):
        await engine.run(await request(context, 6), Call())


async def test_too_short_a_voice_is_refused(engine: Engine, context: EngineContext) -> None:
    with pytest.raises(BadInput, match=r"0\.020 s long"):
        await engine.run(await request(context, 0.02), Call())


async def test_progress_comes_by_passes(engine: Engine, context: EngineContext) -> None:
    told: list[float] = []
    await engine.run(await request(context, 2.0), Call(on_progress=told.append))
    assert told == pytest.approx([1 / 3, 2 / 3, 1])


async def test_the_warm_up_runs_the_network_and_leaves_nothing_behind(engine: Engine, context: EngineContext) -> None:
    assert isinstance(engine, StartsCold)
    await engine.warm_up()
    assert engine.cold_start.warm_up_s is not None
    await engine.close()
    assert list(context.scratch.iterdir()) == []
