"""The states of a job and the only steps allowed between them; used by the store, the worker and the pages.

The one invariant: a job never leaves a final state, and a working job only moves forward or back to the
queue; serving.jobs.tables.change_job takes no other step.
"""

from collections.abc import Mapping
from typing import Final

from serving.jobs.types import JobState

WORKING: Final = (JobState.PROCESSING, JobState.RENDERING, JobState.POST_PROCESSING, JobState.UPLOADING)
"""States in which a worker is busy with the job, in order."""

WAITING: Final = (JobState.SUBMITTED, JobState.QUEUED)

FINAL: Final = frozenset({JobState.COMPLETED, JobState.FAILED, JobState.CANCELLED})


def _allowed() -> Mapping[JobState, frozenset[JobState]]:
    ends = frozenset({JobState.COMPLETED, JobState.FAILED, JobState.CANCELLED})
    stops = frozenset({JobState.FAILED, JobState.CANCELLED})
    steps: dict[JobState, frozenset[JobState]] = {
        JobState.SUBMITTED: stops | {JobState.QUEUED},
        JobState.QUEUED: stops | {JobState.PROCESSING},
    }
    for index, state in enumerate(WORKING):
        steps[state] = ends | {JobState.QUEUED} | frozenset(WORKING[index + 1 :])
    return steps | {state: frozenset() for state in FINAL}


ALLOWED: Final = _allowed()
"""From each state, the states it may become; back to ``queued`` happens when a worker is lost."""


def may_become(state: JobState, other: JobState) -> bool:
    """Whether one step leads from ``state`` to ``other``."""
    return other in ALLOWED[state]


def sources_of(state: JobState) -> tuple[JobState, ...]:
    """The states from which one step leads to ``state``."""
    return tuple(source for source in JobState if may_become(source, state))
