"""Translation by every family: order, equal texts, shared passes, bounds, languages, cancel, recovery, checkpoints."""

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from serving.errors import BadInput, TooLarge
from serving.protocol.tasks import TranslationResult
from tests.serving.backends.ray.engines import damage, laws
from tests.serving.backends.ray.engines.translation.conftest import Desk, request_of

pytestmark = pytest.mark.asyncio(loop_scope="module")
LINES = [
    "the old keeper climbed",
    "people",
    "we record all of it, a clock, a fridge",
    "stories make winters shorter",
    "a bus",
]


async def test_as_many_texts_come_back_in_their_order(desk: Desk) -> None:
    whole = (await desk.translate(*LINES)).texts
    assert len(whole) == len(LINES)
    assert len(set(whole)) > 1
    turned = (await desk.translate(*reversed(LINES))).texts
    assert turned == whole[::-1]


async def test_equal_texts_give_equal_translations_and_others_do_not(desk: Desk) -> None:
    first, again, other = [(await desk.translate(text)).texts for text in ("the keeper", "the keeper", "stories")]
    assert first == again != other


async def test_a_blank_text_stays_blank(desk: Desk) -> None:
    assert (await desk.translate("people", "  ")).texts[1] == ""


async def test_what_looks_like_a_special_token_is_text(desk: Desk) -> None:
    source, target = desk.engine.family.codes("en", "hi")
    special = {*desk.engine.family.tokenizer.all_special_ids, *desk.engine.family.special()}
    plain = desk.engine.family.encode("people", source, target)
    asked = desk.engine.family.encode("people </s> <pad> __fr__ fra_Latn", source, target)
    assert [index for index in asked if index in special and index != desk.engine.family.tokenizer.unk_token_id] == [
        index for index in plain if index in special
    ]


async def test_small_requests_share_passes_and_are_translated_as_they_are_alone(desk: Desk) -> None:
    alone = [(await desk.run(text)).output for text in LINES[:4]]
    together = await asyncio.gather(*(desk.run(text) for text in LINES[:4]))
    assert [ran.batch for ran in together] == [4, 4, 4, 4]
    assert [ran.output for ran in together] == alone


async def test_a_whole_film_shares_its_passes_with_nobody(desk: Desk) -> None:
    ran = await asyncio.gather(desk.run(*["a clock"] * 65), desk.run("people"))
    assert [each.batch for each in ran] == [1, 1]
    assert ran[0].steps == 17  # passes of four texts


async def test_progress_rises_to_the_end(desk: Desk) -> None:
    await laws.progress_rises(desk.engine, request_of(*LINES), least=5)


async def test_a_cancel_stops_at_the_next_step_and_the_next_request_is_unharmed(desk: Desk) -> None:
    await laws.a_cancel_is_heard_at_once(desk.engine, request_of("people"), longer=request_of(*LINES))


async def test_a_text_over_what_the_network_reads_is_refused_with_its_tokens(desk: Desk) -> None:
    with pytest.raises(BadInput, match=r"texts\[1\]: the text has \d+ tokens, and the model reads 64: shorten it to"):
        await desk.translate("people", "the old keeper climbed the stairs " * 20)
    assert len((await desk.translate("people")).texts) == 1


async def test_unknown_languages_are_refused_with_those_that_are_known(desk: Desk) -> None:
    with pytest.raises(BadInput, match=r"target_language: the model does not know 'tlh': use one of .*hi"):
        await desk.translate("people", target_language="tlh")
    with pytest.raises(BadInput, match=r"source_language: the model does not know 'tlh': use one of .*en"):
        await desk.translate("people", source_language="tlh")


async def test_regions_make_no_difference(desk: Desk) -> None:
    plain = (await desk.translate("people")).texts
    assert (await desk.translate("people", source_language="en-us", target_language="hi-in")).texts == plain


async def test_output_that_is_no_number_fails_alone(desk: Desk) -> None:
    weight = desk.engine.network.get_input_embeddings().weight
    await laws.a_broken_weight_fails_alone(desk.engine, request_of("people"), weight, "no numbers")


async def test_the_warm_up_is_counted(desk: Desk) -> None:
    await desk.engine.warm_up()
    assert desk.engine.cold_start.warm_up_s is not None


def noise(seconds: float) -> np.ndarray:
    return np.random.default_rng(1).normal(0, 0.1, round(16_000 * seconds))


async def test_only_a_network_that_hears_takes_speech() -> None:
    desk = Desk("opus_mt_en_hi")
    with pytest.raises(BadInput, match="audio: the model translates texts alone: transcribe it first"):
        await desk.translate(audio=await desk.sound(noise(1)))
    await desk.engine.close()


async def test_speech_becomes_one_text() -> None:
    desk = Desk("seamless_m4t_v2")
    audio = await desk.sound(noise(33))
    _, first = await laws.progress_rises(desk.engine, request_of(audio=audio))
    assert isinstance(first, TranslationResult)
    assert len(first.texts) == 1
    assert first.texts[0]
    assert (await desk.translate(audio=audio)).texts == first.texts
    assert (await desk.translate("people")).texts != first.texts
    with pytest.raises(TooLarge, match="longer than 60 s"):
        await desk.translate(audio=await desk.sound(noise(61)))
    await desk.engine.close()


KEY = "model.encoder.layers.0.fc1.weight"


@pytest.mark.parametrize("name", ["opus_mt_en_hi", "nllb_600m"])
@pytest.mark.parametrize(
    ("harm", "told"),
    [
        (damage.without(KEY), f"missing {KEY}"),
        (damage.with_one_more, "unknown other"),
        (damage.narrowed(KEY, 8), f"misshapen {KEY} is 32x8 and not 32x16"),
        (damage.cut("model.safetensors"), r"model\.safetensors"),
        (damage.pickled, r"pytorch_model\.bin is a pickle"),
        (
            lambda folder: damage.settings(folder, "config.json", model_type="bert"),
            "architecture 'bert': use one of m2m_100, marian, seamless_m4t_v2",
        ),
        (damage.removed("config.json"), r"config\.json is missing"),
    ],
    ids=["missing key", "extra key", "misshapen key", "cut", "pickle", "other architecture", "no configuration"],
)
async def test_a_checkpoint_that_does_not_fit_is_refused_in_one_line(
    damaged: Any, name: str, harm: Callable[[Path], object], told: str
) -> None:
    laws.refused_in_one_line(lambda: damaged(name, harm), told)


async def test_a_damaged_tokenizer_is_refused_in_one_line(damaged: Any) -> None:
    with pytest.raises(BadInput, match="checkpoint"):
        damaged("opus_mt_en_hi", lambda folder: (folder / "source.spm").write_bytes(b"nothing"))


async def test_a_pickle_that_the_card_allows_is_read_as_tensors_alone(damaged: Any) -> None:
    def as_published(folder: Path) -> None:
        torch.save(load_file(folder / "model.safetensors"), folder / "pytorch_model.bin")
        (folder / "model.safetensors").unlink()

    desk = Desk("opus_mt_en_hi")
    good = (await desk.translate("people")).texts
    await desk.engine.close()
    desk.engine = damaged("opus_mt_en_hi", as_published, allow_pickles=["pytorch_model.bin"])
    assert (await desk.translate("people")).texts == good
    await desk.engine.close()


async def test_a_pickle_that_would_run_code_is_refused_even_where_it_is_allowed(damaged: Any) -> None:
    def harmful(folder: Path) -> None:
        (folder / "model.safetensors").unlink()
        torch.save({"weight": Harm()}, folder / "pytorch_model.bin")

    with pytest.raises(BadInput, match="checkpoint"):
        damaged("opus_mt_en_hi", harmful, allow_pickles=["pytorch_model.bin"])
    assert not Harm.done


class Harm:
    """What a pickle can do."""

    done = False

    def __reduce__(self) -> tuple[Any, ...]:
        return setattr, (Harm, "done", True)


async def test_a_translation_that_ends_at_the_bound_is_named(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(type(desk.engine), "tokens", property(lambda _: 2))
    result = await desk.translate("people", "  ", *LINES)
    assert 1 not in result.cut  # a blank text is no translation
    assert result.cut == sorted(result.cut)
    assert len(result.cut) >= 4
