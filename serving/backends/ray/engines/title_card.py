"""TitleCardEngine: a title card with typography and seeded abstract art; task image, no weights needed.

The one invariant: equal requests give equal pixels.
"""

import asyncio
import io

from serving.backends.base import EngineContext
from serving.backends.call import Call
from serving.backends.ray.engines.title_card_art import draw_card
from serving.errors import BadInput
from serving.media.caption_text import clean
from serving.protocol.tasks import ImageRequest, ImageResult, TaskRequest
from serving.repository.model import Model

_WORDS_OF_PROMPT = 9
"""Without a title the first words of the prompt stand on the card."""


class TitleCardEngine:
    """Draws with numpy and Pillow; needs no weights."""

    def __init__(self, model: Model, context: EngineContext) -> None:
        self._artifacts = context.artifacts

    async def run(self, request: TaskRequest, call: Call) -> ImageResult:
        """Draw the card."""
        if not isinstance(request, ImageRequest):
            raise BadInput(f"the title card cannot run a {type(request).__name__}", fix="send an image request")
        data = await asyncio.to_thread(render, request)
        call.checkpoint()
        image = await self._artifacts.put_bytes(data, media_type="image/png", name="card.png")
        return ImageResult(image=image, width=request.width, height=request.height)

    async def close(self) -> None:
        """Nothing stays loaded."""


def card_title(request: ImageRequest) -> str:
    """What stands on the card: the title, else the first words of the prompt."""
    title = clean(request.title or "")
    if title:
        return title
    words = clean(request.prompt).split()
    return " ".join(words[:_WORDS_OF_PROMPT]) + ("…" if len(words) > _WORDS_OF_PROMPT else "")


def render(request: ImageRequest) -> bytes:
    """The card as PNG; blocks."""
    card = draw_card(card_title(request), request.prompt, (request.width, request.height), request.seed)
    stream = io.BytesIO()
    card.save(stream, "PNG", compress_level=3)
    return stream.getvalue()
