"""Part: one call of a stage, with what it depends on and the type it gives; and Ledger, which finds finished ones.

Made and asked by the job context alone. The one invariant: what the ledger gives was made from the same inputs, or
somebody changed it by hand in this job or one it was forked from.
"""

import importlib
import inspect
import json
import time
import typing
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Generic, TypeVar

from pydantic import BaseModel, JsonValue, TypeAdapter, ValidationError
from pydantic_core import to_jsonable_python

from serving.backends.call import Call
from serving.errors import BadInput, Unprocessable
from serving.jobs.input_problems import bad_input
from serving.jobs.keys import json_refs, step_key
from serving.jobs.merge_patch import merge_patch
from serving.jobs.records import JobRecord
from serving.jobs.results import Origin, Place, Result, Results
from serving.protocol.artifact import ArtifactRef
from serving.protocol.tasks import TaskRequest
from serving.repository.identity import Identity

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Part(Generic[T]):
    """One call of a stage.

    Attributes:
        work: does it.
        kind: the type of what it gives.
        key: of everything it depends on; None where that is not known.
        request: the typed request, None for own code.
        identity: the model that is asked first.
        inputs: artifacts that go in.
    """

    work: Callable[[Call], Awaitable[T]]
    kind: Any
    key: str | None = None
    request: TaskRequest | None = None
    identity: Identity | None = None
    inputs: tuple[ArtifactRef, ...] = ()

    def encode(self, value: T) -> str:
        """The value as JSON; raises :class:`ValueError` where it is not of its kind."""
        adapter = TypeAdapter(self.kind)
        return adapter.dump_json(adapter.validate_python(value)).decode()

    def decode(self, text: str) -> T:
        """The value from its JSON."""
        value: T = TypeAdapter(self.kind).validate_json(text)
        return value


@dataclass(slots=True)
class Spent:
    """What all tries of a part took together.

    Attributes:
        tries: how often a model, or own code, was asked.
        cpu_s: CPU seconds.
        gpu_s: GPU seconds.
    """

    tries: int = 0
    cpu_s: float = 0.0
    gpu_s: float = 0.0

    def add(self, call: Call) -> None:
        """Count a call that is over, however it ended; the router may have made several tries of it."""
        self.tries += max(1, call.tries)
        self.cpu_s += call.cpu_s
        self.gpu_s += call.gpu_s


def own_part(job_type: str, stage: str, work: Callable[[], Awaitable[T]], inputs: object) -> Part[T]:
    """The part that runs own code; raises :class:`BadInput` where the code does not say what it returns."""
    function: Any = work
    while isinstance(function, partial):
        function = function.func
    kind = typing.get_type_hints(function).get("return", inspect.Signature.empty)
    if kind is inspect.Signature.empty:
        raise BadInput(f"{function.__qualname__} does not say what it returns", field=stage, fix="annotate it")
    key = None if inputs is None else step_key(job_type, stage, function.__name__, inputs)
    refs = () if inputs is None else tuple(json_refs(to_jsonable_python(inputs)))

    async def call(_call: Call) -> T:
        return await work()

    return Part(call, kind, key, inputs=refs)


def type_name(kind: object) -> str | None:
    """``module:name`` of a model at the top of its module; None for all else."""
    if isinstance(kind, type) and issubclass(kind, BaseModel) and "." not in kind.__qualname__:
        return f"{kind.__module__}:{kind.__qualname__}"
    return None


def edited(result: Result, patch: JsonValue, kind: Any, field: str) -> str:  # noqa: ANN401  a type form
    """A recorded result with a merge patch, as JSON; raises :class:`BadInput` where it is no longer of its type."""
    changed = merge_patch(json.loads(result.value), patch)
    adapter: TypeAdapter[Any] = TypeAdapter(kind)
    try:
        return adapter.dump_json(adapter.validate_json(json.dumps(changed))).decode()
    except ValidationError as error:
        if isinstance(kind, type) and issubclass(kind, BaseModel):
            raise bad_input(error, kind, field) from error
        first = error.errors(include_url=False)[0]
        raise Unprocessable(str(first["msg"]), field=".".join([field, *map(str, first["loc"])])) from error


def kind_of(result: Result) -> Any:  # noqa: ANN401  a type form
    """The type a recorded result has to keep; any JSON where it is no model."""
    module, _, name = (result.value_type or "").partition(":")
    try:
        return getattr(importlib.import_module(module), name) if name else Any
    except (ImportError, AttributeError):
        return Any  # a pipeline that is gone; the run says so


class Ledger:
    """Finds what need not be done again for one job.

    Args:
        record: the job.
        stages: its stages' names, in order.
        results: the table.
    """

    def __init__(self, record: JobRecord, stages: Sequence[str], results: Results) -> None:
        self._record, self._results = record, results
        self._order = {name: index for index, name in enumerate(stages)}
        edits = record.edits or {}
        self._input_edited = "input" in edits
        found = edits.get("results")
        self._edits: Mapping[str, Any] = found if isinstance(found, dict) else {}
        self._anew: bool | None = None
        self._first_edited = min((self._order.get(stage, 0) for stage in self._edits), default=len(stages))

    async def find(self, place: Place, part: "Part[Any]") -> Result | None:
        """The result of a part that has finished somewhere already."""
        if (own := await self._results.at(place)) is not None:
            return own
        found = (
            await self._edited(place, part) or await self._from_parent(place, part) or await self._cached(part, place)
        )
        if found is None:
            return None
        now = time.time()
        # What was taken unchanged was made for its own key, be it by an earlier revision or a fallback.
        key = part.key if found.origin is Origin.EDITED else found.key or part.key
        found = replace(found, key=key, tries=0, started_at=now, ended_at=now, cpu_s=0.0, gpu_s=0.0)
        await self._results.record(place, found)
        return found

    async def _runs_anew(self, stage: str) -> bool:
        """Whether somebody asked for the stage to be done again although it was finished and nothing changed."""
        asked, parent = self._record.from_stage, self._record.parent_id
        if asked is None or parent is None or self._record.edits or self._order[stage] < self._order.get(asked, 0):
            return False
        if self._anew is None:
            self._anew = await self._results.is_done(parent, asked)
        return self._anew

    async def _edited(self, place: Place, part: "Part[Any]") -> Result | None:
        patches = self._edits.get(place.stage, {})
        if str(place.part) not in patches or self._record.parent_id is None:
            return None
        field = f"results.{place.stage}.{place.part}"
        base = await self._results.at(Place(self._record.parent_id, place.stage, place.part))
        if base is None:
            raise Unprocessable("the job it was forked from no longer has this result", field=field)
        return replace(base, value=edited(base, patches[str(place.part)], part.kind, field), origin=Origin.EDITED)

    async def _from_parent(self, place: Place, part: "Part[Any]") -> Result | None:
        parent = self._record.parent_id
        if parent is None or await self._runs_anew(place.stage):
            return None
        found = None
        if not self._input_edited and self._order[place.stage] < self._first_edited:
            found = await self._results.at(Place(parent, place.stage, place.part))
        elif part.key is not None:
            found = await self._results.of_job(parent, place.stage, part.key)
        if found is None:
            return None
        return replace(found, origin=Origin.EDITED if found.origin is Origin.EDITED else Origin.PARENT)

    async def _cached(self, part: "Part[Any]", place: Place) -> Result | None:
        if part.key is None or not self._record.use_cache or await self._runs_anew(place.stage):
            return None
        if part.identity is not None and not part.identity.is_fixed:
            return None  # its weights may have moved since
        found = await self._results.cached(part.key)
        return None if found is None else replace(found, origin=Origin.CACHED)
