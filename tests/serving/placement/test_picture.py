import io

from PIL import Image

from serving.placement.cards import Card, Load
from serving.placement.pack import pack
from serving.placement.picture import EMPTY, KEPT, LEFT_PX, MARGIN_PX, TOP_PX, WIDTH_PX, png


def test_a_bar_shows_weights_turns_and_what_is_kept_free_to_scale() -> None:
    cards = [Card("a/0", "a", 10_000.0), Card("a/1", "a", 5_000.0)]
    plan = pack(cards, [Load("sdxl", 5_000.0, 2_000.0)], {"sdxl": 1})
    image = Image.open(io.BytesIO(png(plan)))
    wide = WIDTH_PX - LEFT_PX - MARGIN_PX

    def at(mib: float, row: int = 0) -> tuple[int, ...]:
        return image.getpixel((LEFT_PX + int(mib / 10_000 * wide), TOP_PX + 2 + 58 * row))  # type: ignore[return-value]

    weights = at(100)
    assert weights == at(4_900)
    assert weights not in (EMPTY, KEPT)
    assert at(7_500) == EMPTY
    assert at(9_600) == KEPT
    hatched = {at(mib) for mib in range(5_100, 6_900, 25)}
    assert weights in hatched
    assert EMPTY in hatched
    assert (at(1_000, 1), at(4_800, 1)) == (EMPTY, KEPT)


def test_what_does_not_fit_is_told_below_the_cards() -> None:
    plan = pack([Card("a/0", "a", 1_000.0)], [Load("sdxl", 5_000.0, 2_000.0)], {"sdxl": 2})
    image = Image.open(io.BytesIO(png(plan)))
    rows = image.crop((MARGIN_PX, TOP_PX + 58, WIDTH_PX, TOP_PX + 58 * 3))
    assert len(rows.getcolors(10_000) or []) > 10
