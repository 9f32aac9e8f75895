"""VITS voices of transformers, on a tiny checkpoint in the format of MMS-TTS."""

import asyncio
import json
import shutil
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import pytest_asyncio
import torch
from safetensors.torch import load_file, save_file

from serving.backends.call import Call
from serving.backends.ray.engines.network.seeds import generator
from serving.backends.ray.engines.voices.vits import VitsEngine
from serving.backends.ray.engines.voices.vits_passes import _noise_seed
from serving.backends.ray.tiny.build import tiny_checkpoint
from serving.errors import BadInput, Cancelled, EngineFailed, Unsupported
from serving.protocol.tasks import SpeechRequest
from serving.repository.model import Source, Voice
from tests.servers.tiny import changed, context_in, tiny_engine, tiny_model
from tests.serving.backends.ray.engines.voices.heard import Stop, samples_of, say

pytestmark = pytest.mark.asyncio(loop_scope="module")

TEXT = "Hello my friend, how are you? It is a fine day. We shall see."


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("vits")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def engine(home: Path) -> AsyncIterator[VitsEngine]:
    engine = tiny_engine("mms_tts_eng", context_in(home))
    assert isinstance(engine, VitsEngine)
    yield engine
    await engine.close()


async def test_equal_seeds_give_equal_bytes_and_others_do_not(engine: VitsEngine) -> None:
    first, again, other = [await say(engine, TEXT, seed=seed) for seed in (1, 1, 2)]
    assert first.audio == again.audio
    assert first.audio.sha256 != other.audio.sha256


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
    alone = [await say(engine, text, seed=7) for text in texts]
    together = await asyncio.gather(*(say(engine, text, seed=7) for text in texts))
    assert [said.made.batch for said in together if said.made] == [4] * 4
    for one, shared in zip(alone, together, strict=True):
        before, _ = await samples_of(home, one.audio)
        after, _ = await samples_of(home, shared.audio)
        assert before.shape == after.shape
        assert np.abs(before - after).max() <= 2


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
    told: list[float] = []
    await say(engine, TEXT, Call(on_progress=told.append))
    assert told == sorted(told)
    assert len(set(told)) >= 4
    assert told[-1] == 1


async def test_a_cancel_takes_effect_at_the_next_part(engine: VitsEngine) -> None:
    stop = Stop()
    with pytest.raises(Cancelled):
        await say(engine, TEXT, stop.call)
    assert len(stop.told) == 1


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
    weight = engine.network.get_parameter(part)
    kept = weight.data.clone()
    weight.data.fill_(float("nan"))
    try:
        with pytest.raises(EngineFailed, match=told):
            await say(engine, TEXT)
    finally:
        weight.data.copy_(kept)


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


def without_a_key(folder: Path) -> None:
    tensors = load_file(folder / "model.safetensors")
    del tensors["decoder.conv_pre.bias"]
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})


def with_a_key_more(folder: Path) -> None:
    tensors = load_file(folder / "model.safetensors")
    tensors["decoder.conv_more.bias"] = tensors["decoder.conv_pre.bias"].clone()
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})


def with_a_shape_of_its_own(folder: Path) -> None:
    tensors = load_file(folder / "model.safetensors")
    tensors["decoder.conv_pre.bias"] = tensors["decoder.conv_pre.bias"][:3].clone()
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})


def cut_short(folder: Path) -> None:
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-1000])


def without_configuration(folder: Path) -> None:
    (folder / "config.json").unlink()


def as_a_pickle(folder: Path) -> None:
    torch.save(load_file(folder / "model.safetensors"), folder / "pytorch_model.bin")
    (folder / "model.safetensors").unlink()


def of_phonemes(folder: Path) -> None:
    path = folder / "tokenizer_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"phonemize": True}))


@pytest.mark.parametrize(
    ("harm", "told"),
    [
        (without_a_key, "missing decoder.conv_pre.bias"),
        (with_a_key_more, "unknown decoder.conv_more.bias"),
        (with_a_shape_of_its_own, "decoder.conv_pre.bias is 3 and not 32"),
        (cut_short, "model.safetensors"),
        (without_configuration, "config.json"),
        (as_a_pickle, "pytorch_model.bin"),
        (of_phonemes, "reads phonemes"),
    ],
)
async def test_a_checkpoint_that_does_not_fit_is_refused_in_one_line(
    harm: Callable[[Path], None], told: str, tmp_path: Path
) -> None:
    folder = tmp_path / "checkpoint"
    shutil.copytree(tiny_checkpoint("mms_tts_eng"), folder)
    harm(folder)
    model = changed(tiny_model("mms_tts_eng"), source=Source(uri=f"file:{folder}"))
    with pytest.raises(BadInput) as caught:
        VitsEngine(model, context_in(tmp_path))
    assert told in f"{caught.value.field}: {caught.value}"
    assert caught.value.fix
    assert "\n" not in str(caught.value)


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
