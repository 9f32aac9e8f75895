"""How far a job is, from its stages' weights and finished parts; used by the job context.

The one invariant: the answer lies in [0, 1] and reaches 1 only when every stage that ran is done.
"""

from collections.abc import Mapping, Sequence

from serving.jobs.types import Stage


def job_progress(stages: Sequence[Stage], done: Mapping[str, float]) -> float:
    """The weighted part of the work that is done.

    Args:
        stages: the job type's stages, in order.
        done: part finished (0 to 1) of each stage that was started; a stage that lies before a started one
            and is missing here was skipped by the graph and counts as done.
    """
    total = sum(stage.weight for stage in stages)
    if total <= 0:
        return 0.0
    started = [index for index, stage in enumerate(stages) if stage.name in done]
    last = started[-1] if started else -1
    parts = (stage.weight * done.get(stage.name, 1.0 if index < last else 0.0) for index, stage in enumerate(stages))
    return min(1.0, max(0.0, sum(parts) / total))
