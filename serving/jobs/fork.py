"""Forks: what a new job takes from an ended one, with edits of its input and of its stages' results; used by the desk.

The one invariant: an ended job never changes; whatever is done again or otherwise is done by a new one.
"""

from collections.abc import Mapping
from typing import Annotated, Final

from pydantic import BaseModel, ConfigDict, Field, JsonValue, ValidationError

from serving.errors import BadInput, Conflict
from serving.jobs.input_problems import bad_input
from serving.jobs.merge_patch import merge_patch
from serving.jobs.parts import edited, kind_of
from serving.jobs.records import JobRecord, StageState
from serving.jobs.results import Place, Results
from serving.jobs.states import FINAL
from serving.jobs.types import JobState

MAX_EDITS: Final = 1000
"""Results that one fork may edit, over all stages."""
_FINISHED: Final = (StageState.DONE, StageState.SKIPPED)

PartNumber = Annotated[str, Field(pattern=r"^(0|[1-9][0-9]{0,3})$")]


class Edits(BaseModel):
    """What is to be otherwise in a fork: JSON merge patches (RFC 7396)."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    input: dict[str, JsonValue] | None = Field(default=None, description="On the job's input.")
    results: dict[str, dict[PartNumber, JsonValue]] = Field(
        default={}, description="On results, by stage and by the number of the call in it, from 0."
    )

    def as_json(self) -> dict[str, JsonValue] | None:
        """As the job's row keeps them; None where nothing is edited."""
        told = self.model_dump(mode="json", exclude_defaults=True)
        return {name: value for name, value in told.items() if value} or None


def parse_edits(value: "Edits | Mapping[str, object] | None") -> Edits:
    """A client's edits; raises :class:`BadInput` that names the first wrong fields."""
    if isinstance(value, Edits):
        return value
    try:
        edits = Edits.model_validate(value or {})
    except ValidationError as error:
        raise bad_input(error, Edits, "edits") from error
    if sum(map(len, edits.results.values())) > MAX_EDITS:
        raise BadInput(f"more than {MAX_EDITS} results are edited", field="edits.results", fix="edit fewer at a time")
    return edits


def forked_input(parent: JobRecord, edits: Edits) -> dict[str, JsonValue]:
    """The fork's input, which has to be checked like any other."""
    merged = merge_patch(parent.input, edits.input or {})
    return merged if isinstance(merged, dict) else {}


def forked_from(parent: JobRecord, from_stage: str | None, edits: Edits) -> str | None:
    """The stage from which a fork goes on.

    Args:
        parent: the ended job.
        from_stage: as the client says; None goes on where the parent ended, or does what the edits change.
            With edits there is none: what is done again follows from them.
        edits: what is to be otherwise.

    Raises:
        Conflict: the parent has not ended.
        BadInput: there is no such stage, there are edits too, or nothing would be done otherwise.
    """
    if parent.state not in FINAL:
        raise Conflict(f"the job is {parent.state}", fix="retry it when it has ended, or cancel it first")
    known = [stage.name for stage in parent.stages]
    if from_stage is not None and from_stage not in known:
        raise BadInput(f"the job has no stage {from_stage!r}", field="from", fix=f"its stages are {', '.join(known)}")
    if from_stage is not None and edits.as_json() is not None:
        fix = "leave the stage out, or retry from it and edit what that job makes"
        raise BadInput("what is done again follows from the edits", field="from", fix=fix)
    if from_stage is not None or edits.as_json() is not None:
        return from_stage
    # A job that stopped early on purpose shows what it left out as skipped.
    done = known.index(parent.stop_at) + 1 if parent.stop_at in known and parent.state is JobState.COMPLETED else None
    open_ = [stage.name for stage in parent.stages if stage.state not in _FINISHED] if done is None else known[done:]
    if not open_:
        raise BadInput("the job has completed", field="from", fix=f"say from which stage: {', '.join(known)}")
    return open_[0]


async def check_results(parent: JobRecord, edits: Edits, results: Results) -> None:
    """Refuse edits of results that are not there, or that make something else of them.

    Raises:
        BadInput: names the field, as ``edits.results.<stage>.<part>...``.
    """
    known = [stage.name for stage in parent.stages]
    for stage, patches in edits.results.items():
        if stage not in known:
            fix = f"its stages are {', '.join(known)}"
            raise BadInput(f"the job has no stage {stage!r}", field=f"edits.results.{stage}", fix=fix)
        for part, patch in patches.items():
            field = f"edits.results.{stage}.{part}"
            found = await results.at(Place(parent.id, stage, int(part)))
            if found is None:
                raise BadInput("the job has no such result", field=field, fix="edit what a finished stage recorded")
            edited(found, patch, kind_of(found), field)
