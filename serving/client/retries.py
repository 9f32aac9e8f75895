"""When a call is made again, and after how long; asked by serving.client.mesh.

The one invariant: a call that may have run is made again only when the caller said that it may, and no pause reaches
past the deadline.
"""

import time
from dataclasses import dataclass
from random import random
from typing import Final, Self

from serving.client.status import Turned
from serving.errors import DeadlineExceeded

FACTOR: Final = 2.0


@dataclass(frozen=True, slots=True)
class Retries:
    """How often and how slowly.

    Args:
        attempts: calls made at most, the first included.
        first_pause_s: longest pause before the second; each further one may be twice as long.
        longest_pause_s: bound on a pause.
    """

    attempts: int = 4
    first_pause_s: float = 0.05
    longest_pause_s: float = 2.0

    def pause_s(
        self, failed: Turned, attempt: int, *, idempotent: bool, remaining_s: float, chance: float | None = None
    ) -> float | None:
        """Seconds to wait before the next attempt, or None to give up.

        Args:
            failed: how the last attempt ended.
            attempt: its number, from 1.
            idempotent: whether the call may run twice.
            remaining_s: seconds until the deadline.
            chance: 0 to 1, where in its range the pause lies; None draws it.
        """
        if attempt >= self.attempts or not failed.error.retryable or (failed.ran and not idempotent):
            return None
        longest = min(self.first_pause_s * FACTOR ** (attempt - 1), self.longest_pause_s)
        drawn = random() if chance is None else chance
        pause = longest * drawn if failed.retry_after_s is None else failed.retry_after_s + longest * drawn
        return pause if pause < remaining_s else None


NEVER: Final = Retries(attempts=1)


@dataclass(frozen=True, slots=True)
class Deadline:
    """A moment after which nobody waits."""

    monotonic_s: float
    place: str

    @classmethod
    def after(cls, seconds: float, place: str) -> Self:
        """That many seconds from now; ``place`` is named in the error."""
        return cls(time.monotonic() + seconds, place)

    def remaining_s(self) -> float:
        """Seconds left, above 0; raises :class:`DeadlineExceeded` when there are none."""
        left = self.monotonic_s - time.monotonic()
        if left <= 0:
            raise DeadlineExceeded("the deadline passed", field=self.place or None)
        return left
