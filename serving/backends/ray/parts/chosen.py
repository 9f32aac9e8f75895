"""Swaps in the parts that a model's card chooses under ``optimized``; called by NetworkEngine after it has loaded.

The one invariant: a part that is missing, stale or of another model keeps the model from loading, with the reason.
"""

import hashlib
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Literal, Protocol

from serving.backends.ray.parts.onnx_runner import OnnxRunner
from serving.backends.ray.parts.place import module_at
from serving.backends.ray.parts.providers import providers, shapes_of
from serving.backends.ray.parts.swap import Open, Swapped, swap_in
from serving.backends.ray.parts.tensorrt import open_plan
from serving.backends.ray.parts.triton_runner import Find, TritonRunner
from serving.errors import BadInput, NotFound
from serving.repository.derive import is_version
from serving.repository.model import Model, Optimized
from serving.repository.part_config import chosen_version
from serving.repository.part_file import PartFile, Precision, Variant, read_part
from serving.repository.plan_file import plans_folder

if TYPE_CHECKING:
    from serving.backends.ray.engines.network.placement import Placement
    from serving.weights.held import HeldWeights


class Loaded(Protocol):
    """What of an engine this needs."""

    model: Model
    placement: "Placement"
    threads: int
    built: Path
    triton: "Find | None"
    weights: "HeldWeights"
    parts: "dict[str, HeldWeights]"


def weights_digest(engine: Loaded) -> str:
    """SHA-256 over all weights that an engine was loaded from: the model's own, and those of parts from elsewhere."""
    return digest_of(engine.weights, engine.parts)


def digest_of(own: "HeldWeights", others: "Mapping[str, HeldWeights]") -> str:
    """The same of weights that are held."""
    if not others:
        return own.digest
    total = hashlib.sha256(own.digest.encode())
    for name, held in sorted(others.items()):
        total.update(f"{name}={held.digest}\n".encode())
    return total.hexdigest()


def swap_in_chosen(engine: Loaded) -> dict[str, Swapped]:
    """Swap in every part that the card chooses.

    Raises:
        NotFound: a part or its version is not there.
        BadInput: it belongs to other weights or another model, or cannot be had together with the card's adapters.
    """
    digest = weights_digest(engine) if engine.model.card.optimized else ""
    swapped = {}
    for name, chosen in engine.model.card.optimized.items():
        field = f"{engine.model.name}/model.yaml:optimized.{name}"
        folder = version_folder(engine.model.folder.parent / chosen.model, chosen, field)
        part = read_part(folder)
        _check(engine, part, digest, field)
        swapped[name] = swap_in(engine, folder, part, opener(engine, chosen, folder, field))
    return swapped


def version_folder(folder: Path, chosen: Optimized, field: str) -> Path:
    """The version of a part that a card means.

    Raises:
        NotFound: says which there are.
    """
    there = sorted(int(path.name) for path in folder.iterdir() if is_version(path.name)) if folder.is_dir() else []
    if not there:
        fix = "run `reelmesh optimize MODEL --part PART`, or take it out of optimized"
        raise NotFound(f"there is no exported part in {folder}", field=field, fix=fix)
    version = chosen_version(chosen, folder, there)
    if version is None:
        missing = f"no version {chosen.version}" if chosen.version else "no version in a floating precision"
        raise NotFound(f"{folder} has {missing}", field=field, fix=f"use one of {', '.join(map(str, there))}")
    return folder / str(version)


def opener(engine: Loaded, chosen: Optimized, folder: Path, field: str) -> Open:
    """Who runs the files: what the card names.

    Args:
        engine: says the device.
        chosen: of the card.
        folder: of the part's version.
        field: of the card, for messages.

    Raises:
        BadInput: nobody here can.
    """
    device = engine.placement.device
    if chosen.runtime in ("onnxruntime", "tensorrt-ep"):
        return partial(_by_onnxruntime, engine, chosen.runtime, _of_layers(folder))
    if chosen.runtime == "tensorrt":
        if device == "cpu":
            raise BadInput("TensorRT runs on no CPU", field=f"{field}.runtime", fix="use onnxruntime, or a GPU")
        return lambda file, variant: open_plan(file, plans_folder(folder), device)
    find = engine.triton
    if find is None:
        problem = "there is no Triton in this mesh to run it"
        raise BadInput(problem, field=f"{field}.runtime", fix="use onnxruntime, or start the mesh with Triton")
    if problem := read_part(folder).unsendable():
        raise BadInput(problem, field=f"{field}.runtime", fix="use onnxruntime, or another version")
    return lambda file, variant: TritonRunner(chosen.model, int(folder.name), variant, find)


def _by_onnxruntime(
    engine: Loaded, runtime: Literal["onnxruntime", "tensorrt-ep"], precision: Precision, file: Path, variant: Variant
) -> OnnxRunner:
    """ONNX Runtime; its TensorRT provider keeps what it builds in the node's cache, in a folder for each file."""
    device, version = engine.placement.device, file.parent
    cache = engine.built / version.parent.name / version.name / file.stem
    shapes = shapes_of(variant) if variant.sizes else None
    if runtime == "tensorrt-ep":
        cache.mkdir(parents=True, exist_ok=True)
    chain = providers(device, runtime, cache, engine.placement.memory_bytes, precision=precision, shapes=shapes)
    return OnnxRunner(file, variant, device=device, threads=engine.threads, providers=chain)


def _of_layers(folder: Path) -> Precision:
    precision = read_part(folder).precision
    return "fp32" if precision == "int8" else precision


def _check(engine: Loaded, part: PartFile, digest: str, field: str) -> None:
    name = engine.model.name
    again = f"run `reelmesh optimize {name} --part {part.part}`, or take it out of optimized"
    if part.model != name:
        raise BadInput(f"the part is of {part.model}", field=field, fix=again)
    if part.weights_digest != digest:
        problem = f"the part was made of other weights ({part.weights_digest[:12]}, and these are {digest[:12]})"
        raise BadInput(problem, field=field, fix=again)
    if engine.model.card.adapters and hasattr(module_at(engine, part.at), "add_adapter"):
        problem = "fine-tunes cannot be put on an exported part"
        raise BadInput(problem, field=field, fix="take out the adapters, or this part")
