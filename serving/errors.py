"""Every error the mesh raises on purpose; raised everywhere, translated by front ends only.

    ReelmeshError
    ├── BadInput               400  what the caller sent is wrong; names the field and the fix
    │   ├── TooLarge           413  a bound of the mesh was passed
    │   └── Unprocessable      422  a job, readable as it is, that cannot be done as it is asked for
    ├── Unauthenticated        401  no key, or one that the mesh does not know
    ├── Forbidden              403  the key does not allow the call or the model
    │   └── LicenceForbids     403  the licence of the weights does not allow the use; names what may be used instead
    ├── RateLimited            429  retryable: the key's rate is used up for this second
    ├── NotFound               404  no such model, job, artifact
    ├── Conflict               409  not possible in the present state
    ├── Unsupported            501  a known request this mesh cannot serve
    ├── MissingDependency      501  a program, package or weight is not installed; names the command that mends it
    ├── Unavailable            503  retryable: not ready, draining, queue full
    │   ├── OutOfMemory        503  retryable: the share is exhausted; says what to lower
    │   └── QueueFull          503  retryable: knows when
    │       └── TooMany        429  retryable: as many jobs wait as may; knows when there is room
    ├── DeadlineExceeded       504  the caller's deadline passed or no longer fits
    ├── Cancelled              499  the caller cancelled
    └── EngineFailed           500  an engine or child process failed

The one invariant: whether an error may be retried is a property of its class, never of its text.
"""

import re
from typing import ClassVar

FOREIGN_TEXT_LIMIT = 256
"""Characters kept of a message that comes from outside the mesh."""


class ReelmeshError(Exception):
    """Root of the tree; never raised itself.

    Args:
        problem: what is wrong, in one sentence without a final full stop.
        field: where it is wrong: ``file:field`` or a dotted path in the request.
        fix: what the reader can do about it.
    """

    code: ClassVar[str] = "internal"
    http_status: ClassVar[int] = 500
    grpc_status: ClassVar[str] = "INTERNAL"
    retryable: ClassVar[bool] = False

    def __init__(self, problem: str, *, field: str | None = None, fix: str | None = None) -> None:
        super().__init__(problem)
        self.problem = problem
        self.field = field
        self.fix = fix

    def __str__(self) -> str:
        """``field: problem: fix``, leaving out what is not known."""
        return ": ".join(part for part in (self.field, self.problem, self.fix) if part)

    def __reduce__(self) -> tuple[object, ...]:
        """Errors cross process borders (Ray pickles them), so keyword arguments must survive."""
        return _rebuild, (type(self), self.problem, self.field, self.fix)


def _rebuild(kind: type[ReelmeshError], problem: str, field: str | None, fix: str | None) -> ReelmeshError:
    return kind(problem, field=field, fix=fix)


class BadInput(ReelmeshError):
    """What the caller sent is wrong."""

    code = "invalid_argument"
    http_status = 400
    grpc_status = "INVALID_ARGUMENT"


class TooLarge(BadInput):
    """A bound of the mesh was passed; the message names the bound."""

    code = "too_large"
    http_status = 413
    grpc_status = "RESOURCE_EXHAUSTED"


class Unprocessable(BadInput):
    """A job that can be read but not be done as it is asked for; front ends of jobs refuse it before anything is kept.

    OIP's calls never raise it: clients of that protocol expect 400.
    """

    code = "unprocessable"
    http_status = 422


class Unauthenticated(ReelmeshError):
    """No key came with the request, or one that the mesh does not know."""

    code = "unauthenticated"
    http_status = 401
    grpc_status = "UNAUTHENTICATED"


class Forbidden(ReelmeshError):
    """The key that came with the request does not allow the call or the model."""

    code = "permission_denied"
    http_status = 403
    grpc_status = "PERMISSION_DENIED"


class LicenceForbids(Forbidden):
    """The licence of a model's weights does not allow what the request is for; names what may be used instead."""

    code = "licence"


class RateLimited(ReelmeshError):
    """The key has made as many requests in this second as it may."""

    code = "rate_limited"
    http_status = 429
    grpc_status = "RESOURCE_EXHAUSTED"
    retryable = True


class NotFound(ReelmeshError):
    """No such model, job or artifact."""

    code = "not_found"
    http_status = 404
    grpc_status = "NOT_FOUND"


class Conflict(ReelmeshError):
    """Not possible in the present state, for example cancelling a finished job."""

    code = "conflict"
    http_status = 409
    grpc_status = "FAILED_PRECONDITION"


class Unsupported(ReelmeshError):
    """A known request that this mesh cannot serve."""

    code = "unsupported"
    http_status = 501
    grpc_status = "UNIMPLEMENTED"


class MissingDependency(ReelmeshError):
    """A program, package, font or weight is not installed; ``fix`` is the command that installs it."""

    code = "missing_dependency"
    http_status = 501
    grpc_status = "FAILED_PRECONDITION"


class Unavailable(ReelmeshError):
    """Not ready, draining or full; the same call may succeed a little later."""

    code = "unavailable"
    http_status = 503
    grpc_status = "UNAVAILABLE"
    retryable = True


class OutOfMemory(Unavailable):
    """The replica's share is exhausted; ``fix`` names what to lower."""

    code = "out_of_memory"
    grpc_status = "RESOURCE_EXHAUSTED"


class QueueFull(Unavailable):
    """A model's queue is full.

    Args:
        problem: in one sentence.
        field: what is full.
        fix: what the reader can do.
        retry_after_s: when there will be room, from the queue's length and its present pace.
    """

    code = "queue_full"

    def __init__(
        self, problem: str, *, field: str | None = None, fix: str | None = None, retry_after_s: int = 1
    ) -> None:
        super().__init__(problem, field=field, fix=fix)
        self.retry_after_s = retry_after_s

    def __reduce__(self) -> tuple[object, ...]:
        """The time must survive as well."""
        return _rebuild_full, (type(self), self.problem, self.field, self.fix, self.retry_after_s)


def _rebuild_full(
    kind: type[QueueFull], problem: str, field: str | None, fix: str | None, retry_after_s: int
) -> QueueFull:
    return kind(problem, field=field, fix=fix, retry_after_s=retry_after_s)


class TooMany(QueueFull):
    """As many jobs are waiting as may; arguments as in :class:`QueueFull`."""

    code = "too_many"
    http_status = 429


class DeadlineExceeded(ReelmeshError):
    """The caller's deadline passed, or the next stage no longer fits into it."""

    code = "deadline_exceeded"
    http_status = 504
    grpc_status = "DEADLINE_EXCEEDED"


class Cancelled(ReelmeshError):
    """The caller cancelled; 499 is nginx's "client closed request"."""

    code = "cancelled"
    http_status = 499
    grpc_status = "CANCELLED"


class EngineFailed(ReelmeshError):
    """An engine or a child process failed; the cause is chained with ``from``."""

    code = "engine_failed"


SHOWN_LIMIT = 60
"""Characters shown of a value that somebody wrote."""


def shown(value: object) -> str:
    """A value as a message shows it: its repr on one line, cut to :data:`SHOWN_LIMIT` characters."""
    line = " ".join(repr(value).split())
    return line if len(line) <= SHOWN_LIMIT else line[: SHOWN_LIMIT - 3] + "..."


_CONTROL = re.compile("[\x00-\x08\x0e-\x1f\x7f-\x9f\ud800-\udfff]")
"""What no database keeps (NUL on PostgreSQL, halves of characters) or a terminal would act on; not space and lines."""


def plain_text(text: object) -> str:
    """A message without control characters, which can be kept and shown everywhere."""
    return _CONTROL.sub("", str(text))


def foreign_text(text: object) -> str:
    """Cut a message from outside the mesh to :data:`FOREIGN_TEXT_LIMIT` characters on one line, and make it plain."""
    line = " ".join(plain_text(text).split())
    return line if len(line) <= FOREIGN_TEXT_LIMIT else line[: FOREIGN_TEXT_LIMIT - 3] + "..."
