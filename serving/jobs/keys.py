"""Keys of results: SHA-256 over everything a result depends on; used by the job context alone.

The one invariant: equal keys mean equal work, whichever job asks and whatever its files are called; so a key holds
the request, the model with its revision, and the software's version where the software does the work.
"""

import hashlib
import json
from collections.abc import Mapping
from typing import Any, Final

from pydantic import JsonValue
from pydantic_core import to_jsonable_python

from serving.artifacts.provenance import software_version
from serving.protocol.artifact import ArtifactRef
from serving.protocol.tasks import TASKS, TaskRequest
from serving.repository.identity import Identity

_REF_FIELDS: Final = frozenset(ArtifactRef.model_fields)
_TASK_OF: Final = {spec.request: task for task, spec in TASKS.items()}


def request_key(request: TaskRequest, identity: Identity) -> str:
    """The key of a typed request's result; the seed is part of the request."""
    told = {"task": _TASK_OF[type(request)], "request": request, "model": identity.model, "revision": identity.digest}
    return digest_of(told | ({"software": software_version()} if identity.is_own_code else {}))


def step_key(job_type: str, stage: str, work: str, inputs: object) -> str:
    """The key of what own code makes.

    Args:
        job_type: whose code it is.
        stage: the stage it belongs to.
        work: the name of the function; a stage may run several.
        inputs: everything the work depends on; any JSON, model or dataclass.
    """
    named = {"step": f"{job_type}.{stage}", "work": work}
    return digest_of({**named, "inputs": inputs, "software": software_version()})


def digest_of(value: Mapping[str, object]) -> str:
    """SHA-256 of a value as canonical JSON, with artifacts told by their content alone."""
    plain = _by_content(to_jsonable_python(value))
    return hashlib.sha256(json.dumps(plain, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


def json_refs(value: JsonValue) -> list[ArtifactRef]:
    """Every distinct artifact that JSON refers to, in order."""
    found: dict[str, ArtifactRef] = {}
    todo: list[JsonValue] = [value]
    while todo:
        each = todo.pop()
        if _is_ref(each):
            ref = ArtifactRef.model_validate(each)
            found.setdefault(ref.sha256, ref)
        elif isinstance(each, dict):
            todo += reversed(list(each.values()))
        elif isinstance(each, list):
            todo += reversed(each)
    return list(found.values())


def _is_ref(value: object) -> bool:
    return isinstance(value, dict) and value.keys() == _REF_FIELDS


def _by_content(value: Any) -> Any:  # noqa: ANN401  JSON
    if _is_ref(value):
        return {"sha256": value["sha256"]}
    if isinstance(value, dict):
        return {key: _by_content(item) for key, item in value.items()}
    return [_by_content(item) for item in value] if isinstance(value, list) else value
