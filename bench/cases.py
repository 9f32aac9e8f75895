"""One request per family, and the same work by the family's own library; measured by bench.engines.

The one invariant: both make the same file from the same weights, with the same steps, seed and size.
"""

from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import Any, Final, NamedTuple

from serving.artifacts.store import ArtifactStore
from serving.backends.ray.engines.network.seeds import generator
from serving.protocol.tasks import ImageRequest, TaskRequest

Direct = Callable[[Path], None]


class Case(NamedTuple):
    """What is measured of one model.

    Args:
        model: its name, with a tiny checkpoint.
        request: makes a request; the number changes its seed or text.
        direct: of a loaded engine, a request and its files, the same work without the engine.
    """

    model: str
    request: Callable[[ArtifactStore, int], Awaitable[TaskRequest]]
    direct: Callable[[Any, Any, Mapping[str, Path]], Direct]


async def _image(_: ArtifactStore, number: int) -> ImageRequest:
    return ImageRequest(prompt="a lighthouse at dusk", width=64, height=64, steps=4, seed=number)


def _sdxl(engine: Any, request: ImageRequest, _: Mapping[str, Path]) -> Direct:  # noqa: ANN401
    import torch

    def direct(folder: Path) -> None:
        with torch.inference_mode():
            made = engine.pipeline(
                prompt=[request.prompt],
                num_inference_steps=request.steps,
                guidance_scale=engine.guidance_of(request),
                width=request.width,
                height=request.height,
                generator=[generator(request.seed)],
            )
        made.images[0].save(folder / "image.png")

    return direct


CASES: Final[tuple[Case, ...]] = (Case("sdxl", _image, _sdxl),)
