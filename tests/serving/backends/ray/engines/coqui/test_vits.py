"""Coqui's VITS voices, on a tiny checkpoint in the format of its model zoo."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from serving.backends.ray.engines.coqui.vits import CoquiVitsEngine
from serving.errors import BadInput, EngineFailed, Unsupported
from tests.serving.backends.ray.engines import laws
from tests.serving.backends.ray.engines.damage import removed, settings
from tests.serving.backends.ray.engines.place import engine_of
from tests.serving.backends.ray.engines.voices.heard import samples_of, say, speech

pytestmark = pytest.mark.asyncio(loop_scope="module")

TEXT = "Hello my friend. How are you?"

engine = engine_of("vits_vctk", CoquiVitsEngine)


async def test_equal_seeds_give_equal_bytes_and_others_do_not(engine: CoquiVitsEngine) -> None:
    await laws.equal_seeds_give_equal_answers(engine, speech(engine, TEXT))


async def test_the_answer_is_mono_16_bit_sound(engine: CoquiVitsEngine, home: Path) -> None:
    said = await say(engine, TEXT)
    samples, info = await samples_of(home, said.audio)
    assert (info.channels, info.subtype, info.samplerate) == (1, "PCM_16", 22050)
    assert len(samples) == round(said.duration_s * 22050)


async def test_words_have_their_times(engine: CoquiVitsEngine) -> None:
    said = await say(engine, TEXT)
    assert [word.text for word in said.words] == TEXT.split()
    assert all(word.start_s < word.end_s <= said.duration_s for word in said.words)


async def test_voices_are_speakers_of_the_network(engine: CoquiVitsEngine) -> None:
    heard = {(await say(engine, TEXT, voice=voice)).audio.sha256 for voice in ("maya", "narrator")}
    assert len(heard) == 2


async def test_speed_is_a_factor_on_the_pace(engine: CoquiVitsEngine) -> None:
    slow, fast = [await say(engine, "hello " * 20, speed=speed) for speed in (0.5, 2.0)]
    assert slow.words[-1].end_s > 2 * fast.words[-1].end_s


async def test_progress_is_told_part_by_part_and_a_cancel_takes_effect_at_the_next(engine: CoquiVitsEngine) -> None:
    told, _ = await laws.progress_rises(engine, speech(engine, TEXT))
    assert told == [index / 8 for index in range(1, 9)]
    await laws.a_cancel_is_heard_at_once(engine, speech(engine, "Hello."), longer=speech(engine, TEXT))


@pytest.mark.parametrize(
    ("part", "told"),
    [("waveform_decoder.conv_pre.bias", "not sound"), ("text_encoder.emb.weight", "never end|numbers")],
)
async def test_numbers_that_are_none_are_an_error_and_no_file(engine: CoquiVitsEngine, part: str, told: str) -> None:
    await laws.a_broken_weight_fails_alone(engine, speech(engine, TEXT), engine._network.get_parameter(part), told)


async def test_a_sentence_without_end_is_an_error(engine: CoquiVitsEngine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("serving.backends.ray.engines.coqui.vits._MOST_S", 0.1)
    with pytest.raises(EngineFailed, match="would never end"):
        await say(engine, TEXT)


@pytest.mark.parametrize(
    ("fields", "kind", "told"),
    [
        pytest.param({"voice": "mayo"}, BadInput, "there is no voice 'mayo'", id="voice"),
        pytest.param({"language": "hi"}, Unsupported, "does not speak 'hi'", id="language"),
        pytest.param({"text": "?!"}, BadInput, "nothing that can be spoken", id="nothing spoken"),
        pytest.param({"sample": "as below"}, BadInput, "clones no voices", id="sample"),
    ],
)
async def test_what_the_model_cannot_do_is_told_by_name(
    engine: CoquiVitsEngine, fields: dict[str, Any], kind: type[Exception], told: str
) -> None:
    if "sample" in fields:
        fields = {"sample": (await say(engine, "a")).audio}
    with pytest.raises(kind, match=told):
        await say(engine, **{"text": "Hello", **fields})


async def test_the_smallest_request_warms_the_network_up(engine: CoquiVitsEngine) -> None:
    await engine.warm_up()
    assert engine.cold_start.warm_up_s > 0


def without_a_key(folder: Path) -> None:
    held = torch.load(folder / "model_file.pth", weights_only=True)
    del held["model"]["text_encoder.emb.weight"]
    torch.save(held, folder / "model_file.pth")


def without_the_speaker(folder: Path) -> None:
    (folder / "speaker_ids.json").write_text(json.dumps({"VCTK_p225": 0, "else": 1}))


def of_another_network(folder: Path) -> None:
    settings(folder, "config.json", model="glow_tts")


def with_a_class_of_its_own(folder: Path) -> None:
    characters = json.loads((folder / "config.json").read_text())["characters"]
    settings(folder, "config.json", characters=characters | {"characters_class": "os.path"})


@pytest.mark.parametrize(
    ("harm", "told"),
    [
        (without_a_key, "missing text_encoder.emb.weight"),
        (removed("speaker_ids.json"), r"speaker_ids\.json"),
        (without_the_speaker, "no speaker 'VCTK_p226'"),
        (of_another_network, "of the network 'glow_tts'"),
        (with_a_class_of_its_own, "names 'os.path' for its characters"),
    ],
)
async def test_a_checkpoint_that_does_not_fit_is_refused_in_one_line(
    damaged: Any, harm: Callable[[Path], None], told: str
) -> None:
    laws.refused_in_one_line(lambda: damaged("vits_vctk", harm, ["model_file.pth"]), told)
