"""XTTS voices by coqui-tts, on a tiny checkpoint in the published format."""

import os
import shutil
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import torch

from serving.artifacts.store import ArtifactStore
from serving.backends.ray.engines.coqui.xtts import XttsEngine
from serving.backends.ray.tiny.build import tiny_checkpoint
from serving.errors import BadInput, Unsupported
from serving.protocol.artifact import ArtifactRef
from serving.repository.model import Model, Source, Voice
from serving.settings import Settings
from tests.servers.tiny import changed, context_in, tiny_model
from tests.serving.backends.ray.engines import laws
from tests.serving.backends.ray.engines.place import engine_of
from tests.serving.backends.ray.engines.voices.heard import samples_of, say, speech

pytestmark = pytest.mark.asyncio(loop_scope="module")

engine = engine_of("xtts_v2", XttsEngine)


async def stored(home: Path, samples: np.ndarray, rate_hz: int = 16000) -> ArtifactRef:
    stream = BytesIO()
    soundfile.write(stream, samples, rate_hz, format="WAV", subtype="FLOAT")
    store = ArtifactStore.of(Settings(home=home).resolved())
    return await store.put_bytes(stream.getvalue(), media_type="audio/wav", name="sample.wav")


def hum(pitch_hz: float, seconds: float = 1.5) -> np.ndarray:
    return 0.3 * np.sin(2 * np.pi * pitch_hz * np.arange(round(16000 * seconds)) / 16000)


async def test_equal_seeds_give_equal_bytes_and_others_do_not(engine: XttsEngine) -> None:
    await laws.equal_seeds_give_equal_answers(engine, speech(engine, "Hello."))


async def test_the_answer_is_mono_16_bit_sound(engine: XttsEngine, home: Path) -> None:
    said = await say(engine, "Hello.")
    samples, info = await samples_of(home, said.audio)
    assert (info.channels, info.subtype, info.samplerate) == (1, "PCM_16", 24000)
    assert len(samples) == round(said.duration_s * 24000)


async def test_a_voice_is_cloned_from_a_sample(engine: XttsEngine, home: Path) -> None:
    low, high = [await stored(home, hum(pitch_hz)) for pitch_hz in (110, 330)]
    said = [await say(engine, "Hi.", sample=sample, voice="anyone") for sample in (low, high, low)]
    assert said[0].audio == said[2].audio
    assert said[0].audio.sha256 != said[1].audio.sha256


async def test_voices_are_held_within_a_bound(engine: XttsEngine, home: Path) -> None:
    sample = await stored(home, hum(220))
    for voice in ({"voice": "maya"}, {"voice": "narrator"}, {"sample": sample}):
        await say(engine, "a", **voice)
    assert engine._cast.names() == [("voice", "narrator"), ("sample", sample.sha256)]


async def test_a_voice_of_the_card_may_be_a_recording(home: Path, tmp_path: Path) -> None:
    folder = tmp_path / "checkpoint"
    shutil.copytree(tiny_checkpoint("xtts_v2"), folder, copy_function=os.link)
    soundfile.write(folder / "anna.wav", hum(200), 16000)
    voices = {"anna": Voice(language="en", gender="female", options={"sample": "anna.wav"})}
    model = changed(tiny_model("xtts_v2"), voices=voices, source=_from(folder))
    engine = XttsEngine(model, context_in(home))
    assert (await say(engine, "Hi.")).duration_s > 0
    await engine.close()


async def test_speed_is_a_factor_on_the_pace(engine: XttsEngine) -> None:
    slow, fast = [await say(engine, "Hello.", speed=speed) for speed in (0.5, 2.0)]
    assert slow.duration_s > 2 * fast.duration_s


async def test_progress_is_told_token_by_token(engine: XttsEngine) -> None:
    await laws.progress_rises(engine, speech(engine, "Hello. Hi."), least=6)


async def test_a_cancel_takes_effect_at_the_next_token_and_the_next_request_is_as_before(engine: XttsEngine) -> None:
    await laws.a_cancel_is_heard_at_once(engine, speech(engine, "Hello."), longer=speech(engine, "Hello. Hi."))


async def test_sound_that_is_no_numbers_is_an_error(engine: XttsEngine) -> None:
    bias = engine._network.get_parameter("hifigan_decoder.waveform_decoder.conv_pre.bias")
    await laws.a_broken_weight_fails_alone(engine, speech(engine, "Hi."), bias, "not sound")


@pytest.mark.parametrize(
    ("fields", "kind", "told"),
    [
        pytest.param({"text": "Hi жук"}, BadInput, "no token for 'ж', 'у', 'к'", id="characters"),
        pytest.param({"text": "ab " * 60}, BadInput, "tokens, and the model reads 99", id="tokens"),
        pytest.param({"voice": "mayo"}, BadInput, "there is no voice 'mayo'", id="voice"),
        pytest.param({"language": "ja"}, Unsupported, "does not speak 'ja'", id="language"),
        pytest.param({"sample": hum(200, 0.3)}, BadInput, "the sound is 0.300 s long", id="short sample"),
        pytest.param({"sample": hum(200) * 0}, BadInput, "the sample is silent", id="silent sample"),
        pytest.param({"sample": hum(200) * np.nan}, BadInput, "no numbers", id="sample of no numbers"),
        pytest.param({"sample": hum(200, 61)}, BadInput, "60", id="long sample"),
    ],
)
async def test_what_the_model_cannot_do_is_told_by_name(
    engine: XttsEngine, home: Path, fields: dict[str, Any], kind: type[Exception], told: str
) -> None:
    if "sample" in fields:
        fields = {"sample": await stored(home, fields["sample"])}
    with pytest.raises(kind, match=told):
        await say(engine, **{"text": "Hello", **fields})


async def test_the_smallest_request_warms_the_network_up(engine: XttsEngine) -> None:
    await engine.warm_up()
    assert engine.cold_start.warm_up_s > 0


def spoilt(tmp_path: Path, name: str, held: object) -> Model:
    """The tiny model with another file in its checkpoint."""
    folder = tmp_path / "checkpoint"
    shutil.copytree(tiny_checkpoint("xtts_v2"), folder, copy_function=os.link)
    (folder / name).unlink()
    torch.save(held, folder / name)
    return changed(tiny_model("xtts_v2"), source=_from(folder))


async def test_a_checkpoint_that_does_not_fit_is_refused_in_one_line(tmp_path: Path) -> None:
    held = torch.load(tiny_checkpoint("xtts_v2") / "model.pth", weights_only=True)["model"]
    del held["gpt.mel_head.bias"]
    held |= {"gpt.text_head.bias": torch.zeros(2, 3), "gpt.more": torch.zeros(2), "dvae.unused": torch.zeros(2)}
    with pytest.raises(BadInput) as caught:
        XttsEngine(spoilt(tmp_path, "model.pth", {"model": held}), context_in(tmp_path))
    assert str(caught.value) == (
        "xtts_v2: checkpoint: the checkpoint does not fit the network: misshapen gpt.text_head.bias is 2x3 and not 50; "
        "missing gpt.mel_head.bias; unknown gpt.more: use the checkpoint that belongs to this network, whole"
    )


async def test_a_voice_without_a_speaker_is_refused_before_any_request(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match=r"voices\.maya\.options: .*'Claribel Dervla': use one of Else"):
        XttsEngine(spoilt(tmp_path, "speakers_xtts.pth", {"Else": {}}), context_in(tmp_path))


def _from(folder: Path) -> Source:
    return Source(uri=f"file:{folder}", allow_pickles=["model.pth", "speakers_xtts.pth"])
