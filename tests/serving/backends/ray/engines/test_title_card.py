"""Title cards: the size asked for, the same every time, different where the seed differs, readable."""

import io
from typing import Any

import numpy as np
import pytest
from PIL import Image

from serving.backends.call import Call
from serving.backends.ray.engines.title_card import card_title, render
from serving.protocol.tasks import ImageRequest


def pixels(**fields: Any) -> np.ndarray:
    request = ImageRequest.model_validate({"prompt": "a quiet harbour", "width": 320, "height": 180, **fields})
    return np.asarray(Image.open(io.BytesIO(render(request))))


async def test_the_engine_stores_a_png_of_the_size_asked_for(studio: Any) -> None:
    request = ImageRequest(prompt="a harbour", title="The Harbour", width=640, height=360, seed=3)
    result = await studio.engine("image").run(request, Call())
    with Image.open(await studio.store.local_path(result.image)) as card:
        assert (card.format, card.size) == ("PNG", (640, 360))


def test_equal_requests_give_equal_cards() -> None:
    assert np.array_equal(pixels(title="One", seed=5), pixels(title="One", seed=5))


def test_seed_and_prompt_change_the_art() -> None:
    assert not np.array_equal(pixels(seed=1), pixels(seed=2))
    assert not np.array_equal(pixels(prompt="sea"), pixels(prompt="sky"))


@pytest.mark.parametrize("seed", range(8))
def test_the_title_stands_out_from_its_ground(seed: int) -> None:
    card = pixels(title="Contrast", seed=seed).astype(int).max(axis=-1)
    text = card[60:110, 20:150]
    assert np.percentile(text, 99) - np.median(text) > 100


@pytest.mark.parametrize(
    "title",
    ["हिमालय की पुकार", "你好世界", "مرحبا بالعالم", "x" * 120, "word " * 24, "👩‍🚀", "{\\an8}\n<b>"],
    ids=["devanagari", "chinese", "arabic", "one-word", "many-words", "emoji", "markup"],
)
def test_any_title_can_be_drawn(title: str) -> None:
    assert pixels(title=title[:120]).shape == (180, 320, 3)


@pytest.mark.parametrize(
    ("fields", "title"),
    [
        ({"title": " The  End "}, "The End"),
        ({}, "a quiet harbour"),
        (
            {"prompt": "one two three four five six seven eight nine ten"},
            "one two three four five six seven eight nine…",
        ),
    ],
    ids=["given", "short-prompt", "long-prompt"],
)
def test_without_a_title_the_prompt_begins_the_card(fields: dict[str, str], title: str) -> None:
    assert card_title(ImageRequest.model_validate({"prompt": "a quiet harbour", **fields})) == title
