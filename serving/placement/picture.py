"""A plan as a picture: a bar for each card, with what each replica keeps and what its requests take in turn.

The one invariant: a MiB is as wide on every card, so that bars can be compared.
"""

import io
from typing import TYPE_CHECKING, Final

from serving.media.drawing import Colour, TextStyle, draw_text, shorten
from serving.placement.plan import Plan
from serving.placement.room import Room

if TYPE_CHECKING:
    from PIL import ImageDraw

WIDTH_PX: Final = 1280
ROW_PX: Final = 58
BAR_PX: Final = 26
LEFT_PX: Final = 210
MARGIN_PX: Final = 32
TOP_PX: Final = 104
MOST_ROWS: Final = 200
"""Cards that are drawn; the table tells of all."""
LEAST_LABEL_PX: Final = 46

PAPER: Final[Colour] = (250, 250, 248)
INK: Final[Colour] = (28, 30, 34)
PALE: Final[Colour] = (128, 132, 138)
EMPTY: Final[Colour] = (228, 230, 232)
KEPT: Final[Colour] = (206, 209, 213)
COLOURS: Final[tuple[Colour, ...]] = (
    (0, 114, 178), (213, 94, 0), (0, 158, 115), (204, 121, 167), (86, 140, 200), (170, 120, 20), (110, 90, 160),
    (60, 130, 130), (180, 70, 70), (90, 110, 60),
)  # fmt: skip
"""Okabe and Ito's palette, which people who see colours otherwise can tell apart, without its yellow, and more."""

TITLE: Final = TextStyle(26, heading=True)
TEXT: Final = TextStyle(14)
LIGHT: Final = TextStyle(13, light=True)


def png(plan: Plan) -> bytes:
    """The picture.

    Args:
        plan: with at least one card.
    """
    from PIL import Image, ImageDraw

    rooms = list(plan.rooms().values())[:MOST_ROWS]
    rows = len(rooms) + len(plan.unplaced[:MOST_ROWS])
    image = Image.new("RGB", (WIDTH_PX, TOP_PX + ROW_PX * rows + 2 * MARGIN_PX), PAPER)
    draw = ImageDraw.Draw(image)
    _head(draw, plan)
    widest = max((room.card.memory_mib for room in rooms), default=1.0)
    scale = (WIDTH_PX - LEFT_PX - MARGIN_PX) / widest
    colours = {model: COLOURS[index % len(COLOURS)] for index, model in enumerate(sorted(plan.loads))}
    for index, room in enumerate(rooms):
        _row(draw, room, TOP_PX + ROW_PX * index, scale, colours)
    for index, left in enumerate(plan.unplaced[:MOST_ROWS], start=len(rooms)):
        y = TOP_PX + ROW_PX * index
        draw_text(draw, (MARGIN_PX, y + 18), shorten(left.replica, TEXT, LEFT_PX - 40), TEXT, (180, 50, 40))
        words = f"does not fit: {left.why}; {left.change}"
        draw_text(draw, (LEFT_PX, y + 18), shorten(words, LIGHT, WIDTH_PX - LEFT_PX - MARGIN_PX), LIGHT, INK)
    held = io.BytesIO()
    image.save(held, "PNG")
    return held.getvalue()


def _head(draw: "ImageDraw.ImageDraw", plan: Plan) -> None:
    draw_text(draw, (MARGIN_PX, 50), f"{len(plan.placed)} replicas on {len(plan.cards)} cards", TITLE, INK)
    words = "full: weights; hatched: what requests take, in turns; grey: kept free"
    draw_text(draw, (MARGIN_PX, 76), words, LIGHT, PALE)
    if plan.moves:
        moved = f"{len(plan.moves)} move, {plan.moved_mib / 1024:,.1f} GiB are loaded again"
        draw_text(draw, (WIDTH_PX - MARGIN_PX, 76), moved, LIGHT, PALE, anchor="r")


def _row(draw: "ImageDraw.ImageDraw", room: Room, y: int, scale: float, colours: dict[str, Colour]) -> None:
    draw_text(draw, (MARGIN_PX, y + 14), shorten(room.card.name, TEXT, LEFT_PX - 40), TEXT, INK)
    kind = f"{room.card.kind} {room.card.memory_mib / 1024:,.0f} GiB".strip()
    draw_text(draw, (MARGIN_PX, y + 31), shorten(kind, LIGHT, LEFT_PX - 40), LIGHT, PALE)
    end = LEFT_PX + room.card.memory_mib * scale
    draw.rectangle((LEFT_PX, y, end, y + BAR_PX), fill=EMPTY)
    draw.rectangle((LEFT_PX + room.usable_mib * scale, y, end, y + BAR_PX), fill=KEPT)
    x = float(LEFT_PX)
    turns = [load for load in room.held.values() if load.pace != "quick"]
    turn = max(turns, key=lambda one: one.peak_mib, default=None)
    for replica, load in sorted(room.held.items(), key=lambda one: -one[1].weights_mib):
        wide = load.weights_mib * scale
        draw.rectangle((x, y, x + wide, y + BAR_PX), fill=colours[load.model])
        if wide > LEAST_LABEL_PX:
            draw_text(draw, (x + 6, y + 18), shorten(replica, LIGHT, wide - 10), LIGHT, PAPER)
        x += wide
        if load.pace == "quick":
            x = _hatched(draw, x, y, load.peak_mib * scale, colours[load.model])
    if turn is not None:
        _hatched(draw, x, y, turn.peak_mib * scale, colours[turn.model])
    names = ", ".join(sorted(room.held)) or "empty"
    draw_text(draw, (LEFT_PX, y + BAR_PX + 16), shorten(names, LIGHT, WIDTH_PX - LEFT_PX - MARGIN_PX), LIGHT, PALE)


def _hatched(draw: "ImageDraw.ImageDraw", x: float, y: int, wide: float, colour: Colour) -> float:
    """A field of slanting lines; gives where it ends."""
    draw.rectangle((x, y, x + wide, y + BAR_PX), outline=colour)
    for start in range(int(x) - BAR_PX, int(x + wide), 7):
        first, last = max(start, x), min(start + BAR_PX, x + wide)
        if last > first:
            draw.line((first, y + BAR_PX - (first - start), last, y + BAR_PX - (last - start)), fill=colour)
    return x + wide
