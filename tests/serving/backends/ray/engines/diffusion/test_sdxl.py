"""Stable Diffusion XL and its ControlNet, on tiny random weights in the published format."""

import dataclasses
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from PIL import Image, ImageDraw

from serving.artifacts.store import ArtifactStore
from serving.backends.base import EngineContext
from serving.backends.call import Call
from serving.errors import BadInput
from serving.protocol.tasks import ImageRequest, ImageResult
from tests.servers.tiny import context_in, tiny_engine
from tests.serving.backends.ray.engines import laws

pytestmark = pytest.mark.asyncio(loop_scope="module")

PICTURE = ImageRequest(prompt="a lighthouse at dusk", width=64, height=80, steps=2, seed=7)


@pytest.fixture(scope="module")
def context(tmp_path_factory: pytest.TempPathFactory) -> EngineContext:
    return context_in(tmp_path_factory.mktemp("sdxl"))


@pytest.fixture(scope="module")
def store(context: EngineContext) -> ArtifactStore:
    return context.artifacts


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def engine(context: EngineContext) -> AsyncIterator[Any]:
    engine = tiny_engine("sdxl", context)
    yield engine
    await engine.close()


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def guided(context: EngineContext) -> AsyncIterator[Any]:
    engine = tiny_engine("sdxl_controlnet", context)
    yield engine
    await engine.close()


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def outline(store: ArtifactStore, tmp_path_factory: pytest.TempPathFactory) -> ImageRequest:
    """A request guided by the outline of a circle."""
    picture = Image.new("RGB", (128, 128))
    ImageDraw.Draw(picture).ellipse((24, 24, 104, 104), outline="white", width=6)
    control = await laws.stored(store, tmp_path_factory.mktemp("outline"), picture)
    return PICTURE.model_copy(update={"control": control})


async def test_a_picture_has_the_size_asked_for_and_says_how_it_was_made(engine: Any, store: ArtifactStore) -> None:
    result = await engine.run(PICTURE, Call())
    assert isinstance(result, ImageResult)
    assert (result.width, result.height, result.image.media_type) == (64, 80, "image/png")
    assert (await laws.pixels(store, result)).shape == (80, 64, 3)
    assert result.made is not None
    assert (result.made.model, result.made.seed, result.made.precision) == ("sdxl", 7, "fp32")


async def test_equal_seeds_give_equal_pictures(engine: Any) -> None:
    await laws.seeds_decide(engine, PICTURE)


async def test_progress_is_told_step_by_step(engine: Any) -> None:
    await laws.progress_is_told(engine, PICTURE)


async def test_a_cancel_takes_effect_within_a_step(engine: Any) -> None:
    await laws.a_cancel_takes_one_step(engine, PICTURE)


async def test_nan_is_an_error_and_not_a_black_picture(engine: Any) -> None:
    await laws.numbers_that_are_none_fail_alone(engine, PICTURE, engine.pipeline.unet.conv_out)


async def test_requests_share_a_batch_and_look_as_they_do_alone(engine: Any, store: ArtifactStore) -> None:
    prompts = ("a boat", "a quiet studio, warm light", "rain")
    await laws.rows_share_a_batch(
        engine, store, [PICTURE.model_copy(update={"prompt": text, "seed": len(text)}) for text in prompts]
    )


async def test_a_negative_prompt_and_guidance_change_the_picture(engine: Any) -> None:
    found = {
        await laws.sha(engine, PICTURE),
        await laws.sha(engine, PICTURE, negative_prompt="watermark"),
        await laws.sha(engine, PICTURE, guidance=1.5),
    }
    assert len(found) == 3


@pytest.mark.parametrize(
    ("changes", "field", "words"),
    [
        ({"width": 66}, "width", "66 pixels: the model makes multiples of 8 from 64 on.*use 64"),
        ({"height": 16}, "height", "16 pixels"),
        ({"prompt": "lighthouse " * 90}, "prompt", "the text has 92 tokens, and the model reads 77.*shorten it"),
        ({"negative_prompt": "rain " * 80}, "negative_prompt", "tokens, and the model reads 77"),
        ({"control_scale": 0.5}, "control_scale", "the model has no ControlNet: leave it out"),
        (
            {"negative_prompt": "rain", "guidance": 1.0},
            "negative_prompt",
            "a guidance of 1 leaves it unread.*use a guidance over 1",
        ),
        ({"adapter": "oil"}, "adapter", "there is no adapter 'oil': use one of clay, ink"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
async def test_what_the_model_cannot_do_is_refused(engine: Any, changes: Any, field: str, words: str) -> None:
    await laws.refused(lambda: engine.run(PICTURE.model_copy(update=changes), Call()), BadInput, field, words)


async def test_a_guide_needs_a_controlnet_and_a_controlnet_a_guide(
    engine: Any, guided: Any, outline: ImageRequest
) -> None:
    await laws.refused(lambda: engine.run(outline, Call()), BadInput, "control", "the model has no ControlNet")
    await laws.refused(lambda: guided.run(PICTURE, Call()), BadInput, "control", "guided by a picture")


async def test_a_guide_decides_as_much_as_its_scale_says(guided: Any, outline: ImageRequest) -> None:
    found = {await laws.sha(guided, outline, control_scale=scale) for scale in (0.0, 0.5, 1.0)}
    assert len(found) == 3
    assert await laws.sha(guided, outline) in found


async def test_guided_pictures_obey_the_same_laws(guided: Any, store: ArtifactStore, outline: ImageRequest) -> None:
    await laws.seeds_decide(guided, outline)
    await laws.a_cancel_takes_one_step(guided, outline)
    await laws.rows_share_a_batch(guided, store, [outline.model_copy(update={"seed": seed}) for seed in (1, 2)])


async def test_a_guide_that_is_no_picture_is_refused(guided: Any, store: ArtifactStore) -> None:
    text = await store.put_bytes(b"edges", media_type="image/png", name="edges.png")
    asked = PICTURE.model_copy(update={"control": text})
    await laws.refused(lambda: guided.run(asked, Call()), BadInput, "control", "picture")


async def test_a_guide_of_one_pixel_is_refused(guided: Any, store: ArtifactStore, tmp_path: Path) -> None:
    dot = await laws.stored(store, tmp_path, Image.new("RGB", (1, 1)), "dot.png")
    asked = PICTURE.model_copy(update={"control": dot})
    await laws.refused(lambda: guided.run(asked, Call()), BadInput, "control", "the picture is 1x1 pixels")


async def test_the_operator_may_choose_the_precision(context: EngineContext) -> None:
    engine: Any = tiny_engine("sdxl", dataclasses.replace(context, precision="bf16"))
    made = (await engine.run(PICTURE, Call())).made
    assert made.precision == "bf16"
    assert {str(part.dtype) for part in (engine.pipeline.unet, engine.pipeline.text_encoder)} == {"torch.bfloat16"}
    await engine.close()


async def test_warm_up_runs_without_a_request(engine: Any, guided: Any) -> None:
    for one in (engine, guided):
        await one.warm_up()
        assert one.cold_start.warm_up_s > 0
