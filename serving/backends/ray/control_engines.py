"""Loads a model's versions into one engine that a plane can serve; used by ModelSet.

The one invariant: either every version is loaded or none stays in memory.
"""

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from typing import Final

from tritonclient.grpc.model_config_pb2 import ModelConfig

from serving.backends.base import EngineContext, TensorEngine
from serving.backends.ray.config_defaults import with_defaults
from serving.backends.ray.engines import load_tensor_engine
from serving.backends.ray.served import ServedModel
from serving.backends.ray.warm_up import warm_up
from serving.errors import BadInput, ReelmeshError, foreign_text
from serving.protocol.oip import InferRequest, InferResponse
from serving.repository.derive import served_versions
from serving.repository.model import Model

MAX_LABEL_BYTES: Final = 16 << 20
"""Largest file of labels."""


class Versions:
    """Several versions of one model as one engine; requests say which.

    Args:
        engines: by version.
    """

    def __init__(self, engines: Mapping[str, TensorEngine]) -> None:
        self._engines = engines

    async def execute(self, requests: Sequence[InferRequest]) -> Sequence[InferResponse | ReelmeshError]:
        """Answer a batch, all of one version."""
        return await self._engines[requests[0].model_version].execute(requests)

    def stream(self, request: InferRequest) -> AsyncIterator[InferResponse]:
        """Answer one request of a decoupled model."""
        return self._engines[request.model_version].stream(request)

    async def close(self) -> None:
        """Free every version; an error of one does not keep the others."""
        found = await asyncio.gather(*(engine.close() for engine in self._engines.values()), return_exceptions=True)
        for error in found:
            if isinstance(error, BaseException):
                raise error


async def load_versions(model: Model, context: EngineContext) -> ServedModel:
    """Load the versions that ``version_policy`` asks for.

    Raises:
        BadInput: there is none, or one does not load or warm up.
        ReelmeshError: as the engine raises it.
    """
    numbers = served_versions(model.config, model.versions)
    if not numbers:
        raise BadInput(f"at least one version must be available under the version policy of model '{model.name}'")
    engines: dict[str, TensorEngine] = {}
    config = ModelConfig()
    try:
        for number in numbers:
            single = Model(model.name, model.folder, model.card, model.config, (number,))
            engine = await asyncio.to_thread(load_tensor_engine, single, context)
            engines[str(number)] = engine
            config = engine.config
            await warm_up(model.folder, config, str(number), engine)
        labels = await asyncio.to_thread(labels_of, model)
    except BaseException:
        await Versions(engines).close()
        raise
    config = with_defaults(config, model.card.engine)
    return ServedModel(config, tuple(engines), Versions(engines), labels=labels)


def labels_of(model: Model) -> dict[str, tuple[str, ...]]:
    """Names of classes by output, from the files that ``label_filename`` names: one a line, in order of the classes.

    Raises:
        BadInput: there is no such file in the model's folder, it is too large, or no UTF-8.
    """
    home = model.folder.resolve()
    found = {}
    for output in model.config.output:
        if not output.label_filename:
            continue
        path = (home / output.label_filename).resolve()
        if not path.is_relative_to(home) or not path.is_file():
            raise BadInput(
                f"failed to load '{model.name}', there is no file '{output.label_filename[:128]}' in its folder",
                field=f"output '{output.name}' label_filename",
            )
        try:
            if path.stat().st_size > MAX_LABEL_BYTES:
                raise BadInput(f"'{path.name}' is larger than {MAX_LABEL_BYTES >> 20} MiB", field="label_filename")
            found[output.name] = tuple(path.read_text(encoding="utf-8").splitlines())
        except (OSError, UnicodeDecodeError) as error:
            raise BadInput(f"'{path.name}' cannot be read: {foreign_text(error)}", field="label_filename") from error
    return found
