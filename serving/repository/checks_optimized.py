"""The checks on the exported parts that a card chooses under ``optimized``; called by checks.

The one invariant: what passes is there, belongs to the model, and can be run by who is named.
"""

import difflib
from collections.abc import Iterator, Mapping
from pathlib import Path

from serving.errors import ReelmeshError
from serving.repository.findings import Finding
from serving.repository.model import Optimized
from serving.repository.part_config import chosen_version
from serving.repository.part_file import PartFile, read_part
from serving.repository.places import at_card
from serving.repository.plan_file import plans_folder
from serving.repository.read import RawModel


def check_optimized(models: Mapping[str, RawModel]) -> Iterator[Finding]:
    """Findings about every model's chosen parts.

    Args:
        models: all that would serve, by name.
    """
    for raw in models.values():
        for name, chosen in (raw.card.optimized if raw.card is not None else {}).items():
            yield from _check_one(raw, name, chosen, models)


def _check_one(raw: RawModel, name: str, chosen: Optimized, models: Mapping[str, RawModel]) -> Iterator[Finding]:
    field = f"optimized.{name}"
    again = f"run `reelmesh optimize {raw.name} --part {name}`, or take it out of optimized"
    beside = {other: found for other, found in models.items() if found.folder.parent == raw.folder.parent}
    if chosen.model not in beside:
        near = difflib.get_close_matches(chosen.model, beside, n=1)
        problem = f"no model {chosen.model!r} beside this one"
        yield at_card(raw, f"{field}.model", problem, f"did you mean {near[0]!r}?" if near else again)
        return
    there = beside[chosen.model]
    version = chosen_version(chosen, there.folder, there.versions)
    if version is None:
        fix = f"use one of {', '.join(map(str, there.versions))}" if there.versions else again
        missing = f"no version {chosen.version}" if chosen.version else "no version in a floating precision"
        yield at_card(raw, f"{field}.version", f"{chosen.model!r} has {missing}", fix)
        return
    try:
        part = read_part(there.folder / str(version))
    except ReelmeshError as error:
        yield at_card(raw, field, f"version {version} of {chosen.model!r} is no part: {error.problem}", again)
        return
    if (part.model, part.part) != (raw.name, name):
        problem = f"{chosen.model!r} is the part {part.part!r} of {part.model!r}"
        yield at_card(raw, f"{field}.model", problem, again)
    elif chosen.runtime == "triton":
        yield from _check_triton(raw, field, part)
    elif chosen.runtime == "tensorrt":
        yield from _check_plans(raw, field, there.folder / str(version), part)


def _check_triton(raw: RawModel, field: str, part: PartFile) -> Iterator[Finding]:
    """Triton serves one file of types that can be sent; an engine refuses the same when it loads."""
    if problem := part.unsendable():
        yield at_card(raw, f"{field}.runtime", problem, "use onnxruntime, or another version")


def _check_plans(raw: RawModel, field: str, version: Path, part: PartFile) -> Iterator[Finding]:
    """Every file needs a plan for some GPU; which of them fits, and its bytes, an engine sees when it loads."""
    for variant in part.variants:
        stem = Path(variant.file).stem
        if not any(plans_folder(version).glob(f"{stem}-sm*-trt*.plan")):
            fix = (
                f"build it on the GPU: reelmesh k8s job-tensorrt {raw.name} --part {part.part} --version {version.name}"
            )
            yield at_card(
                raw, f"{field}.runtime", f"version {version.name} has no TensorRT plan of {variant.file}", fix
            )
            return
