"""PartFile (``part.json``): what an exported part is and how it takes the place of its module; beside ``model.onnx``.

Written by `reelmesh optimize`, read by the engine that swaps the part in. The one invariant: a PartFile that exists
names only files of its own folder, and a part is never used with other weights than it was made of.
"""

from pathlib import Path
from typing import Final, Literal

from pydantic import BaseModel, ConfigDict, Field, JsonValue, ValidationError

from serving.errors import BadInput, NotFound

PART_FILE: Final = "part.json"
MOST_VARIANTS: Final = 64
"""Files of one part."""
_MOST_BYTES: Final = 4 << 20

Precision = Literal["fp32", "fp16", "bf16", "int8"]


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class PartTensor(_Part):
    """One tensor of a variant.

    Attributes:
        name: in the ONNX file and in the call.
        dtype: numpy's name, or ``bfloat16``.
        axes: sizes; a str names a dynamic one.
        scalar: whether the call has a tensor without axes, which the file takes as one of axis 1.
    """

    name: str = Field(min_length=1, max_length=256)
    dtype: str
    axes: list[int | str]
    scalar: bool = False


class Variant(_Part):
    """One way in which the part is called, and the file that answers it.

    Attributes:
        file: in the version folder.
        call: the tree of the call's arguments, tensors by name.
        answer: the tree of what the module returns.
        inputs: that the file takes, in order.
        outputs: that it gives, in order.
        sizes: of the dynamic axes, by name, in every call that it was proven with; none where no axis varies.
    """

    file: str = Field(pattern=r"^[a-z0-9][a-z0-9_.-]{0,127}$")
    call: JsonValue
    answer: JsonValue
    inputs: list[PartTensor] = Field(min_length=1, max_length=1000)
    outputs: list[PartTensor] = Field(min_length=1, max_length=1000)
    sizes: list[dict[str, int]] = Field(default=[], max_length=1000)


class PartFile(_Part):
    """``part.json``.

    Attributes:
        model: that the part belongs to.
        part: its name there.
        at: path of the module in the loaded engine, such as ``pipeline.unet``.
        adapter: that rewrites calls before they are flattened; see serving.backends.ray.parts.adapters.
        keeps: whether the module keeps its numbers, since the engine asks it for what the part does not answer.
        precision: of weights in the file.
        weights_digest: of the weights that it was made of (HeldWeights.digest).
        variants: the ways in which it is called, at least one.
    """

    model: str
    part: str
    at: str
    adapter: str | None = None
    keeps: bool = False
    precision: Precision
    weights_digest: str
    variants: list[Variant] = Field(min_length=1, max_length=MOST_VARIANTS)

    def unsendable(self) -> str:
        """Why Triton cannot serve it to an engine; empty where it can."""
        if len(self.variants) > 1:
            return f"{self.part} has {len(self.variants)} files for different calls, and Triton serves one"
        tensors = (*self.variants[0].inputs, *self.variants[0].outputs)
        named = next((tensor.name for tensor in tensors if tensor.dtype == "bfloat16"), "")
        return f"{named} of {self.part} is bfloat16, which is not sent to Triton" if named else ""


def read_part(folder: Path) -> PartFile:
    """The part that a version folder holds.

    Raises:
        NotFound: there is none.
        BadInput: it cannot be read.
    """
    file = folder / PART_FILE
    try:
        if file.stat().st_size > _MOST_BYTES:
            raise BadInput(f"larger than {_MOST_BYTES >> 20} MiB", field=str(file), fix="publish the part again")
        return PartFile.model_validate_json(file.read_bytes())
    except OSError as error:
        fix = "run `reelmesh optimize MODEL --part PART`, or name another version"
        raise NotFound("there is no exported part", field=str(folder), fix=fix) from error
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"]))
        raise BadInput(f"{where}: {first['msg']}", field=str(file), fix="publish the part again") from error
