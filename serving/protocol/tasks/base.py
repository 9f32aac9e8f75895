"""The parts every task's request and result are made of; used by the other modules of this package.

The one invariant: nothing here belongs to one task alone.
"""

from typing import Annotated, Final

from pydantic import BaseModel, ConfigDict, Field

MAX_TEXT_CHARS: Final = 20_000
MAX_SECONDS: Final = 4 * 3600.0

Seconds = Annotated[float, Field(ge=0, le=MAX_SECONDS)]
PositiveSeconds = Annotated[float, Field(gt=0, le=MAX_SECONDS)]
Seed = Annotated[int, Field(ge=0, le=2**32 - 1)]
Pixels = Annotated[int, Field(ge=16, le=4096, multiple_of=2)]
Fps = Annotated[int, Field(ge=1, le=60)]
Language = Annotated[str, Field(pattern=r"^[a-z]{2,3}(-[A-Za-z]{2,4})?$")]
Steps = Annotated[int, Field(ge=1, le=200)]
"""Denoising steps; engines without them ignore it, and without one the model's own number is taken."""
Guidance = Annotated[float, Field(ge=0, le=30)]
"""How closely the prompt is followed (classifier-free guidance); without one the model's own value is taken."""


class Message(BaseModel):
    """Base of every request, result and part: frozen, unknown fields refused."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class Made(Message):
    """How an engine that runs a network made a result.

    Attributes:
        model: its name in the repository.
        revision: of the weights, as the cache resolved it.
        adapter: the fine-tune that the request named, None without one.
        seed: that every random number came from; None where nothing is random.
        steps: of denoising, decoding or batches of frames.
        batch: requests that shared the network's passes.
        device: ``cpu`` or ``cuda:N``.
        precision: of the weights in memory.
        timings_s: seconds by part: ``queue``, ``prepare``, ``run``, ``finish``.
    """

    model: str
    revision: str | None = None
    adapter: str | None = None
    seed: int | None = None
    steps: int = 0
    batch: int = 1
    device: str = "cpu"
    precision: str = "fp32"
    timings_s: dict[str, float] = Field(default={})


class TaskRequest(Message):
    """Base of every task's request."""


class TaskResult(Message):
    """Base of every task's result; ``made`` is filled in by engines that run networks."""

    made: Made | None = None


class Span(Message):
    """A stretch of time, ``start_s <= end_s``."""

    start_s: Seconds
    end_s: Seconds


class Word(Span):
    """One spoken word with its times."""

    text: str


class Phoneme(Span):
    """One phoneme, written in the International Phonetic Alphabet, with its times."""

    symbol: str
