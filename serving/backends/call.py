"""Call: what travels with a request besides its content (deadline, cancel, progress, log ids); made by the router.

The one invariant: an engine that runs longer than a second asks :meth:`Call.checkpoint` at least once a second, so a
cancel or a deadline takes effect within two.
"""

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field

from serving.errors import Cancelled, DeadlineExceeded
from serving.protocol.licences import COMMERCIAL, Use


@dataclass(slots=True)
class Call:
    """One call's context inside a replica.

    Args:
        deadline_unix_s: wall-clock time after which nobody waits for the answer; None means no deadline.
        job_id: the job this call belongs to, empty for direct inference.
        stage: the stage of the job, empty for direct inference.
        served_by: ``backend/model`` that answered, filled in by the router.
        tries: how often a backend was asked, counted by the router.
        use: what the answer is for; decides which licences allow the call.
        replica: the replica that answered last, filled in by the backend.
        cpu_s: CPU seconds of all tries, added up by the backend, as are the GPU seconds.
        on_progress: told how much of the call is done, from 0 to 1, by whatever thread does it; stays in its process.
    """

    deadline_unix_s: float | None = None
    job_id: str = ""
    stage: str = ""
    served_by: str = ""
    tries: int = 0
    use: Use = COMMERCIAL
    replica: str = ""
    cpu_s: float = 0.0
    gpu_s: float = 0.0
    on_progress: Callable[[float], None] | None = field(default=None, repr=False)
    _cancelled: threading.Event = field(default_factory=threading.Event, repr=False)

    def cancel(self) -> None:
        """Ask the engine to stop at its next checkpoint; safe from any thread."""
        self._cancelled.set()

    def tell(self, done: float) -> None:
        """Say how much is done, from 0 to 1; safe from any thread."""
        if self.on_progress is not None:
            self.on_progress(min(1.0, max(0.0, done)))

    def remaining_s(self) -> float | None:
        """Seconds until the deadline (may be negative), or None without one."""
        return None if self.deadline_unix_s is None else self.deadline_unix_s - time.time()

    def checkpoint(self) -> None:
        """Return at once, or raise :class:`Cancelled` or :class:`DeadlineExceeded`."""
        if self._cancelled.is_set():
            raise Cancelled("the call was cancelled", field=self.stage or None)
        remaining = self.remaining_s()
        if remaining is not None and remaining <= 0:
            raise DeadlineExceeded("the deadline passed while the engine was working", field=self.stage or None)

    def __reduce__(self) -> tuple[object, ...]:
        """Crosses to a replica by pickle; the cancel flag is local to each process."""
        return _sent, (self.deadline_unix_s, self.job_id, self.stage, self.use)


def _sent(deadline_unix_s: float | None, job_id: str, stage: str, use: Use) -> Call:
    return Call(deadline_unix_s=deadline_unix_s, job_id=job_id, stage=stage, use=use)
