"""VITS voices of transformers, on a tiny checkpoint in the format of MMS-TTS."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from serving.backends.ray.engines.network.seeds import generator
from serving.backends.ray.engines.voices.vits import VitsEngine
from serving.backends.ray.engines.voices.vits_passes import _noise_seed
from serving.errors import BadInput, EngineFailed, Unsupported
from serving.protocol.tasks import SpeechRequest
from serving.repository.model import Voice
from tests.servers.tiny import context_in, tiny_engine
from tests.serving.backends.ray.engines import damage, laws
from tests.serving.backends.ray.engines.place import engine_of
from tests.serving.backends.ray.engines.voices.heard import samples_of, say, speech

pytestmark = pytest.mark.asyncio(loop_scope="module")

TEXT = "Hello my friend, how are you? It is a fine day. We shall see."

engine = engine_of("mms_tts_eng", VitsEngine)


async def test_equal_seeds_give_equal_bytes_and_others_do_not(engine: VitsEngine) -> None:
    await laws.equal_seeds_give_equal_answers(engine, speech(engine, TEXT))


async def test_the_answer_is_mono_16_bit_sound_with_the_times_of_its_words(engine: VitsEngine, home: Path) -> None:
    said = await say(engine, TEXT)
    samples, info = await samples_of(home, said.audio)
    assert (info.channels, info.subtype, info.samplerate) == (1, "PCM_16", 16000)
    assert len(samples) == round(said.duration_s * 16000)
    assert [word.text for word in said.words] == TEXT.split()
    ends = [0.0, *(word.end_s for word in said.words)]
    assert all(before <= word.start_s < word.end_s for before, word in zip(ends, said.words, strict=False))
    assert ends[-1] < said.duration_s


async def test_speed_is_a_factor_on_the_pace_of_words_and_not_on_pauses(engine: VitsEngine) -> None:
    slow, fast = [await say(engine, "abcdefgh " * 20, speed=speed) for speed in (0.5, 2.0)]
    assert slow.words[-1].end_s > 2 * fast.words[-1].end_s


async def test_requests_in_a_batch_sound_as_each_by_itself(engine: VitsEngine, home: Path) -> None:
    texts = ["One word", "Some more words than that", TEXT, "And the last"]
    requests = [speech(engine, text, seed=7) for text in texts]
    await laws.rows_share_a_batch(engine, context_in(home).artifacts, requests, most=2)


async def test_a_long_sentence_is_decoded_in_windows_without_a_seam(
    engine: VitsEngine, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole, _ = await samples_of(home, (await say(engine, "abcd " * 20)).audio)
    monkeypatch.setattr("serving.backends.ray.engines.voices.vits_passes._WINDOW_FRAMES", 16)
    parts, _ = await samples_of(home, (await say(engine, "abcd " * 20)).audio)
    assert np.abs(whole - parts).max() <= 2


async def test_a_sentence_is_what_the_library_makes_of_the_same_noise(
    engine: VitsEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    (line,) = engine.prepare(SpeechRequest(text="hello my friend", voice="narrator", seed=3), {}).lines
    with torch.inference_mode():
        (sound,) = engine._passes.run([line], lambda: None, lambda: None)
        channels = engine._passes._config.flow_size
        spoken = torch.randn(len(sound.samples) // 256, channels, generator=generator(_noise_seed(line) ^ 1))
        timed = torch.randn(2, len(line.ids), generator=generator(_noise_seed(line)))
        monkeypatch.setattr(torch, "randn", lambda *_: timed.unsqueeze(0))
        monkeypatch.setattr(torch, "randn_like", lambda _: spoken.T.unsqueeze(0))
        whole = engine.network(torch.tensor([line.ids])).waveform[0].numpy()
    assert np.abs(whole - sound.samples).max() < 1e-6


async def test_progress_is_told_part_by_part(engine: VitsEngine) -> None:
    await laws.progress_rises(engine, speech(engine, TEXT), least=4)


async def test_a_cancel_takes_effect_at_the_next_part(engine: VitsEngine) -> None:
    await laws.a_cancel_is_heard_at_once(engine, speech(engine, "Hello"), longer=speech(engine, TEXT))


async def test_a_failure_in_the_network_leaves_the_next_request_as_it_was(engine: VitsEngine) -> None:
    before = await say(engine, TEXT, seed=3)

    def fail(*_: object) -> None:
        raise ZeroDivisionError("somewhere inside")

    hook = engine.network.flow.register_forward_hook(fail)
    with pytest.raises(EngineFailed, match="mms_tts_eng: ZeroDivisionError: somewhere inside"):
        await say(engine, TEXT, seed=3)
    hook.remove()
    assert (await say(engine, TEXT, seed=3)).audio == before.audio


@pytest.mark.parametrize(
    ("part", "told"), [("decoder.conv_pre.bias", "not sound"), ("text_encoder.embed_tokens.weight", "no numbers")]
)
async def test_numbers_that_are_none_are_an_error_and_no_file(engine: VitsEngine, part: str, told: str) -> None:
    await laws.a_broken_weight_fails_alone(engine, speech(engine, TEXT), engine.network.get_parameter(part), told)


async def test_a_sentence_without_end_is_an_error(engine: VitsEngine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("serving.backends.ray.engines.voices.vits_passes._MOST_S", 0.1)
    with pytest.raises(EngineFailed, match="a sentence of 53 symbols would never end"):
        await say(engine, "Some more words than that.")


@pytest.mark.parametrize(
    ("fields", "kind", "told"),
    [
        pytest.param({"text": "It costs 9€"}, BadInput, "'9' .DIGIT NINE., '€' .EURO SIGN.", id="characters"),
        pytest.param({"text": "?!"}, BadInput, "nothing that can be spoken", id="nothing spoken"),
        pytest.param({"voice": "narator"}, BadInput, "there is no voice 'narator'", id="voice"),
        pytest.param({"language": "hi"}, Unsupported, "does not speak 'hi'", id="language"),
        pytest.param({"sample": "as below"}, BadInput, "clones no voices", id="sample"),
    ],
)
async def test_what_the_model_cannot_do_is_told_by_name(
    engine: VitsEngine, fields: dict[str, Any], kind: type[Exception], told: str
) -> None:
    if "sample" in fields:
        fields = {"sample": (await say(engine, "a")).audio}
    with pytest.raises(kind, match=told):
        await say(engine, **{"text": "Hello", **fields})


async def test_half_precision_speaks_the_same_words(engine: VitsEngine, home: Path) -> None:
    half = tiny_engine("mms_tts_eng", context_in(home, precision="bf16"))
    assert isinstance(half, VitsEngine)
    said, whole = await say(half, TEXT), await say(engine, TEXT)
    assert said.made is not None
    assert said.made.precision == "bf16"
    assert [word.text for word in said.words] == [word.text for word in whole.words]
    assert said.duration_s == pytest.approx(whole.duration_s, rel=0.2)
    await half.close()


async def test_hindi_is_spoken_from_devanagari(home: Path) -> None:
    engine = tiny_engine("mms_tts_hin", context_in(home))
    assert isinstance(engine, VitsEngine)
    said = await say(engine, "नमस्ते दोस्त, आप कैसे हैं? मैं ठीक हूँ।")
    assert [word.text for word in said.words][:2] == ["नमस्ते", "दोस्त,"]
    await engine.close()


async def test_warming_up_is_counted_into_the_cold_start(engine: VitsEngine) -> None:
    await engine.warm_up()
    assert engine.cold_start.load_s > 0
    assert engine.cold_start.weights_bytes > 100_000
    assert engine.cold_start.warm_up_s > 0


BIAS = "decoder.conv_pre.bias"


def cut_at_the_end(folder: Path) -> None:
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-1000])


@pytest.mark.parametrize(
    ("harm", "told"),
    [
        (damage.without(BIAS), f"missing {BIAS}"),
        (damage.with_one_more, "unknown other"),
        (damage.narrowed(BIAS, 3), f"{BIAS} is 3 and not 32"),
        (cut_at_the_end, r"model\.safetensors"),
        (damage.removed("config.json"), r"config\.json"),
        (damage.pickled, r"pytorch_model\.bin"),
        (lambda folder: damage.settings(folder, "tokenizer_config.json", phonemize=True), "reads phonemes"),
    ],
    ids=["missing key", "extra key", "misshapen key", "cut", "no configuration", "pickle", "phonemes"],
)
async def test_a_checkpoint_that_does_not_fit_is_refused_in_one_line(
    damaged: Any, harm: Callable[[Path], None], told: str
) -> None:
    laws.refused_in_one_line(lambda: damaged("mms_tts_eng", harm), told)


async def test_a_voice_that_the_network_does_not_have_is_refused_before_any_request(tmp_path: Path) -> None:
    voices = {"anna": Voice(language="en", gender="female", options={"speaker_id": 4})}
    with pytest.raises(BadInput, match="the network has 1 speakers, not 4") as caught:
        tiny_engine("mms_tts_eng", context_in(tmp_path), voices=voices)
    assert caught.value.field == "mms_tts_eng/model.yaml:voices.anna.options.speaker_id"


async def test_the_smallest_request_is_one_that_the_model_can_answer(engine: VitsEngine) -> None:
    request = engine.smallest()
    assert isinstance(request, SpeechRequest)
    engine.check(request)
    assert engine.prepare(request, {}).lines
