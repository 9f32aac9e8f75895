"""Whisper by either library: equal words, shared passes, spans, languages, bounds, cancel, recovery."""

import asyncio
from itertools import pairwise

import numpy as np
import pytest

from serving.backends.call import Call
from serving.errors import BadInput, Cancelled, EngineFailed, TooLarge
from serving.protocol.tasks import Span, TranscriptionRequest
from tests.serving.backends.ray.engines import laws
from tests.serving.backends.ray.engines.whisper.conftest import RATE, Room, sound_of, tones

pytestmark = pytest.mark.asyncio(loop_scope="module")


async def test_equal_sounds_give_equal_words_and_others_do_not(room: Room) -> None:
    first, again, other = [await room.hear(tones(seed, 4)) for seed in (1, 1, 2)]
    assert first.words
    assert (first.words, first.language) == (again.words, again.language)
    assert first.words != other.words


async def test_words_are_in_order_and_within_the_sound(room: Room) -> None:
    result = await room.hear(tones(3, 70), language="zh")
    assert len(result.words) > 10
    assert all(a.start_s <= a.end_s <= b.start_s + 1e-9 for a, b in pairwise(result.words))
    assert result.words[-1].start_s > 40
    assert result.words[-1].end_s <= 70
    assert all(word.text.strip() == word.text != "" for word in result.words)


async def test_the_language_is_detected_with_its_probability_where_none_is_asked_for(room: Room) -> None:
    result = await room.hear(tones(1, 3))
    assert result.language_probability is not None
    assert 1 / 100 < result.language_probability <= 1
    asked = await room.hear(tones(1, 3), language="pt-br")
    assert (asked.language, asked.language_probability) == ("pt-br", None)


async def test_a_language_without_a_token_is_refused_with_the_list(room: Room) -> None:
    with pytest.raises(BadInput, match=r"language: the model does not know 'eo': .*, bn, .*, yue"):
        await room.hear(tones(1, 1), language="eo")


async def test_only_what_lies_in_the_spans_is_heard(room: Room) -> None:
    sound = tones(4, 12)
    spans = [Span(start_s=8, end_s=10), Span(start_s=2, end_s=3.5)]
    result = await room.hear(sound, language="zh", spans=spans)
    assert result.words
    assert all(2 <= word.start_s <= word.end_s <= 10 for word in result.words)
    silenced = sound.copy()
    silenced[: 2 * RATE] = silenced[round(3.5 * RATE) : 8 * RATE] = silenced[10 * RATE :] = 0
    assert (await room.hear(silenced, language="zh", spans=spans)).words == result.words
    assert (await room.hear(sound, spans=[])).words == []


async def test_silence_has_no_words_and_no_language(room: Room) -> None:
    result = await room.hear(np.zeros(2 * RATE))
    assert (result.words, result.language, result.language_probability) == ([], "und", 0.0)


async def test_short_requests_share_passes_and_hear_what_they_hear_alone(room: Room) -> None:
    sounds = [sound_of(tones(seed, 2 + seed)) for seed in range(3)]
    alone = [(await room.run(sound)).output for sound in sounds]
    together = await asyncio.gather(*(room.run(sound) for sound in sounds))
    assert [ran.batch for ran in together] == [3, 3, 3]
    assert [ran.output for ran in together] == alone


async def test_requests_of_different_languages_share_a_batch(room: Room) -> None:
    sounds = [sound_of(tones(1, 3), code) for code in ("hi", None, "zh")]
    alone = [(await room.run(sound)).output for sound in sounds]
    together = await asyncio.gather(*(room.run(sound) for sound in sounds))
    assert [ran.batch for ran in together] == [3, 3, 3]
    for ran, output in zip(together, alone, strict=True):
        assert (ran.output.language, ran.output.words) == (output.language, output.words)


async def test_a_whole_film_shares_its_passes_with_nobody(room: Room) -> None:
    assert room.engine.batch_key(sound_of(tones(1, 150), None)) is None


async def test_one_that_leaves_a_batch_takes_its_windows_with_it(room: Room) -> None:
    stays = sound_of(tones(1, 3), "zh")
    call = Call(on_progress=lambda done: call.cancel())
    results = await asyncio.gather(room.run(stays), room.run(sound_of(tones(2, 100)), call), return_exceptions=True)
    assert isinstance(results[1], Cancelled)
    assert not isinstance(results[0], BaseException)
    assert results[0].output == (await room.run(stays)).output


async def test_progress_rises_to_the_end(room: Room) -> None:
    _, result = await laws.progress_rises(room.engine, await room.request(tones(5, 110), language="en"), least=3)
    assert result.made is not None
    assert result.made.steps == 2  # passes of three windows


async def test_a_cancel_stops_at_the_next_step_and_the_next_request_is_unharmed(room: Room) -> None:
    short, longer = [await room.request(tones(5, seconds), language="en") for seconds in (4, 110)]
    assert await laws.a_cancel_is_heard_at_once(room.engine, short, longer) == 0


async def test_a_request_that_fails_does_not_poison_the_next(room: Room) -> None:
    good = (await room.hear(tones(1, 4), language="en")).words
    broken = sound_of(tones(1, 4), "no such language")
    with pytest.raises(EngineFailed):
        await room.run(broken)
    assert (await room.hear(tones(1, 4), language="en")).words == good


async def test_sounds_over_the_bound_and_samples_that_are_no_numbers_are_refused(room: Room) -> None:
    with pytest.raises(TooLarge, match="longer than 120 s"):
        await room.hear(np.zeros(121 * RATE))
    broken = tones(1, 1)
    broken[RATE // 4] = np.nan
    audio = await room.sound(broken, subtype="FLOAT")
    with pytest.raises(BadInput, match=r"audio: .*no numbers.*0\.25"):
        await room.engine.run(TranscriptionRequest(audio=audio), Call())
    with pytest.raises(BadInput, match="audio"):
        await room.hear(np.zeros(10))


async def test_the_warm_up_runs_all_parts_and_is_counted(room: Room) -> None:
    await room.engine.warm_up()
    assert room.engine.cold_start.warm_up_s is not None


async def test_both_libraries_hear_the_same_in_the_same_network() -> None:
    rooms = [Room(name) for name in ("whisper_large_v3", "whisper_transformers")]
    faster, original = [await each.hear(tones(7, 6)) for each in rooms]
    assert "".join(word.text for word in faster.words) == "".join(word.text for word in original.words)
    assert faster.language == original.language
    assert faster.language_probability == pytest.approx(original.language_probability, abs=1e-4)
    for each in rooms:
        await each.close()
