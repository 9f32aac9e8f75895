"""CogVideoX from words and from a picture, on tiny random weights in the published format."""

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import pytest_asyncio
from PIL import Image

from serving.artifacts.store import ArtifactStore
from serving.backends.base import EngineContext
from serving.backends.call import Call
from serving.errors import BadInput
from serving.protocol.tasks import ImageToVideoRequest, TextToVideoRequest, VideoResult
from tests.servers.tiny import context_in, tiny_engine
from tests.serving.backends.ray.engines import laws

pytestmark = pytest.mark.asyncio(loop_scope="module")

CLIP = TextToVideoRequest(prompt="a red fox", width=48, height=32, duration_s=1, fps=8, steps=2, seed=7)


@pytest.fixture(scope="module")
def context(tmp_path_factory: pytest.TempPathFactory) -> EngineContext:
    return context_in(tmp_path_factory.mktemp("cogvideox"))


@pytest.fixture(scope="module")
def store(context: EngineContext) -> ArtifactStore:
    return context.artifacts


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def engine(context: EngineContext) -> AsyncIterator[Any]:
    engine = tiny_engine("cogvideox_2b", context)
    yield engine
    await engine.close()


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def rotary(context: EngineContext) -> AsyncIterator[Any]:
    engine = tiny_engine("cogvideox_5b", context)
    yield engine
    await engine.close()


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def shown(context: EngineContext) -> AsyncIterator[Any]:
    engine = tiny_engine("cogvideox_5b_i2v", context)
    yield engine
    await engine.close()


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def moving(store: ArtifactStore, tmp_path_factory: pytest.TempPathFactory) -> ImageToVideoRequest:
    """A request that brings a picture of noise to motion."""
    picture = Image.fromarray(np.random.default_rng(5).integers(0, 256, (64, 80, 3), np.uint8))
    image = await laws.stored(store, tmp_path_factory.mktemp("moving"), picture)
    told = CLIP.model_dump() | {"image": image}
    return ImageToVideoRequest.model_validate(told)


async def test_a_clip_has_the_frames_and_size_asked_for(engine: Any, store: ArtifactStore) -> None:
    result = await engine.run(CLIP, Call())
    assert isinstance(result, VideoResult)
    assert (result.frames, result.fps, result.audio, result.video.media_type) == (8, 8, None, "video/mp4")
    frames = await laws.pixels(store, result)
    assert frames.shape == (8, 32, 48, 3)
    assert frames.std() > 5
    assert result.made is not None
    assert (result.made.model, result.made.seed, result.made.steps) == ("cogvideox_2b", 7, 2)


async def test_equal_seeds_give_equal_clips(engine: Any) -> None:
    await laws.seeds_decide(engine, CLIP)


async def test_noise_that_the_scheduler_adds_is_the_requests_own(rotary: Any) -> None:
    await laws.seeds_decide(rotary, CLIP)


async def test_progress_is_told_step_by_step(engine: Any) -> None:
    await laws.progress_is_told(engine, CLIP)


async def test_a_cancel_takes_effect_within_a_step(engine: Any) -> None:
    await laws.a_cancel_takes_one_step(engine, CLIP)


async def test_nan_is_an_error_and_not_a_black_clip(engine: Any) -> None:
    await laws.numbers_that_are_none_fail_alone(engine, CLIP, engine.pipeline.transformer.proj_out)


async def test_requests_share_a_batch_and_look_as_they_do_alone(engine: Any, rotary: Any) -> None:
    prompts = ("a boat", "a red fox at night", "rain")
    clips = [CLIP.model_copy(update={"prompt": text, "seed": len(text)}) for text in prompts]
    for one in (engine, rotary):
        await laws.clips_share_a_batch(one, clips)


async def test_pictures_share_a_batch_too(shown: Any, moving: ImageToVideoRequest) -> None:
    await laws.clips_share_a_batch(shown, [moving.model_copy(update={"seed": seed}) for seed in (1, 2)])


async def test_the_picture_decides_what_moves(shown: Any, store: ArtifactStore, moving: Any, tmp_path: Path) -> None:
    other = await laws.stored(store, tmp_path, Image.new("RGB", (48, 32), (10, 200, 30)))
    assert await laws.sha(shown, moving) != await laws.sha(shown, moving, image=other)


@pytest.mark.parametrize(
    ("changes", "field", "words"),
    [
        ({"width": 56}, "width", "56 pixels: the model makes multiples of 16 from 16 on.*use"),
        (
            {"fps": 16, "duration_s": 1.2},
            "duration_s",
            "19 frames, and .* makes at most 17.*at most 1.062 s at 16 frames",
        ),
        ({"prompt": "fox " * 30}, "prompt", "tokens, and the model reads 24.*shorten it"),
        ({"negative_prompt": "fox " * 30}, "negative_prompt", "tokens, and the model reads 24"),
        ({"adapter": "oil"}, "adapter", "there is no adapter 'oil'"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
async def test_what_the_model_cannot_do_is_refused(engine: Any, changes: Any, field: str, words: str) -> None:
    await laws.refused(lambda: engine.run(CLIP.model_copy(update=changes), Call()), BadInput, field, words)


async def test_learned_positions_allow_one_size_and_one_length(
    shown: Any, store: ArtifactStore, moving: ImageToVideoRequest
) -> None:
    wide = moving.model_copy(update={"width": 64})
    await laws.refused(lambda: shown.run(wide, Call()), BadInput, "width", "makes 48x32 pixels alone.*use width 48")
    short = await shown.run(moving.model_copy(update={"duration_s": 0.25}), Call())
    whole = await shown.run(moving, Call())
    assert (short.frames, whole.frames) == (2, 8)
    difference = np.abs(await laws.pixels(store, short) - (await laws.pixels(store, whole))[:2])
    assert difference.mean() < 4  # the same frames, whose codec saw fewer of them


async def test_a_model_warms_up_with_its_smallest_clip(shown: Any, engine: Any) -> None:
    for one in (engine, shown):
        await one.warm_up()
        assert one.cold_start.warm_up_s is not None
