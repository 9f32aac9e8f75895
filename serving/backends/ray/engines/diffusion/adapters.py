"""Adapters: LoRA fine-tunes of a pipeline, loaded when a request names one; owned by DiffusionEngine.

The one invariant: whatever an adapter was, without it the pipeline makes what it made before: a bad one leaves nothing.
"""

import importlib
import threading
from collections import OrderedDict
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Final

import structlog

from serving.backends.ray.engines.network.engine import needs
from serving.backends.ray.engines.network.faults import is_out_of_memory
from serving.errors import BadInput, foreign_text, shown
from serving.repository.model import Adapter, Source

if TYPE_CHECKING:
    import torch
    from diffusers import DiffusionPipeline

    from serving.weights.held import HeldWeights

log = structlog.get_logger()

USUAL_FILE: Final = "pytorch_lora_weights.safetensors"
"""Name that diffusers' training scripts give it."""
_DENOISERS: Final = ("unet", "transformer")
_PAIRS: Final = ((".lora_A.weight", 1), (".lora_B.weight", 0))
"""Ends of the two factors' names, and the side of the layer's weight that each must fit."""
_BETWEEN: Final = ""
"""Active while it is being changed: neither an adapter nor none."""
_MOST_SHOWN: Final = 3
_FIX: Final = "name an adapter that was trained on this base model"

Tensors = Mapping[str, "torch.Tensor"]


class Adapters:
    """A bounded number of adapters in memory; the one used longest ago goes first.

    :meth:`fetch` runs in any thread, :meth:`use` in the network's.

    Args:
        pipeline: of diffusers.
        cards: adapters by name, from the model's card.
        hold: fetches weights to the node.
        loaded: called after weights were added, to bring back what diffusers undoes for it (offload hooks).
        most: adapters that stay in memory.
    """

    def __init__(
        self,
        pipeline: "DiffusionPipeline",
        cards: Mapping[str, Adapter],
        hold: "Callable[[Source], HeldWeights]",
        *,
        loaded: Callable[[], None],
        most: int = 4,
    ) -> None:
        self._pipeline, self._cards, self._hold, self._done = pipeline, cards, hold, loaded
        self._most = max(1, most)
        if cards and not hasattr(pipeline, "load_lora_weights"):
            raise BadInput(f"{type(pipeline).__name__} takes no adapters", field="adapters", fix="remove them")
        denoisers = [name for name in _DENOISERS if cards and hasattr(pipeline, name)]
        self._layers = {name: _layers(getattr(pipeline, name)) for name in denoisers}
        self._read: OrderedDict[str, Tensors] = OrderedDict()
        self._reading = threading.Lock()
        self.loaded: OrderedDict[str, None] = OrderedDict()
        self.active: str | None = None

    def check(self, name: str | None) -> None:
        """Refuse an adapter that the card does not have.

        Raises:
            BadInput: names those it has.
        """
        if name is not None and name not in self._cards:
            fix = f"use one of {', '.join(sorted(self._cards))}" if self._cards else "leave it out: the model has none"
            raise BadInput(f"there is no adapter {shown(name)}", field="adapter", fix=fix)

    def fetch(self, name: str | None) -> None:
        """Read an adapter's file, and see that it fits, if it is not in memory; blocks.

        Raises:
            BadInput: it is no LoRA of this pipeline.
            ReelmeshError: its weights cannot be had.
        """
        if name is None or name in self.loaded:
            return
        with self._reading:
            if name not in self._read:
                self._read[name] = self._tensors(name)
                while len(self._read) > self._most:
                    self._read.popitem(last=False)

    def use(self, name: str | None) -> None:
        """Let the next pass run with this adapter alone, or with none.

        Raises:
            BadInput: it does not fit.
        """
        if name == self.active and (name is None or name in self.loaded):
            return
        import torch

        self.active = _BETWEEN  # whatever fails from here on, the next request sets its own anew
        with torch.inference_mode(False), torch.no_grad():
            if name is None:
                if self.loaded:
                    self._pipeline.disable_lora()
            else:
                self._ensure(name)
                self._pipeline.enable_lora()
                self._pipeline.set_adapters([name], [self._cards[name].scale])
                self.loaded.move_to_end(name)
        self.active = name

    def close(self) -> None:
        """Drop the pipeline and what was read."""
        self._pipeline = None
        self._read.clear()

    def _ensure(self, name: str) -> None:
        if name in self.loaded:
            return
        needs(lambda: importlib.import_module("peft"), "peft")
        with self._reading:  # others that were fetched meanwhile may have taken its place
            tensors = self._read.pop(name, None) or self._tensors(name)
        while len(self.loaded) >= self._most:
            self._drop(next(iter(self.loaded)))
        try:
            self._pipeline.load_lora_weights(dict(tensors), adapter_name=name)
            self._check_whole(name, tensors)
        except Exception as error:
            self._drop(name)
            if isinstance(error, BadInput) or is_out_of_memory(error):
                raise
            raise _misfit(name, foreign_text(error)) from error
        self.loaded[name] = None
        self._done()

    def _drop(self, name: str) -> None:
        """Take an adapter out; without any left, layers are what they were."""
        self.loaded.pop(name, None)
        if any(name in names for names in self._pipeline.get_list_adapters().values()):
            self._pipeline.delete_adapters([name])
        if self.loaded:
            self._pipeline.disable_lora()
        else:
            self._pipeline.unload_lora_weights()
        log.info("adapter_dropped", adapter=name)

    def _tensors(self, name: str) -> Tensors:
        from safetensors.torch import load_file

        with self._hold(self._cards[name].source) as held:
            path = held.folder / _file_of(name, [entry.name for entry in held.manifest.files])
            tensors: Tensors = load_file(path)
        self._check_fit(name, path, tensors)
        return tensors

    def _check_fit(self, name: str, path: Path, tensors: Tensors) -> None:
        converted = self._converted(name, tensors)
        problems = [
            problem for denoiser, layers in self._layers.items() for problem in misfits(converted, denoiser, layers)
        ]
        if problems:
            more = f" and {len(problems) - _MOST_SHOWN} more" if len(problems) > _MOST_SHOWN else ""
            raise _misfit(name, f"{path.name}: {', '.join(problems[:_MOST_SHOWN])}{more}")

    def _converted(self, name: str, tensors: Tensors) -> Tensors:
        """The tensors under diffusers' own names, whatever trainer wrote them."""
        arguments = {"unet_config": self._pipeline.unet.config} if hasattr(self._pipeline, "unet") else {}
        try:
            found = self._pipeline.lora_state_dict(dict(tensors), **arguments)
        except Exception as error:
            raise _misfit(name, f"no LoRA that diffusers knows: {foreign_text(error)}") from error
        converted: Tensors = found[0] if isinstance(found, tuple) else found
        return converted

    def _check_whole(self, name: str, tensors: Tensors) -> None:
        """See that every pair of factors found its layer: diffusers only warns of those that do not."""
        wanted = sum(key.endswith((".lora_A.weight", ".down.weight")) for key in self._converted(name, tensors))
        parts = [part for part in self._pipeline.components.values() if hasattr(part, "named_parameters")]
        found = sum(key.endswith(f".lora_A.{name}.weight") for part in parts for key, _ in part.named_parameters())
        if found < max(1, wanted):
            raise _misfit(name, f"{found} of its {wanted} pairs of factors fit a layer")


def misfits(tensors: Tensors, prefix: str, layers: Mapping[str, tuple[int, ...]]) -> list[str]:
    """What of an adapter does not fit a network.

    Args:
        tensors: by name in PEFT's form, ``<prefix>.<layer>.lora_A.weight``; other names are not looked at.
        prefix: of the network.
        layers: shapes of its layers' weights, by name.

    Returns:
        One short text for each.
    """
    problems = []
    for key, tensor in tensors.items():
        for end, side in _PAIRS:
            if not (key.startswith(f"{prefix}.") and key.endswith(end)):
                continue
            layer = key.removeprefix(f"{prefix}.").removesuffix(end)
            if layer not in layers:
                problems.append(f"there is no layer {shown(layer)}")
            elif tensor.shape[side] != layers[layer][side]:
                problems.append(f"{shown(layer)} is {list(layers[layer])}, {end[1:7]} {list(tensor.shape)}")
    return problems


def _layers(network: "torch.nn.Module") -> dict[str, tuple[int, ...]]:
    """Shapes of the weights by layer, before any adapter wraps them."""
    weights = ((name, getattr(module, "weight", None)) for name, module in network.named_modules())
    return {name: tuple(weight.shape) for name, weight in weights if weight is not None}


def _file_of(name: str, files: list[str]) -> str:
    """The one safetensors file of an adapter's source."""
    found = [file for file in files if file.endswith(".safetensors")]
    usual = [file for file in found if Path(file).name == USUAL_FILE]
    if len(usual or found) != 1:
        told = f"holds {len(found)} safetensors files" if found else "holds no safetensors file"
        raise BadInput(f"the adapter {shown(name)} {told}", field="adapter", fix="name the one in its source.files")
    return (usual or found)[0]


def _misfit(name: str, problem: str) -> BadInput:
    return BadInput(f"the adapter {shown(name)} does not fit the model: {problem}", field="adapter", fix=_FIX)
