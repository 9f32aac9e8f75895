"""AnimateDiff on tiny random weights: a Stable Diffusion 1.5 and a motion module, each in a folder of its own."""

from collections.abc import AsyncIterator
from typing import Any

import numpy as np
import pytest
import pytest_asyncio

from serving.artifacts.store import ArtifactStore
from serving.backends.base import EngineContext
from serving.backends.call import Call
from serving.errors import BadInput
from serving.protocol.tasks import TextToVideoRequest, VideoResult
from tests.servers.tiny import context_in, tiny_engine
from tests.serving.backends.ray.engines import laws

pytestmark = pytest.mark.asyncio(loop_scope="module")

CLIP = TextToVideoRequest(prompt="a paper boat drifts", width=64, height=80, duration_s=0.25, fps=8, steps=1, seed=7)


@pytest.fixture(scope="module")
def context(tmp_path_factory: pytest.TempPathFactory) -> EngineContext:
    return context_in(tmp_path_factory.mktemp("animatediff"))


@pytest.fixture(scope="module")
def store(context: EngineContext) -> ArtifactStore:
    return context.artifacts


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def engine(context: EngineContext) -> AsyncIterator[Any]:
    engine = tiny_engine("animatediff", context)
    yield engine
    await engine.close()


async def test_a_clip_has_the_frames_asked_for_and_they_differ(engine: Any, store: ArtifactStore) -> None:
    result = await engine.run(CLIP.model_copy(update={"duration_s": 0.5}), Call())
    assert isinstance(result, VideoResult)
    assert (result.frames, result.fps, result.video.media_type) == (4, 8, "video/mp4")
    frames = await laws.pixels(store, result)
    assert frames.shape == (4, 80, 64, 3)
    assert np.abs(frames[0] - frames[3]).max() > 8


async def test_the_safety_checker_of_the_base_is_left_out(engine: Any) -> None:
    assert "safety_checker" not in engine.pipeline.components
    assert engine.pipeline.scheduler.config.beta_schedule == "linear"


async def test_the_motion_module_changes_the_frames(engine: Any, store: ArtifactStore) -> None:
    layers = [
        layer for name, layer in engine.pipeline.unet.named_modules() if name.endswith("motion_modules.0.proj_out")
    ]
    assert layers
    asked = CLIP.model_copy(update={"steps": 2})
    before = await laws.sha(engine, asked)
    kept = [layer.weight.detach().clone() for layer in layers]
    for layer in layers:
        layer.weight.data.zero_()
    assert await laws.sha(engine, asked) != before
    for layer, weight in zip(layers, kept, strict=True):
        layer.weight.data.copy_(weight)
    assert await laws.sha(engine, asked) == before


async def test_clips_obey_the_laws_of_every_pipeline(engine: Any) -> None:
    await laws.seeds_decide(engine, CLIP)
    await laws.progress_is_told(engine, CLIP)
    await laws.a_cancel_takes_one_step(engine, CLIP)
    await laws.numbers_that_are_none_fail_alone(engine, CLIP, engine.pipeline.unet.conv_out)


async def test_clips_share_a_batch_and_look_as_they_do_alone(engine: Any) -> None:
    await laws.clips_share_a_batch(engine, [CLIP, CLIP.model_copy(update={"prompt": "rain", "seed": 3})])


async def test_a_cancel_between_decoded_frames_ends_the_decoding(engine: Any, store: ArtifactStore) -> None:
    call, told = Call(), []

    def cancel(done: float) -> None:
        told.append(done)
        if len(told) == CLIP.steps:
            call.cancel()

    call.on_progress = cancel
    before = await laws.sha(engine, CLIP)
    await laws.refused(lambda: engine.run(CLIP, call), laws.Cancelled, None, "cancelled|nobody waits")
    assert told == [1.0]
    assert await laws.sha(engine, CLIP) == before


@pytest.mark.parametrize(
    ("changes", "field", "words"),
    [
        ({"duration_s": 4.0}, "duration_s", "32 frames, and the model makes at most 16: ask for at most 2 s"),
        ({"width": 70}, "width", "multiples of 8"),
        ({"prompt": "a " * 90}, "prompt", "92 tokens, and the model reads 77"),
        ({"adapter": "pan"}, "adapter", "there is no adapter 'pan': leave it out"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
async def test_what_the_model_cannot_do_is_refused(engine: Any, changes: Any, field: str, words: str) -> None:
    await laws.refused(lambda: engine.run(CLIP.model_copy(update=changes), Call()), BadInput, field, words)


async def test_warm_up_runs_without_a_request(engine: Any) -> None:
    await engine.warm_up()
    assert engine.cold_start.warm_up_s > 0
