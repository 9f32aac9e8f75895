"""Model and its card (``model.yaml``): what the rest of the mesh knows about a model; loaded by repository.load.

The one invariant: a Model that exists has been checked; code that holds one need not check it again.
"""

from pathlib import Path
from typing import Final, Literal

from pydantic import BaseModel, ConfigDict, Field, JsonValue
from tritonclient.grpc.model_config_pb2 import ModelConfig

TENSOR_TASK: Final = "tensor"
"""Task of models that have no typed form and are reached by OIP alone."""
TRITON_GROUP: Final = "triton"
"""The deployment that serves every Triton model."""
TENSOR_GROUP: Final = "tensors"
"""The Ray deployment that serves tensor models unless their cards say otherwise."""


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class License(_Part):
    """Under which terms the weights may be used."""

    name: str = Field(min_length=1, description="SPDX identifier, or the licence's own name.")
    commercial_use: bool | Literal["conditional"] = Field(description="Whether paid work may use the weights.")
    condition: str | None = Field(
        default=None,
        min_length=1,
        max_length=400,
        description="Of a conditional licence: what must hold for commercial use, in one sentence.",
    )
    url: str | None = None

    @property
    def is_unknown(self) -> bool:
        """Whether nobody has said what the terms are: the licence of a folder without ``model.yaml``."""
        return self.commercial_use == "conditional" and self.condition is None


class Source(_Part):
    """Where the weights come from."""

    uri: str = Field(
        max_length=2048, description="builtin:, wheel:, export:, file:, hf:, s3:, mlflow: or dvc: address."
    )
    revision: str | None = Field(default=None, max_length=256, description="Commit, branch, tag or version.")
    sha256: str | None = Field(default=None, pattern=r"^[0-9a-f]{64}$", description="Of the one file, or the digest.")
    files: list[str] = Field(default=[], max_length=200, description="Patterns of the files to take.")
    allow_pickles: list[str] = Field(default=[], max_length=200, description="Names of files that may be pickles.")
    copied: bool = Field(default=False, description="Copy a file: source into the node's cache.")

    @property
    def text(self) -> str:
        """Address and revision, for people."""
        return f"{self.uri} at {self.revision}" if self.revision else self.uri


class Share(_Part):
    """What one replica leases of its node."""

    cpu: float = Field(default=0.1, ge=0, le=256)
    gpu: float = Field(default=0.0, ge=0, le=16)


class Memory(_Part):
    """Measured memory, in MiB."""

    weights_mib: float = Field(ge=0)
    peak_mib: float = Field(ge=0, description="Highest use while answering, weights included.")
    measured_on: str = Field(min_length=1, description="Machine and method, or 'estimate'.")


class Replicas(_Part):
    """How many replicas serve the model and when that number changes."""

    min: int = Field(default=1, ge=0, le=1000)
    max: int = Field(default=1, ge=1, le=1000)
    target_ongoing: float = Field(default=2.0, gt=0, description="Requests per replica the autoscaler aims at.")


class Voice(_Part):
    """One voice of a speech model; ``options`` go to the engine."""

    language: str
    gender: Literal["female", "male", "neutral"]
    description: str = ""
    options: dict[str, JsonValue] = {}


class Adapter(_Part):
    """A fine-tune of the model, such as a LoRA; it has weights and terms of its own."""

    source: Source
    license: License | None = Field(default=None, description="Its own terms; without them the model's hold.")
    description: str = ""
    scale: float = Field(default=1.0, gt=0, le=2, description="How strongly it takes effect.")


class Component(_Part):
    """A part of the model whose weights come from elsewhere, such as a ControlNet or a motion module."""

    source: Source
    license: License | None = Field(default=None, description="Its own terms; without them the model's hold.")
    description: str = ""


class Optimized(_Part):
    """An exported part that the engine runs in the place of its module."""

    model: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,127}$", description="Its folder in this repository.")
    version: int | None = Field(default=None, ge=1, description="Of the part; without it the newest that is not int8.")
    runtime: Literal["onnxruntime", "tensorrt-ep", "tensorrt", "triton"] = Field(
        default="onnxruntime",
        description="Who runs it: the engine's own process by ONNX Runtime, by its TensorRT provider, or by a TensorRT "
        "plan; or Triton.",
    )


class Export(_Part):
    """How `reelmesh optimize` makes the served file, and what it must keep."""

    recipe: str = Field(description="Name of a recipe in optimize/recipes.")
    relative_tolerance: float = Field(gt=0, le=0.1, description="Largest difference, relative to the output's scale.")
    opset: int = Field(default=20, ge=13, le=24)


class ModelCard(_Part):
    """``model.yaml``."""

    description: str = Field(min_length=1, max_length=400)
    task: str = Field(description="A task of serving.protocol.tasks.TASKS, or 'tensor' for OIP alone.")
    backend: Literal["triton", "ray"]
    architecture: str | None = Field(
        default=None, description="Class of the pipeline or network, as its library names it; others are refused."
    )
    engine: str = Field(min_length=1, description="Engine family in a Ray replica, or the Triton adapter of the task.")
    replica_group: str | None = Field(
        default=None,
        pattern=r"^[a-z][a-z0-9_]*$",
        description="Models of one group share a replica process; None gives a typed model one of its own.",
    )
    license: License
    source: Source
    languages: list[str] = []
    voices: dict[str, Voice] = {}
    precision: Literal["fp32", "fp16", "bf16", "int8", "none"] = "fp32"
    memory: Memory | None = None
    share: Share = Share()
    replicas: Replicas = Replicas()
    load_time_s: float | None = Field(default=None, ge=0)
    run_time_s: float | None = Field(default=None, ge=0, description="How long one request takes by itself, measured.")
    warm_up: bool = Field(default=False, description="Run one small request after loading, before the first one comes.")
    fallback: list[str] = Field(default=[], description="Models tried in order when this one is unavailable.")
    aliases: list[str] = []
    default: bool = Field(default=False, description="First choice for its task when a request names no model.")
    limits: dict[str, float] = Field(default={}, description="Upper bounds on request fields, by field name.")
    options: dict[str, JsonValue] = Field(default={}, description="Passed to the engine unchanged.")
    optional: bool = Field(
        default=False, description="Served only where somebody asks for it by name (``reelmesh up --with``)."
    )
    adapters: dict[str, Adapter] = Field(default={}, description="Fine-tunes that requests name, loaded when needed.")
    parts: dict[str, Component] = Field(default={}, description="Parts that have a source of their own, by name.")
    export: Export | None = None
    optimized: dict[str, Optimized] = Field(
        default={}, description="Exported parts that the engine runs instead of torch's, by name."
    )
    gaps: list[str] = Field(default=[], description="What the family can do that is not served, and why.")


class Model:
    """One checked model folder.

    Args:
        name: the folder's name, which is also Triton's model name.
        folder: absolute path.
        card: the parsed ``model.yaml``.
        config: the parsed ``config.pbtxt``.
        versions: numeric version folders, ascending; empty for Ray models without files.
    """

    def __init__(
        self, name: str, folder: Path, card: ModelCard, config: ModelConfig, versions: tuple[int, ...]
    ) -> None:
        self.name = name
        self.folder = folder
        self.card = card
        self.config = config
        self.versions = versions

    @property
    def replica_group(self) -> str:
        """The Ray deployment that serves the model."""
        if self.card.backend == "triton":
            return TRITON_GROUP
        return self.card.replica_group or (TENSOR_GROUP if self.card.task == TENSOR_TASK else self.name)

    def with_source(self, source: Source) -> "Model":
        """The same model with weights from elsewhere: of one of its parts, or of an adapter."""
        card = self.card.model_copy(update={"source": source})
        return Model(self.name, self.folder, card, self.config, self.versions)

    def version_folder(self) -> Path:
        """The folder of the newest version."""
        return self.folder / str(self.versions[-1] if self.versions else 1)

    def __reduce__(self) -> tuple[object, ...]:
        """Protobuf's generated classes cannot be pickled by name, so the config travels in its own encoding."""
        return _unpickled, (self.name, self.folder, self.card, self.config.SerializeToString(), self.versions)

    def __repr__(self) -> str:
        """Name and place."""
        return f"Model({self.name!r}, {str(self.folder)!r})"


def _unpickled(name: str, folder: Path, card: ModelCard, config: bytes, versions: tuple[int, ...]) -> Model:
    return Model(name, folder, card, ModelConfig.FromString(config), versions)
