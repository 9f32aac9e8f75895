"""Coqui's files: its modules, configurations and checkpoints; read by the engines of Coqui's voices in ``load``.

The one invariant: a checkpoint is read as numbers (``weights_only``); no file's code is ever run.
"""

import contextlib
import importlib
import pickle
import re
import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import TYPE_CHECKING, Any, Final

from serving.backends.ray.engines.network.checkpoint import check_shapes, reading
from serving.errors import BadInput, MissingDependency
from serving.repository.model import Model
from serving.weights.selection import matches, pickle_refused

if TYPE_CHECKING:
    import torch

MODEL_FILES: Final = ("model.safetensors", "model.pth", "model_file.pth", "best_model.pth")
"""Names of checkpoints, the first that is there counts: converted, XTTS, the model zoo, training."""

_GLOBAL: Final = re.compile(r"GLOBAL ([\w.]{1,120})")
"""What torch says a pickle would have run."""


def coqui(module: str) -> ModuleType:
    """A module of coqui-tts.

    Raises:
        MissingDependency: it or what it needs is not installed.
    """
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", category=SyntaxWarning)
            warnings.filterwarnings("ignore", category=DeprecationWarning)
            return importlib.import_module(f"TTS.{module}")
    except ImportError as error:
        raise MissingDependency("coqui-tts is not installed whole", fix="run `scripts/bootstrap full`") from error


def without_spectrograms(config: Any) -> Any:  # noqa: ANN401  Coqui's class
    """A configuration of VITS whose sound is rates alone: training's spectrograms, which need numba, are not set up."""
    config.audio = SimpleNamespace(sample_rate=int(config.audio.sample_rate), hop_length=int(config.audio.hop_length))
    return config


def read_state(model: Model, folder: Path) -> dict[str, "torch.Tensor"]:
    """The tensors of a checkpoint, by key, on the CPU.

    Args:
        model: its card says which pickles may be read.
        folder: where the checkpoint is.

    Raises:
        BadInput: there is none, it is damaged, a pickle that the card does not allow, or holds more than numbers.
    """
    name = model.name
    path = next((folder / file for file in MODEL_FILES if (folder / file).is_file()), None)
    if path is None:
        fix = f"the file is one of {', '.join(MODEL_FILES)}"
        raise BadInput("there is no checkpoint", field=f"{name}: {folder.name}", fix=fix)
    if path.suffix == ".safetensors":
        from safetensors.torch import load_file

        return reading(name, lambda: load_file(path), path)
    held = read_pickle(model, path)
    state = held.get("model", held) if isinstance(held, Mapping) else None
    if not isinstance(state, Mapping) or not all(hasattr(value, "shape") for value in state.values()):
        fix = "use the file that training or the model zoo wrote"
        raise BadInput("the file holds no network", field=f"{name}: {path.name}", fix=fix)
    return dict(state)


def read_pickle(model: Model, path: Path) -> object:
    """What ``torch.save`` wrote, as far as it is numbers, names and Coqui's own settings.

    Raises:
        BadInput: the card does not allow it by name, it is damaged, or it holds more than that.
    """
    import torch

    if not matches(path.name, model.card.source.allow_pickles):
        raise pickle_refused(model.card.source.uri, path.name)

    def load() -> object:
        try:
            held: object = torch.load(path, map_location="cpu", weights_only=True)
            return held
        except pickle.UnpicklingError as error:
            named = _GLOBAL.search(str(error))
            if named is None:
                raise
            fix = "convert it to model.safetensors where you trust it"
            problem = f"the file holds more than numbers, such as {named[1]}"
            raise BadInput(problem, field=f"{model.name}: {path.name}", fix=fix) from error
        except EOFError as error:
            raise BadInput("the file is cut short", field=f"{model.name}: {path.name}", fix="fetch it again") from error

    with _known_settings():
        return reading(model.name, load, path)


@contextlib.contextmanager
def _known_settings() -> Iterator[None]:
    """XTTS was published with its settings beside the weights: classes of fields, which may be read."""
    with coqui("tts.models.xtts")._legacy_safe_globals():
        yield


def fill(network: "torch.nn.Module", state: Mapping[str, "torch.Tensor"], *, field: str) -> None:
    """Put a checkpoint's tensors into a network.

    Raises:
        BadInput: keys that are missing, unknown, of another shape, or whole numbers where there are fractions.
    """
    wanted = network.state_dict()
    found = {key: tuple(value.shape) for key, value in state.items()}
    check_shapes(found, {key: tuple(value.shape) for key, value in wanted.items()}, field=field)
    for key, value in wanted.items():
        if value.is_floating_point() and not state[key].is_floating_point():
            fix = "use a checkpoint in float32"
            raise BadInput(
                f"an unsupported dtype: the checkpoint has {key} in {state[key].dtype}", field=field, fix=fix
            )
    network.load_state_dict(state)
