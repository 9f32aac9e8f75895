"""Stable Audio and ACE-Step, on tiny random weights in the published formats."""

import asyncio
import io
from collections.abc import AsyncIterator
from typing import Any

import numpy as np
import pytest
import pytest_asyncio
import soundfile

from serving.artifacts.store import ArtifactStore
from serving.backends.base import EngineContext
from serving.backends.call import Call
from serving.errors import BadInput, EngineFailed
from serving.protocol.tasks import MusicRequest, MusicResult
from tests.servers.tiny import context_in, tiny_engine
from tests.serving.backends.ray.engines import laws

pytestmark = pytest.mark.asyncio(loop_scope="module")

MUSIC = MusicRequest(prompt="warm piano", duration_s=0.75, steps=2, seed=7)
NAMES = ("stable_audio", "ace_step", "ace_step_turbo")


@pytest.fixture(scope="module")
def context(tmp_path_factory: pytest.TempPathFactory) -> EngineContext:
    return context_in(tmp_path_factory.mktemp("music"))


@pytest.fixture(scope="module")
def store(context: EngineContext) -> ArtifactStore:
    return context.artifacts


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def engines(context: EngineContext) -> AsyncIterator[dict[str, Any]]:
    found = {name: tiny_engine(name, context) for name in NAMES}
    yield found
    for engine in found.values():
        await engine.close()


async def heard(store: ArtifactStore, result: MusicResult) -> tuple[np.ndarray, int]:
    samples, rate_hz = soundfile.read(io.BytesIO(await store.get_bytes(result.audio)), always_2d=True)
    return samples, rate_hz


@pytest.mark.parametrize("name", NAMES)
async def test_music_is_stereo_at_48_khz_of_the_length_asked_for(
    name: str, engines: dict[str, Any], store: ArtifactStore
) -> None:
    result = await engines[name].run(MUSIC.model_copy(update={"duration_s": 0.7501}), Call())
    assert isinstance(result, MusicResult)
    samples, rate_hz = await heard(store, result)
    assert (rate_hz, samples.shape, result.duration_s) == (48_000, (36_005, 2), 36_005 / 48_000)
    assert np.abs(samples).max() > 0.05
    assert np.abs(samples[-1]).max() == 0
    assert result.made is not None
    assert (result.made.model, result.made.seed, result.made.steps) == (name, 7, 2)


@pytest.mark.parametrize("name", NAMES)
async def test_equal_seeds_give_equal_music(name: str, engines: dict[str, Any]) -> None:
    await laws.seeds_decide(engines[name], MUSIC)


@pytest.mark.parametrize("name", NAMES)
async def test_progress_is_told_and_a_cancel_takes_one_step(name: str, engines: dict[str, Any]) -> None:
    await laws.progress_is_told(engines[name], MUSIC)
    await laws.a_cancel_takes_one_step(engines[name], MUSIC)


@pytest.mark.parametrize("name", NAMES)
async def test_requests_share_a_batch_and_sound_as_they_do_alone(name: str, engines: dict[str, Any]) -> None:
    engine = engines[name]
    requests = [MUSIC.model_copy(update={"prompt": text, "seed": len(text)}) for text in ("a bell", "a drum", "a harp")]
    together = await asyncio.gather(*(engine.run(request, Call()) for request in requests))
    assert [result.made.batch for result in together] == [3, 3, 3]
    for request, row in zip(requests, await laws.outputs(engine, requests), strict=True):
        (alone,) = await laws.outputs(engine, [request])
        assert np.abs(alone - row).max() <= 1e-4


async def test_songs_of_other_lengths_in_tokens_keep_apart(engines: dict[str, Any]) -> None:
    """ACE-Step's network does not know padding from words: a shared pass would change the shorter one."""
    requests = [MUSIC.model_copy(update={"lyrics": text}) for text in ("la la", "la la la la")]
    found = await asyncio.gather(*(engines["ace_step"].run(request, Call()) for request in requests))
    assert [result.made.batch for result in found] == [1, 1]


@pytest.mark.parametrize("name", NAMES)
async def test_nan_is_an_error_and_not_a_silent_file(name: str, engines: dict[str, Any]) -> None:
    engine = engines[name]
    before = await laws.sha(engine, MUSIC)
    with pytest.MonkeyPatch.context() as patch:
        decoder = engine.pipeline.vae.decoder
        patch.setattr(decoder.conv2, "forward", lambda values: values[:, :2] * float("nan"))
        with pytest.raises(EngineFailed, match="values that are no numbers"):
            await engine.run(MUSIC, Call())
    assert await laws.sha(engine, MUSIC) == before


async def test_what_is_sung_and_how_it_is_guided_change_the_music(engines: dict[str, Any]) -> None:
    engine = engines["ace_step"]
    found = {
        await laws.sha(engine, MUSIC),
        await laws.sha(engine, MUSIC, lyrics="[verse] la la"),
        await laws.sha(engine, MUSIC, guidance=2.0),
        await laws.sha(engine, MUSIC, prompt=""),
        await laws.sha(engine, MUSIC, prompt="", mood="dramatic"),
    }
    assert len(found) == 5


@pytest.mark.parametrize(
    ("name", "changes", "field", "words"),
    [
        ("stable_audio", {"duration_s": 1.6}, "duration_s", "1.6 s, and the model makes at most 1.49.*at most 1.48"),
        ("stable_audio", {"lyrics": "la"}, "lyrics", "the model does not sing"),
        ("stable_audio", {"prompt": "piano " * 40}, "prompt", "tokens, and the model reads 64.*shorten it"),
        ("ace_step", {"prompt": "piano " * 60}, "prompt", "tokens, and the model reads 320"),
        ("ace_step", {"lyrics": "la " * 300}, "lyrics", "tokens, and the model reads 512"),
        ("ace_step_turbo", {"guidance": 3.0}, "guidance", "distilled and takes no guidance"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
async def test_what_the_model_cannot_do_is_refused(
    engines: dict[str, Any], name: str, changes: Any, field: str, words: str
) -> None:
    request = MUSIC.model_copy(update=changes)
    await laws.refused(lambda: engines[name].run(request, Call()), BadInput, field, words)


@pytest.mark.parametrize("name", NAMES)
async def test_a_model_warms_up_with_its_shortest_piece(name: str, engines: dict[str, Any]) -> None:
    await engines[name].warm_up()
    assert engines[name].cold_start.warm_up_s is not None
