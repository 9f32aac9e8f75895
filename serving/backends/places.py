"""What every replica does round a typed request: bound how many it holds, count, log and wrap; used by both replicas.

The one invariant: whatever ends a request, its place is free again, and what leaves is an error of serving.errors.
"""

import asyncio
import contextlib
import time
from collections.abc import Iterator

import structlog

from serving import telemetry
from serving.backends.call import Call
from serving.errors import Cancelled, EngineFailed, ReelmeshError, Unavailable, foreign_text

log = structlog.get_logger()


class Places:
    """How many requests a replica holds.

    Args:
        most: requests at a time; more are refused.
    """

    def __init__(self, most: int) -> None:
        self.most = most
        self.taken = 0

    @contextlib.contextmanager
    def hold(self, model: str, call: Call) -> Iterator[None]:
        """Hold a place while the model works; a cancel reaches the call, foreign errors become :class:`EngineFailed`.

        Raises:
            Unavailable: every place is taken.
        """
        if self.taken >= self.most:
            raise Unavailable(
                f"the replica of {model} holds {self.taken} requests", fix="try again later or add replicas"
            )
        self.taken += 1
        try:
            yield
        except asyncio.CancelledError:
            call.cancel()
            raise
        except ReelmeshError:
            raise
        except Exception as error:
            log.exception("model_failed", model=model)
            raise EngineFailed(f"{model}: {foreign_text(error)}") from error
        finally:
            self.taken -= 1


@contextlib.contextmanager
def counted(model: str, call: Call) -> Iterator[None]:
    """Put the job on log lines, and count and time one typed request; OIP's are counted by their own front ends."""
    began, outcome = time.monotonic(), EngineFailed.code
    telemetry.IN_FLIGHT.labels(model).inc()
    try:
        with telemetry.job_logs(call.job_id, call.stage):
            yield
        outcome = "ok"
    except asyncio.CancelledError:
        outcome = Cancelled.code
        raise
    except ReelmeshError as error:
        outcome = error.code
        raise
    finally:
        telemetry.IN_FLIGHT.labels(model).dec()
        telemetry.REQUESTS.labels(model, "task", outcome).inc()
        telemetry.REQUEST_SECONDS.labels(model, "task").observe(time.monotonic() - began)
