"""What a recipe is: the small declaration from which one model is exported and proven equal; run by
optimize.run.

The one invariant: a recipe's cases are seeded and its sources are files, so that the same sources give the
same result.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from importlib import import_module
from pathlib import Path
from typing import Final, NamedTuple

import numpy as np
import numpy.typing as npt

from serving.errors import BadInput, MissingDependency

Array = npt.NDArray[np.generic]
Arrays = Mapping[str, Array]

BATCH: Final = "batch"
"""The axis name that becomes Triton's ``max_batch_size``; it must be the first axis of every tensor."""


class Tensor(NamedTuple):
    """One input or output: OIP name, numpy dtype name, and axes, where a str names a dynamic one."""

    name: str
    dtype: str
    axes: tuple[int | str, ...]

    def shape(self, sizes: Mapping[str, int]) -> tuple[int, ...]:
        """The axes with the dynamic ones filled in; KeyError names an axis without a size."""
        return tuple(axis if isinstance(axis, int) else sizes[axis] for axis in self.axes)


class Case(NamedTuple):
    """One set of seeded inputs on which the exported file must equal the reference."""

    name: str
    inputs: Arrays


class Answer(NamedTuple):
    """What the reference said, outputs by name, and the seconds it computed, without any transport."""

    outputs: Arrays
    seconds: float


class Built(NamedTuple):
    """An exported file (with its ``.data`` beside it, if any) and the reference it has to equal.

    ``reference`` takes inputs by name; ``tools`` are the versions for the report.
    """

    onnx: Path
    reference: Callable[[Arrays], Answer]
    tools: Mapping[str, str]


Sampler = Callable[[Tensor, tuple[int, ...], np.random.Generator], Array]
"""Makes one seeded input of a shape."""


def sample(tensor: Tensor, shape: tuple[int, ...], random: np.random.Generator) -> Array:
    """The default: normal for floats, the whole range for integers."""
    dtype = np.dtype(tensor.dtype)
    if np.issubdtype(dtype, np.integer):
        bounds = np.iinfo(dtype)
        return random.integers(bounds.min, bounds.max, shape, dtype=dtype, endpoint=True)
    return random.standard_normal(shape).astype(dtype)


class Recipe(ABC):
    """Base of all recipes.

    Args:
        inputs: tensors of the exported file.
        outputs: tensors of the exported file.
        sizes: axis sizes per case; the first is the one traced, at least two others follow.
        max_batch: Triton's ``max_batch_size``, for recipes with a :data:`BATCH` axis.
        seed: of the sampled inputs and of random weights.
        sampler: makes the inputs; give one where noise would not reach the model's interesting range.
    """

    def __init__(
        self,
        *,
        inputs: Sequence[Tensor],
        outputs: Sequence[Tensor],
        sizes: Sequence[Mapping[str, int]],
        max_batch: int = 0,
        seed: int = 0,
        sampler: Sampler | None = None,
    ) -> None:
        if len(sizes) < 3:  # noqa: PLR2004 - the traced shape and two others
            raise BadInput("a recipe needs the traced shape and at least two others", field="sizes")
        batched = {tensor.axes[:1] == (BATCH,) for tensor in (*inputs, *outputs)}
        if batched != {max_batch > 0}:
            raise BadInput(
                "either all tensors lead with the batch axis and max_batch is set, or none", field="max_batch"
            )
        self.inputs = tuple(inputs)
        self.outputs = tuple(outputs)
        self.sizes = tuple(sizes)
        self.max_batch = max_batch
        self.seed = seed
        self.sampler = sampler or sample

    @abstractmethod
    def sources(self) -> tuple[Path, ...]:
        """Files whose content decides the result, this module's included."""

    @abstractmethod
    def packages(self) -> tuple[str, ...]:
        """Installed distributions whose versions decide the result."""

    @abstractmethod
    def build(self, folder: Path, opset: int) -> AbstractContextManager[Built]:
        """Export into ``folder`` and give the reference; leaving the context frees what the reference holds.

        Raises:
            MissingDependency: if what the exporter needs is not installed.
            EngineFailed: if the exporter fails.
        """

    def cases(self) -> tuple[Case, ...]:
        """The seeded inputs at every declared size."""
        cases = []
        for sizes in self.sizes:
            random = np.random.default_rng(self.seed)
            inputs = {t.name: self.sampler(t, t.shape(sizes), random) for t in self.inputs}
            name = ", ".join(f"{axis} {size}" for axis, size in sizes.items())
            cases.append(Case(name, inputs))
        return tuple(cases)


INSTALL: Final = "pip install 'reelmesh[export]'"
"""Brings torch, onnx and onnxscript."""

RECIPES: Final[Mapping[str, str]] = {
    "log_mel": "optimize.recipes.log_mel:RECIPE",
    "face_detection": "optimize.recipes.mediapipe:FACE_DETECTION",
    "face_landmarks": "optimize.recipes.mediapipe:FACE_LANDMARKS",
}
"""Where each recipe lives; a recipe is imported when it is asked for, since most need torch."""


def find_recipe(name: str) -> Recipe:
    """Import the recipe ``name``; BadInput lists what there is."""
    if name not in RECIPES:
        known = ", ".join(sorted(RECIPES))
        raise BadInput(f"no recipe is called {name!r}", field="export.recipe", fix=f"use one of: {known}")
    module, _, attribute = RECIPES[name].partition(":")
    try:
        recipe = getattr(import_module(module), attribute)
    except ModuleNotFoundError as error:
        raise MissingDependency(
            f"recipe {name!r} needs the package {error.name!r}", field="export.recipe", fix=INSTALL
        ) from error
    assert isinstance(recipe, Recipe)  # noqa: S101 - the table above is ours
    return recipe
