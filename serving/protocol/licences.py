"""What a request is for, where that is told, and how a refusal by a licence reads; used on every way to a model.

The one invariant: what does not say that it is not commercial is commercial, however it says something else.
"""

from collections.abc import Collection, Mapping, Sequence
from typing import Final, Literal, get_args

from serving.errors import LicenceForbids
from serving.protocol.endpoint import Endpoint

Use = Literal["commercial", "non_commercial"]
"""Whether somebody earns with what comes out."""
USES: Final[tuple[Use, ...]] = get_args(Use)
COMMERCIAL: Final = "commercial"
NON_COMMERCIAL: Final = "non_commercial"
USE_HEADER: Final = "x-reelmesh-use"
"""Header or metadata that tells it. With keys the edge deletes what clients say and writes what their key says."""
MOST_NAMED: Final = 5
"""Models that a refusal names."""


def use_of(headers: Mapping[str, str]) -> Use:
    """What a request is for, by its headers or metadata, whose names are in lower case."""
    return NON_COMMERCIAL if headers.get(USE_HEADER) == NON_COMMERCIAL else COMMERCIAL


def metadata_of(use: Use) -> tuple[tuple[str, str], ...]:
    """What tells a replica, over gRPC, what a request is for; nothing tells it that it is commercial."""
    return () if use == COMMERCIAL else ((USE_HEADER, use),)


def refusal(problem: str, task: str, others: Sequence[str]) -> LicenceForbids:
    """The error for commercial work that may not reach a model.

    Args:
        problem: which model, under which licence.
        task: what it does; "" or a task without a typed form has no alternatives.
        others: models of the task that commercial work may use, the best first.
    """
    named = ", ".join(repr(name) for name in others[:MOST_NAMED])
    way = f"use {named}" if named else f"no other model here does {task or 'the same'} for commercial work"
    return LicenceForbids(problem, field="model", fix=f"{way}; or, for other work, x-reelmesh-use: non_commercial")


def refusal_of(model: str, endpoints: Collection[Endpoint]) -> LicenceForbids | None:
    """Why commercial work may not reach a model, by what its replicas say of it; None where it may.

    Args:
        model: its name.
        endpoints: of every living replica, by which alternatives are found.
    """
    own = next((each for each in endpoints if each.model == model and each.refuses), None)
    if own is None:
        return None
    refused = {each.model for each in endpoints if each.refuses}
    others = {each.model for each in endpoints if own.task and each.task == own.task} - refused
    return refusal(own.refuses, own.task, sorted(others))
