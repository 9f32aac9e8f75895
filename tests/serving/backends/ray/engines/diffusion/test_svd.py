"""Stable Video Diffusion on tiny random weights: a still becomes a clip."""

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import pytest_asyncio
from PIL import Image, ImageDraw

from serving.artifacts.store import ArtifactStore
from serving.backends.base import EngineContext
from serving.backends.call import Call
from serving.errors import BadInput
from serving.protocol.tasks import ImageToVideoRequest, VideoResult
from serving.repository.model import Adapter, Source
from tests.servers.tiny import context_in, tiny_engine
from tests.serving.backends.ray.engines import laws

pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest.fixture(scope="module")
def context(tmp_path_factory: pytest.TempPathFactory) -> EngineContext:
    return context_in(tmp_path_factory.mktemp("svd"))


@pytest.fixture(scope="module")
def store(context: EngineContext) -> ArtifactStore:
    return context.artifacts


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def engine(context: EngineContext) -> AsyncIterator[Any]:
    engine = tiny_engine("stable_video_diffusion", context)
    yield engine
    await engine.close()


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def still(store: ArtifactStore, tmp_path_factory: pytest.TempPathFactory) -> ImageToVideoRequest:
    picture = Image.new("RGB", (160, 120), "navy")
    ImageDraw.Draw(picture).ellipse((40, 30, 110, 100), fill="orange")
    image = await laws.stored(store, tmp_path_factory.mktemp("still"), picture)
    return ImageToVideoRequest(image=image, width=80, height=64, duration_s=0.25, fps=8, steps=1, seed=7)


async def test_a_still_becomes_a_clip_of_the_size_asked_for(
    engine: Any, store: ArtifactStore, still: ImageToVideoRequest
) -> None:
    result = await engine.run(still, Call())
    assert isinstance(result, VideoResult)
    assert (result.frames, result.fps) == (2, 8)
    assert (await laws.pixels(store, result)).shape == (2, 64, 80, 3)


async def test_clips_obey_the_laws_of_every_pipeline(engine: Any, still: ImageToVideoRequest) -> None:
    await laws.seeds_decide(engine, still)
    await laws.progress_is_told(engine, still)
    await laws.a_cancel_takes_one_step(engine, still)
    await laws.numbers_that_are_none_fail_alone(engine, still, engine.pipeline.unet.conv_out)


async def test_picture_rate_and_guidance_decide(engine: Any, store: ArtifactStore, still: Any, tmp_path: Path) -> None:
    other = await laws.stored(store, tmp_path, Image.new("RGB", (160, 120), "green"))
    found = {
        await laws.sha(engine, still),
        await laws.sha(engine, still, image=other),
        await laws.sha(engine, still, fps=4, duration_s=0.5),
        await laws.sha(engine, still, guidance=1.5),
    }
    assert len(found) == 4


async def test_a_clip_may_be_one_frame(engine: Any, still: ImageToVideoRequest) -> None:
    assert (await engine.run(still.model_copy(update={"duration_s": 0.1}), Call())).frames == 1


async def test_clips_are_made_one_at_a_time(engine: Any, still: ImageToVideoRequest) -> None:
    calls = [engine.run(still.model_copy(update={"seed": seed}), Call()) for seed in (1, 2)]
    assert [(await call).made.batch for call in calls] == [1, 1]
    assert engine.most_in_batch() == 1


@pytest.mark.parametrize(
    ("changes", "field", "words"),
    [
        ({"duration_s": 2.0}, "duration_s", "16 frames, and the model makes at most 8: ask for at most 1 s"),
        ({"width": 82}, "width", "82 pixels: the model makes multiples of 4"),
        ({"adapter": "pan"}, "adapter", "there is no adapter 'pan': leave it out"),
        ({"prompt": "a boat drifts"}, "prompt", "the model reads no words: leave it out"),
        ({"negative_prompt": "blur"}, "negative_prompt", "the model reads no words"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
async def test_what_the_model_cannot_do_is_refused(
    engine: Any, still: ImageToVideoRequest, changes: Any, field: str, words: str
) -> None:
    await laws.refused(lambda: engine.run(still.model_copy(update=changes), Call()), BadInput, field, words)


async def test_a_camera_that_a_film_names_is_no_error(engine: Any, still: ImageToVideoRequest) -> None:
    assert (await engine.run(still.model_copy(update={"motion": "pan_left"}), Call())).frames == 2


async def test_a_still_of_one_pixel_is_refused(engine: Any, store: Any, still: Any, tmp_path: Path) -> None:
    dot = await laws.stored(store, tmp_path, Image.new("RGB", (1, 1)))
    asked = still.model_copy(update={"image": dot})
    await laws.refused(lambda: engine.run(asked, Call()), BadInput, "image", "the picture is 1x1 pixels")


async def test_a_card_with_adapters_is_refused_when_it_is_loaded(context: EngineContext) -> None:
    adapters = {"pan": Adapter(source=Source(uri="file:nowhere"))}
    with pytest.raises(BadInput, match="StableVideoDiffusionPipeline takes no adapters"):
        tiny_engine("stable_video_diffusion", context, adapters=adapters)


async def test_the_same_still_looks_like_itself(engine: Any, store: ArtifactStore, still: ImageToVideoRequest) -> None:
    first, again = [await laws.pixels(store, await engine.run(still, Call())) for _ in range(2)]
    assert np.array_equal(first, again)


async def test_warm_up_runs_without_a_request(engine: Any) -> None:
    await engine.warm_up()
    assert engine.cold_start.warm_up_s > 0
