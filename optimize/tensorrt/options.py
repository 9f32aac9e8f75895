"""What may be chosen about a TensorRT plan; given by whoever calls build_plan.

The one invariant: options that contradict one another do not exist: they are refused when they are made.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal, get_args

from serving.errors import BadInput
from serving.repository.plan_file import Hardware, Precision

Typing = Literal["auto", "strong", "weak"]
"""Who decides on the type of a layer: the ONNX file (strong), TensorRT among what its flags allow (weak), or the file
where it holds the wanted precision (auto)."""

LEVELS: Final = range(6)
"""Of the builder's optimisation: 0 builds fastest, 5 tries the most kernels; TensorRT's own default is 3."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """How to build a plan.

    Attributes:
        precision: of the layers.
        typing: who decides on it.
        profiles: most optimisation profiles.
        workspace_mib: most scratch memory of a layer in MiB; None is all that the GPU has.
        level: builder optimisation level, one of :data:`LEVELS`.
        version_compatible: let later minor versions of TensorRT run the plan; costs some speed.
        weight_stripped: leave the weights out; the plan takes them from the ONNX file when it is loaded.
        hardware: which GPUs may run it; anything but ``this`` costs some speed.
        tf32: let float32 products round to 10 bits of mantissa, an error of 5e-4 of each factor; fp32 parity within
            1e-4 needs it off.
        timing_cache: folder of the timing caches; None is the plan's model folder.

    Raises:
        BadInput: a value out of its range, or two that do not go together.
    """

    precision: Precision = "fp16"
    typing: Typing = "auto"
    profiles: int = 1
    workspace_mib: int | None = None
    level: int = 3
    version_compatible: bool = False
    weight_stripped: bool = False
    hardware: Hardware = "this"
    tf32: bool = False
    timing_cache: Path | None = None

    def __post_init__(self) -> None:
        for field, kind in (("precision", Precision), ("typing", Typing), ("hardware", Hardware)):
            if getattr(self, field) not in get_args(kind):
                words = ", ".join(get_args(kind))
                raise BadInput(f"there is no {field} {getattr(self, field)!r}", field=field, fix=f"use one of {words}")
        if self.level not in LEVELS:
            raise BadInput(f"there is no level {self.level}", field="level", fix=f"use {LEVELS[0]} to {LEVELS[-1]}")
        if self.workspace_mib is not None and self.workspace_mib < 1:
            raise BadInput(f"{self.workspace_mib} MiB", field="workspace_mib", fix="use 1 or more, or leave it out")
        if self.profiles < 1:
            raise BadInput(f"{self.profiles} profiles", field="profiles", fix="use 1 or more")
        if self.typing == "weak" and self.precision == "fp8":
            problem = "TensorRT does not choose fp8 by itself: it takes it from an ONNX file with Q/DQ nodes"
            raise BadInput(problem, field="typing", fix="use typing: strong")


def options_of(pairs: Sequence[str]) -> Options:
    """Of ``KEY=VALUE`` words; see :class:`Options` for the keys.

    Raises:
        BadInput: names the key, and those there are.
    """
    given: dict[str, object] = {}
    for pair in pairs:
        key, equals, value = pair.partition("=")
        if key not in _READ or not equals:
            known = ", ".join(_READ)
            fix = f"write KEY=VALUE, where KEY is one of {known}"
            raise BadInput(f"{pair[:64]!r} is no option of a plan", field="--plan", fix=fix)
        try:
            given[key] = _READ[key](value)
        except ValueError as error:
            raise BadInput(f"{key} cannot be {value[:64]!r}", field="--plan", fix=str(error)) from error
    return Options(**given)  # type: ignore[arg-type]  # each was read as its field is


def _flag(text: str) -> bool:
    if text not in ("yes", "no"):
        raise ValueError("write yes or no")
    return text == "yes"


def _whole(text: str) -> int:
    if not text.isdecimal():
        raise ValueError("write a whole number")
    return int(text)


_READ: Final[Mapping[str, Callable[[str], object]]] = {
    "typing": str,
    "profiles": _whole,
    "workspace_mib": _whole,
    "level": _whole,
    "version_compatible": _flag,
    "weight_stripped": _flag,
    "hardware": str,
    "tf32": _flag,
    "timing_cache": Path,
}
"""How each of the options is read that may be chosen; the precision is the part's."""
