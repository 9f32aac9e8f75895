"""MusicGen on a tiny checkpoint of the published layout."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from serving.backends.call import Call
from serving.backends.ray.engines.musicgen.engine import MusicgenEngine
from serving.errors import BadInput
from serving.protocol.tasks import MusicRequest
from tests.servers.tiny import context_in, tiny_engine
from tests.serving.backends.ray.engines import laws
from tests.serving.backends.ray.engines.place import engine_of
from tests.serving.backends.ray.engines.voices.heard import play, samples_of

pytestmark = pytest.mark.asyncio(loop_scope="module")

PIANO = MusicRequest(prompt="slow piano", duration_s=0.4)

engine = engine_of("musicgen_small", MusicgenEngine)


async def test_equal_seeds_give_equal_bytes_and_others_do_not(engine: MusicgenEngine) -> None:
    await laws.equal_seeds_give_equal_answers(engine, PIANO)


async def test_the_prompt_and_the_mood_are_heard(engine: MusicgenEngine) -> None:
    requests: list[dict[str, Any]] = [
        {"prompt": "slow piano"},
        {"prompt": "fast drums"},
        {"prompt": ""},
        {"prompt": "", "mood": "dramatic"},
    ]
    heard = {(await play(engine, **request, duration_s=0.4)).audio.sha256 for request in requests}
    assert len(heard) == 4


async def test_the_answer_is_stereo_48_khz_exactly_as_long_as_asked_for(engine: MusicgenEngine, home: Path) -> None:
    played = await play(engine, "slow piano", duration_s=0.73)
    samples, info = await samples_of(home, played.audio)
    assert (info.channels, info.subtype, info.samplerate, info.frames) == (2, "PCM_16", 48000, 35040)
    assert played.duration_s == pytest.approx(0.73)
    assert np.abs(samples[:30000]).max() > 0
    assert np.abs(samples[-1]).max() == 0


async def test_the_codec_makes_as_many_frames_as_were_asked_for(engine: MusicgenEngine) -> None:
    output = await engine.runner.run(engine.prepare(request := engine.smallest(), {}), Call(), None)
    assert output.output.shape == (round(request.duration_s * 32000), 1)


async def test_requests_in_a_batch_sound_as_each_by_itself(engine: MusicgenEngine, home: Path) -> None:
    pieces = [("slow piano", 1), ("a fast drum and a much longer prompt", 2), ("flute", 3)]
    requests = [MusicRequest(prompt=prompt, duration_s=0.5, seed=seed) for prompt, seed in pieces]
    await laws.rows_share_a_batch(engine, context_in(home).artifacts, requests)


async def test_guidance_is_taken_from_the_request(engine: MusicgenEngine) -> None:
    heard = {(await play(engine, "flute", duration_s=0.4, guidance=value)).audio.sha256 for value in (None, 3, 9, 1, 0)}
    assert len(heard) == 3  # 3 is the model's own, up to 1 there is none


async def test_the_larger_model_is_the_same_engine(home: Path) -> None:
    engine = tiny_engine("musicgen_medium", context_in(home))
    assert isinstance(engine, MusicgenEngine)
    assert (await play(engine, "slow piano", duration_s=0.3)).duration_s == pytest.approx(0.3)
    await engine.close()


async def test_progress_is_told_step_by_step(engine: MusicgenEngine) -> None:
    told, played = await laws.progress_rises(engine, PIANO)
    assert played.made is not None
    assert played.made.steps == len(told) == 20 + 3


async def test_a_cancel_takes_effect_at_the_next_step(engine: MusicgenEngine) -> None:
    await laws.a_cancel_is_heard_at_once(engine, PIANO, longer=MusicRequest(prompt="slow piano", duration_s=1))


async def test_numbers_that_are_none_are_an_error_and_the_next_request_is_as_before(engine: MusicgenEngine) -> None:
    weight = engine.network.decoder.lm_heads[1].weight
    words = "musicgen_small: the network's output holds no numbers"
    await laws.a_broken_weight_fails_alone(engine, PIANO, weight, words, at=(3, 3))


@pytest.mark.parametrize(
    ("fields", "told"),
    [
        pytest.param({"prompt": "a" * 100}, r"101 tokens, and the model reads 64|102 tokens", id="prompt"),
        pytest.param({"lyrics": "la la"}, "sings no words", id="lyrics"),
        pytest.param({"duration_s": 0.01}, "0.01 s is too short", id="length"),
    ],
)
async def test_what_the_model_cannot_do_is_told_by_name(
    engine: MusicgenEngine, fields: dict[str, Any], told: str
) -> None:
    with pytest.raises(BadInput, match=told):
        await play(engine, **{"prompt": "slow piano", **fields})


async def test_counting_a_prompt_does_not_touch_the_tokenizer_that_the_network_reads_with(
    engine: MusicgenEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    # It knows its length and cannot be called: two threads would share its padding.
    monkeypatch.setattr(engine, "tokenizer", SimpleNamespace(model_max_length=512))
    assert engine.prepare(MusicRequest(prompt="slow piano", duration_s=1), {}).prompt == "slow piano"
