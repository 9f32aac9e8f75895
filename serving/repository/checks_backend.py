"""The check of the backend that a config.pbtxt names, and the backends that Triton is known to have; called by checks
and by whoever knows which of them are installed.

The one invariant: a backend of somebody's own is never refused here, since any name may be one; it is warned of.
"""

import difflib
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Final

from tritonclient.grpc.model_config_pb2 import ModelConfig

from serving.repository.derive import DEFAULT_FILES, PLATFORM_BACKENDS, RAY_BACKEND, triton_backend
from serving.repository.findings import Finding
from serving.repository.places import at_config
from serving.repository.read import RawModel

TRITON_BACKENDS: Final = frozenset(
    {*DEFAULT_FILES, *PLATFORM_BACKENDS.values(), "fil", "identity", "repeat", "square", "tensorrtllm", "vllm"}
)
"""Backends of NVIDIA's images, whether or not the installed Triton has them."""


def check_backend(raw: RawModel, config: ModelConfig) -> Iterator[Finding]:
    """Warns of a backend that no Triton is known to have, and that the model does not bring along."""
    backend = triton_backend(config)
    if not backend or backend == RAY_BACKEND or backend in TRITON_BACKENDS or brings_backend(raw.folder, backend):
        return
    guess = near(backend, TRITON_BACKENDS | {RAY_BACKEND})
    own = f"put libtriton_{backend}.so into the model's folder, or install it in Triton"
    fix = f"did you mean {guess!r}?" if guess else own
    field = "backend" if config.backend else "platform"
    yield at_config(raw, field, f"Triton is not known to have a backend {backend!r}", fix, warning=True)


def near(backend: str, known: Collection[str]) -> str | None:
    """The known backend whose name is most alike; None where none is."""
    return next(iter(difflib.get_close_matches(backend, sorted(known), n=1)), None)


def brings_backend(folder: Path, backend: str) -> bool:
    """Whether a model brings its backend along, in its own folder or in a version's."""
    library = f"libtriton_{backend}.so"
    return (folder / library).exists() or any((each / library).exists() for each in folder.iterdir() if each.is_dir())
