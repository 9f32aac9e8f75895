"""Who made a part, as the provenance of its artifacts; written by the job context when a part has ended.

The one invariant: a record names digests of texts, never the texts.
"""

import hashlib
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from serving.artifacts.provenance import ModelUsed, Provenance, software_version
from serving.jobs.keys import json_refs
from serving.jobs.parts import Part
from serving.jobs.results import Place
from serving.protocol.artifact import ArtifactRef
from serving.protocol.licences import Use
from serving.protocol.tasks import TaskRequest
from serving.repository.identity import Identity


def inputs_of(part: "Part[Any]") -> list[ArtifactRef]:
    """The artifacts that go into a part."""
    return list(part.inputs) if part.request is None else json_refs(part.request.model_dump(mode="json"))


@dataclass(frozen=True, slots=True)
class Run:
    """In what a part was made.

    Args:
        job_type: the job's type.
        use: what the job is for.
        served_by: ``backend/model``, empty for own code.
        revision: of the model's weights, as the replica resolved it; None where it does not say.
    """

    job_type: str
    use: Use
    served_by: str
    revision: str | None = None


def revision_in(result: object) -> str | None:
    """The revision of the weights that a result, as JSON, says it was made with; a card may name a branch."""
    match result:
        case {"made": {"revision": str(revision)}}:
            return revision
    return None


def provenance_of(
    made: Sequence[ArtifactRef], part: "Part[Any]", place: Place, run: Run, by: Identity | None
) -> list[tuple[ArtifactRef, Provenance]]:
    """The record of each artifact that a part made.

    Args:
        made: what its result refers to; what went in is left out.
        part: the part.
        place: which it is.
        run: the call of the job.
        by: the model that did it.
    """
    inputs = [ref.sha256 for ref in inputs_of(part)]
    told = {
        "source": "stage",
        "made_at": time.time(),
        "software_version": software_version(),
        "job_id": place.job_id,
        "job_type": run.job_type,
        "use": run.use,
        "stage": place.stage,
        "part": place.part,
        "models": _used(by, run) if by else (),
        "seeds": _seeds(part.request),
        "prompt_sha256": _prompt_digest(part.request),
        "inputs": tuple(inputs),
    }
    new = [ref for ref in made if ref.sha256 not in inputs]
    return [(ref, Provenance.model_validate({**ref.model_dump(), **told})) for ref in new]


def _used(by: Identity, run: Run) -> tuple[ModelUsed, ...]:
    """The model, then its parts and the adapter, which have weights and terms of their own."""
    return tuple(
        ModelUsed(
            model=each.model,
            backend=run.served_by.rpartition("/")[0] or None,
            source=each.source,
            revision=(run.revision if each is by else None) or each.revision,
            license=each.license,
            commercial_use=each.commercial_use,
            condition=each.condition,
        )
        for each in (by, *by.others)
    )


def _seeds(request: TaskRequest | None) -> dict[str, int]:
    seed = getattr(request, "seed", None)
    return {} if seed is None else {"seed": seed}


def _prompt_digest(request: TaskRequest | None) -> str | None:
    text = getattr(request, "prompt", None) or getattr(request, "text", None)
    return hashlib.sha256(text.encode()).hexdigest() if isinstance(text, str) else None
