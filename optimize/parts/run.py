"""Optimises the parts of one model: which are wanted, which are done already, and the others one by one.

Called by optimize.cli. The one invariant: one part that fails does not keep others from being published.
"""

import asyncio
import tempfile
from collections.abc import Mapping
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

from optimize.onnx_export import OPSET
from optimize.parts.fingerprint import fingerprint_of
from optimize.parts.opened import has_gpu
from optimize.parts.part import Family, Part, find_family
from optimize.parts.record import open_store, recorded
from optimize.parts.requests_file import read_requests
from optimize.parts.samples import Samples
from optimize.parts.work import Asked, Notify, PartOutcome, Work, part_folder
from optimize.publish import is_whole, published
from serving.backends.ray.parts.chosen import digest_of
from serving.errors import BadInput, MissingDependency
from serving.repository.model import Model
from serving.weights.cache import WeightsCache


def optimize_parts(
    model: Model, asked: Asked, weights: WeightsCache, notify: Notify = lambda part, step: None
) -> list[PartOutcome]:
    """Export the parts of a model and publish each beside it, as ``<model>_<part>/<version>``.

    Args:
        model: of the repository, with its own weights.
        asked: parts and precision.
        weights: the node's cache.
        notify: told the part and the step, of :data:`STEPS`, when it begins.

    Raises:
        BadInput: nothing of the model is exported, it has no such part, or the requests are of another task.
        ReelmeshError: the engine cannot load, or a sample request fails.
    """
    family = find_family(model.name, model.card)
    if asked.precision == "bf16":
        _check_bf16()
    parts = chosen_parts(model.name, family, asked)
    with tempfile.TemporaryDirectory(prefix="reelmesh-optimize-") as scratch:
        run = Run(model, asked, weights, Path(scratch), notify)
        return asyncio.run(run.outcomes(family, parts))


def _check_bf16() -> None:
    """ONNX Runtime has kernels of bfloat16 on GPUs alone, so on a CPU no gate could be passed.

    Raises:
        MissingDependency: there is none here.
    """
    if not has_gpu():
        problem = "ONNX Runtime runs bf16 on GPUs alone, and torch and this build of it know none here"
        fix = "use --precision fp16, or onnxruntime-gpu and torch with CUDA on a machine with a GPU"
        raise MissingDependency(problem, field="--precision", fix=fix)


def chosen_parts(model: str, family: Family, asked: Asked) -> dict[str, Part]:
    """The declarations of the parts that are wanted; those that have no INT8 are left out where nobody named them.

    Raises:
        BadInput: names what there is.
    """
    for name in asked.parts:
        if name not in family.parts:
            fix = f"use one of {', '.join(family.parts)}"
            raise BadInput(f"{model} has no part {name!r}", field="--part", fix=fix)
        if asked.precision == "int8" and family.parts[name].int8 is None:
            able = [part for part, declared in family.parts.items() if declared.int8]
            fix = f"use one of {', '.join(able)}" if able else "use fp32 or fp16"
            raise BadInput(f"{name} is not quantised", field="--precision", fix=fix)
    wanted = asked.parts or [
        name for name, declared in family.parts.items() if asked.precision != "int8" or declared.int8 is not None
    ]
    return {name: family.parts[name] for name in wanted}


@dataclass(frozen=True)
class Run:
    """Everything that one call of the command has in common."""

    model: Model
    asked: Asked
    weights: WeightsCache
    scratch: Path
    notify: Notify

    async def outcomes(self, family: Family, parts: Mapping[str, Part]) -> list[PartOutcome]:
        """Of every part, in order."""
        model, asked = self.model, self.asked
        store = open_store(self.scratch)
        if asked.requests is None:
            requests = await family.requests(Samples(model.card, store))
        else:
            requests = await read_requests(asked.requests, model.card.task, store)
        weights = await asyncio.to_thread(_held_digest, model, self.weights)
        prints = {
            name: fingerprint_of(part, asked.precision, requests, model.card, weights, OPSET)
            for name, part in parts.items()
        }
        done = {} if asked.force else {name: found for name in parts if (found := _done(model, name, prints[name]))}
        left = {name: part for name, part in parts.items() if name not in done}
        if left:
            self.notify("", "record")
            async with recorded(model, left, requests, store, self.weights, self.scratch) as recording:
                for name, part in left.items():
                    work = Work(model, name, part, asked, prints[name], recording, self.notify)
                    done[name] = await work.outcome(weights)
        return [done[name] for name in parts]


def _held_digest(model: Model, weights: WeightsCache) -> str:
    with closing(weights.hold(model)) as own:
        others = {name: weights.hold(model.with_source(part.source)) for name, part in model.card.parts.items()}
        try:
            return digest_of(own, others)
        finally:
            for held in others.values():
                held.close()


def _done(model: Model, name: str, fingerprint: str) -> PartOutcome | None:
    """The newest version that was made of the very same."""
    for version, report in published(part_folder(model, name)):
        if report.fingerprint == fingerprint and is_whole(version, report):
            return PartOutcome(name, "up_to_date", version, report)
    return None
