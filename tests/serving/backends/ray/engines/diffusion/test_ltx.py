"""LTX-Video and LTX-2 from words and from a picture, on tiny random weights in the published formats."""

import io
import json
import shutil
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import diffusers
import numpy as np
import pytest
import pytest_asyncio
import soundfile
import torch
from PIL import Image

from serving.artifacts.store import ArtifactStore
from serving.backends.base import EngineContext
from serving.backends.call import Call
from serving.backends.ray.tiny.build import tiny_checkpoint
from serving.errors import BadInput, EngineFailed
from serving.protocol.tasks import ImageToVideoRequest, TextToVideoRequest, VideoResult
from serving.repository.model import Source
from tests.servers.tiny import context_in, tiny_engine
from tests.serving.backends.ray.engines import laws

pytestmark = pytest.mark.asyncio(loop_scope="module")

CLIP = TextToVideoRequest(prompt="a red fox", width=64, height=64, duration_s=0.5, fps=24, steps=2, seed=7)
NAMES = ("ltx_video", "ltx2", "ltx_video_i2v", "ltx2_i2v")


@pytest.fixture(scope="module")
def context(tmp_path_factory: pytest.TempPathFactory) -> EngineContext:
    return context_in(tmp_path_factory.mktemp("ltx"))


@pytest.fixture(scope="module")
def store(context: EngineContext) -> ArtifactStore:
    return context.artifacts


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def engines(context: EngineContext) -> AsyncIterator[dict[str, Any]]:
    found = {name: tiny_engine(name, context) for name in NAMES}
    yield found
    for engine in found.values():
        await engine.close()


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def asked(store: ArtifactStore, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """A request for each model."""
    picture = Image.fromarray(np.random.default_rng(5).integers(0, 256, (64, 80, 3), np.uint8))
    image = await laws.stored(store, tmp_path_factory.mktemp("moving"), picture)
    moving = ImageToVideoRequest.model_validate(CLIP.model_dump() | {"image": image})
    return {name: moving if name.endswith("i2v") else CLIP for name in NAMES}


async def sound(store: ArtifactStore, result: VideoResult) -> Any:
    assert result.audio is not None
    return soundfile.read(io.BytesIO(await store.get_bytes(result.audio)), always_2d=True)


@pytest.mark.parametrize("name", NAMES)
async def test_a_clip_has_the_frames_and_size_asked_for(
    name: str, engines: dict[str, Any], asked: dict[str, Any], store: ArtifactStore
) -> None:
    result = await engines[name].run(asked[name], Call())
    assert isinstance(result, VideoResult)
    assert (result.frames, result.fps, result.video.media_type) == (12, 24, "video/mp4")
    frames = await laws.pixels(store, result)
    assert frames.shape == (12, 64, 64, 3)
    assert frames.std() > 5
    assert (result.audio is not None) == name.startswith("ltx2")


@pytest.mark.parametrize("name", NAMES)
async def test_equal_seeds_give_equal_clips(name: str, engines: dict[str, Any], asked: dict[str, Any]) -> None:
    await laws.seeds_decide(engines[name], asked[name])


@pytest.mark.parametrize("name", NAMES)
async def test_progress_is_told_and_a_cancel_takes_one_step(
    name: str, engines: dict[str, Any], asked: dict[str, Any]
) -> None:
    await laws.progress_is_told(engines[name], asked[name])
    await laws.a_cancel_takes_one_step(engines[name], asked[name])


@pytest.mark.parametrize("name", NAMES)
async def test_requests_share_a_batch_and_look_as_they_do_alone(
    name: str, engines: dict[str, Any], asked: dict[str, Any]
) -> None:
    prompts = ("a boat", "a fox at night", "rain")
    clips = [asked[name].model_copy(update={"prompt": text, "seed": len(text)}) for text in prompts]
    await laws.clips_share_a_batch(engines[name], clips)


@pytest.mark.parametrize("name", ["ltx_video", "ltx2"])
async def test_nan_is_an_error_and_not_a_black_clip(name: str, engines: dict[str, Any], asked: dict[str, Any]) -> None:
    engine = engines[name]
    await laws.numbers_that_are_none_fail_alone(engine, asked[name], engine.pipeline.transformer.proj_out)


async def test_sound_that_is_no_number_is_an_error_though_the_picture_is_whole(engines: dict[str, Any]) -> None:
    engine = engines["ltx2"]
    with pytest.MonkeyPatch.context() as patch:
        vocoder = engine.pipeline.vocoder
        patch.setattr(vocoder.conv_out, "forward", lambda values: values[:, :2] * float("nan"))
        with pytest.raises(EngineFailed, match="values that are no numbers"):
            await engine.run(CLIP, Call())
    await engine.run(CLIP, Call())


async def test_sound_is_as_long_as_the_clip_to_the_sample(engines: dict[str, Any], store: ArtifactStore) -> None:
    for duration_s, fps in ((0.5, 24), (0.4, 25), (0.2, 30)):
        result = await engines["ltx2"].run(CLIP.model_copy(update={"duration_s": duration_s, "fps": fps}), Call())
        samples, rate_hz = await sound(store, result)
        assert (rate_hz, samples.shape) == (24_000, (round(result.frames * 24_000 / fps), 2))
        assert np.abs(samples).max() > 0.01


async def test_sound_has_the_seed_of_the_clip(engines: dict[str, Any]) -> None:
    heard = [(await engines["ltx2"].run(CLIP.model_copy(update={"seed": seed}), Call())).audio for seed in (1, 1, 2)]
    assert heard[0] == heard[1] != heard[2]


async def test_the_network_knows_the_rate_that_it_makes_frames_for(engines: dict[str, Any]) -> None:
    slow = CLIP.model_copy(update={"fps": 12, "duration_s": 1.0})
    assert await laws.sha(engines["ltx_video"], CLIP) != await laws.sha(engines["ltx_video"], slow)


@pytest.mark.parametrize(
    ("changes", "field", "words"),
    [
        ({"width": 48}, "width", "48 pixels: the model makes multiples of 32 from 32 on.*use"),
        ({"duration_s": 1.0}, "duration_s", "24 frames, and the model makes at most 17.*at most 0.708 s at 24 frames"),
        ({"steps": 1}, "steps", "too few steps of denoising.*use at least 2"),
        ({"prompt": "fox " * 30}, "prompt", "tokens, and the model reads 24.*shorten it"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
async def test_what_the_model_cannot_do_is_refused(
    engines: dict[str, Any], changes: Any, field: str, words: str
) -> None:
    request = CLIP.model_copy(update=changes)
    await laws.refused(lambda: engines["ltx_video"].run(request, Call()), BadInput, field, words)


async def test_counting_tokens_leaves_the_tokenizer_alone_that_reads_for_the_network(engines: dict[str, Any]) -> None:
    engine = engines["ltx_video"]
    await engine.run(CLIP, Call())
    backend = engine.pipeline.tokenizer.backend_tokenizer
    before = (backend.padding, backend.truncation)
    assert before[0] is not None
    engine.prepare(CLIP, {})
    assert (backend.padding, backend.truncation) == before


async def test_a_decoder_that_mirrors_its_edges_needs_two_positions(engines: dict[str, Any]) -> None:
    small = CLIP.model_copy(update={"height": 32})
    await laws.refused(lambda: engines["ltx2"].run(small, Call()), BadInput, "height", "multiples of 32 from 64 on")


async def test_a_picture_is_compressed_as_the_networks_training_pictures_were(engines: dict[str, Any]) -> None:
    picture = Image.fromarray(np.random.default_rng(1).integers(0, 256, (64, 64, 3), np.uint8))
    seen = engines["ltx2_i2v"].as_trained(picture)
    assert seen.size == picture.size
    assert np.asarray(seen).std() < np.asarray(picture).std()


@pytest.mark.parametrize("name", NAMES)
async def test_a_model_warms_up_with_its_smallest_clip(name: str, engines: dict[str, Any]) -> None:
    await engines[name].warm_up()
    assert engines[name].cold_start.warm_up_s is not None


@pytest.mark.parametrize("name", ["ltx_video", "ltx_video_i2v"])
async def test_a_decoder_that_denoises_draws_from_each_rows_seed(
    name: str, context: EngineContext, asked: dict[str, Any], tmp_path: Path
) -> None:
    folder = tmp_path / "weights"
    shutil.copytree(tiny_checkpoint(name), folder)
    settings = json.loads((folder / "vae" / "config.json").read_text()) | {"timestep_conditioning": True}
    torch.manual_seed(0)
    diffusers.AutoencoderKLLTXVideo.from_config(settings).save_pretrained(folder / "vae")
    engine = tiny_engine(name, context, source=Source(uri=f"file:{folder}"), options={"batch": 2, "decode_noise": 0.5})
    try:
        await laws.seeds_decide(engine, asked[name])
        await laws.clips_share_a_batch(engine, [asked[name].model_copy(update={"seed": seed}) for seed in (1, 2)])
    finally:
        await engine.close()


async def test_a_default_size_that_does_not_fit_is_told_as_such(engines: dict[str, Any]) -> None:
    asked = TextToVideoRequest(prompt="a red fox", duration_s=0.5, fps=24)
    words = "the default 720x480 does not fit, 720 pixels: .*multiples of 32.*give width and height, use 704"
    await laws.refused(lambda: engines["ltx_video"].run(asked, Call()), BadInput, "width", words)
