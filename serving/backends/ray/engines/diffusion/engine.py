"""DiffusionEngine: the base of engines that run a pipeline of diffusers; families say what they ask of it.

The one invariant: a pipeline's own code makes the output; the engine adds seeds of each request, steps, and bounds.
"""

from abc import abstractmethod
from collections.abc import Callable, Collection, Hashable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, Generic, TypeVar

from serving.backends.ray.engines.diffusion import memory
from serving.backends.ray.engines.diffusion.adapters import Adapters
from serving.backends.ray.engines.diffusion.loading import library, load_parts, naming, read_index, read_tensors
from serving.backends.ray.engines.diffusion.outputs import pixels
from serving.backends.ray.engines.diffusion.prompts import Prompts
from serving.backends.ray.engines.network.engine import NetworkEngine
from serving.backends.ray.engines.network.inputs import check_sides
from serving.backends.ray.engines.network.seeds import generator
from serving.backends.ray.engines.network.steps import Steps
from serving.errors import BadInput
from serving.protocol.tasks import ImageRequest, ImageToVideoRequest, TaskRequest, TextToVideoRequest

if TYPE_CHECKING:
    import numpy as np
    import torch
    from diffusers import DiffusionPipeline
    from diffusers.utils import BaseOutput
    from numpy.typing import NDArray
    from PIL.Image import Image
    from transformers import PreTrainedTokenizerBase

Tensors = dict[str, "torch.Tensor"]
AfterStep = Callable[["DiffusionPipeline", int, object, Tensors], Tensors]
"""Called with the pipeline, the step's number and time, and tensors that it may change."""
Request = TypeVar("Request", bound=TaskRequest)
Output = TypeVar("Output")
Worded = TypeVar("Worded", bound=ImageRequest | TextToVideoRequest | ImageToVideoRequest)


@dataclass(frozen=True, slots=True)
class Asked(Generic[Request]):
    """A request that was prepared: its pictures are decoded and of its size."""

    request: Request
    pictures: Mapping[str, "Image"] = field(default_factory=dict)


class DiffusionEngine(NetworkEngine[Request, Asked[Request], Output], Generic[Request, Output]):
    """Loads a pipeline from its folder and runs it on batches.

    A family fills in ``kind``, :meth:`arguments`, :meth:`results` and :meth:`write`, and what differs of the rest.

    The card's ``options``: ``steps`` and ``guidance`` where a request names none, ``batch``, ``variant`` of the files
    (``fp16``), ``folder`` of the pipeline within the source, ``adapters`` that stay loaded (4).

    Attributes:
        kind: class of the pipeline in diffusers.
        checkpoints: classes that ``model_index.json`` may name; ``kind`` alone without any.
        multiple_px: sides are multiples of it.
        output_type: what the pipeline shall return; see :meth:`results`.
        usual_steps: of denoising, where neither request nor card says.
        usual_guidance: the same of guidance.
        fixed: arguments of the pipeline's constructor beside its parts.
        pipeline: the loaded one.
        prompts: counts their tokens.
        adapters: the fine-tunes.
    """

    kind: ClassVar[str]
    checkpoints: ClassVar[Collection[str]] = ()
    multiple_px: ClassVar[int] = 8
    output_type: ClassVar[str] = "np"
    usual_steps: ClassVar[int] = 30
    usual_guidance: ClassVar[float] = 5.0
    fixed: ClassVar[Mapping[str, object]] = {}
    lower: ClassVar[Sequence[str]] = ("width", "height")

    pipeline: "DiffusionPipeline" = None

    @abstractmethod
    def arguments(self, batch: Sequence[Asked[Request]]) -> Mapping[str, object]:
        """What the pipeline is called with for requests of one key, besides seeds, steps, guidance and size."""

    @abstractmethod
    def results(self, output: "BaseOutput", batch: Sequence[Asked[Request]]) -> Sequence[Output]:
        """One output for each request from what the pipeline returned; see :func:`outputs.pixels`.

        Raises:
            EngineFailed: it holds values that are no numbers.
        """

    def option(self, name: str, usual: float) -> float:
        """A number of the card's ``options``.

        Raises:
            BadInput: it is none.
        """
        value = self.model.card.options.get(name, usual)
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise BadInput(f"{value!r} is no number", field=f"{self.model.name}/model.yaml:options.{name}")
        return float(value)

    def load(self) -> None:
        """Load every part to the device, or to the host where it is offloaded, and turn on what saves memory."""
        folder = self.weights.folder / str(self.model.card.options.get("folder", "."))
        variant = str(self.model.card.options["variant"]) if "variant" in self.model.card.options else None
        elsewhere = {name: held.folder for name, held in self.parts.items()}
        library("transformers")  # first, so that it is quiet when diffusers imports from it
        kind = getattr(library("diffusers"), self.kind)
        index = read_index(folder, self.checkpoints or (self.kind,))
        wanted = [name for name in kind._get_signature_keys(kind)[0] if name in index or name in elsewhere]
        dtype = self.placement.dtype
        places = [elsewhere.get(name, folder / name) for name in wanted]
        tensors = {str(place): read_tensors(place, variant) for place in places if any(place.glob("*.safetensors"))}
        self.switches = memory.decide(tensors, dtype.itemsize, self.model.card.memory, self.placement.memory_bytes)
        at = None if self.placement.device == "cpu" or self.switches.offload != "none" else {"": self.placement.device}
        parts = load_parts(index, folder, elsewhere, wanted, dtype=dtype, variant=variant, device_map=at)
        with naming(folder):
            self.pipeline = kind.from_pretrained(str(folder), local_files_only=True, dtype=dtype, **parts, **self.fixed)
        self.pipeline.set_progress_bar_config(disable=True)
        if at is not None:
            self.pipeline.to(self.placement.device)  # parts that the pipeline made of others
        memory.turn_on(self.pipeline, self.switches, self.placement.device)
        self._vae_dtype = self.pipeline.vae.dtype
        self._bound_tokenizers()
        self.prompts = Prompts(self.tokenizers())
        self._alive: Callable[[], None] | None = None
        self._watch_decoder()
        self.adapters = Adapters(
            self.pipeline,
            self.model.card.adapters,
            self.hold,
            loaded=partial(memory.offload, self.pipeline, self.switches, self.placement.device),
            most=int(self.option("adapters", 4)),
        )

    def check(self, request: Request) -> None:
        """Refuse what the network does not read, sizes it cannot make and adapters it has not."""
        check_read(request, self.unread())
        if getattr(request, "negative_prompt", "") and self.guidance_of(request) <= 1:
            problem = f"a guidance of {self.guidance_of(request):g} leaves it unread"
            raise BadInput(problem, field="negative_prompt", fix="leave it out, or use a guidance over 1")
        if size := size_of(request):
            self._check_size(request, **size)
        self.adapters.check(adapter_of(request))

    def unread(self) -> Mapping[str, str]:
        """Fields of a request that the loaded network cannot use, each with the reason; none unless a family says so.

        What is there for builtin engines (``title``, ``motion``, ``mood``) is none of them: pipelines send it to all.
        """
        return {}

    def _check_size(self, request: Request, width: int, height: int) -> None:
        try:
            check_sides(width, height, self.multiple(), self.least_px())
        except BadInput as error:
            if error.field in request.model_fields_set:
                raise
            problem = f"the default {width}x{height} does not fit, {error.problem}"
            raise BadInput(problem, field=error.field, fix=f"give width and height, {error.fix}") from error

    def multiple(self) -> int:
        """What sides are multiples of, of the loaded network."""
        return self.multiple_px

    def least_px(self) -> int:
        """Shortest side: one position of the innermost block."""
        return max(16, self.multiple())

    def prepare(self, request: Request, files: Mapping[str, Path]) -> Asked[Request]:
        """Count the prompt's tokens, fetch its adapter, and decode its pictures."""
        for name, text in self.texts(request).items():
            self.prompts.check(text, name)
        self.adapters.fetch(adapter_of(request))
        return Asked(request, self.pictures(request, files))

    def _bound_tokenizers(self) -> None:
        """No tokenizer reads further than its encoder has positions, whatever its own file says or leaves out."""
        for name in ("tokenizer", "tokenizer_2"):
            tokenizer = getattr(self.pipeline, name, None)
            encoder = getattr(self.pipeline, name.replace("tokenizer", "text_encoder"), None)
            positions = getattr(getattr(encoder, "config", None), "max_position_embeddings", None)
            if tokenizer is not None and isinstance(positions, int):
                tokenizer.model_max_length = min(int(tokenizer.model_max_length), positions)

    def texts(self, request: Request) -> Mapping[str, str]:
        """Texts the network reads, by field."""
        return {name: getattr(request, name) for name in ("prompt", "negative_prompt") if hasattr(request, name)}

    def tokenizers(self) -> "Sequence[PreTrainedTokenizerBase]":
        """That read the prompt."""
        named = (getattr(self.pipeline, name, None) for name in ("tokenizer", "tokenizer_2"))
        return [tokenizer for tokenizer in named if tokenizer is not None]

    def pictures(self, request: Request, files: Mapping[str, Path]) -> Mapping[str, "Image"]:
        """Pictures that the request brings, decoded and brought to its size; none unless a family says so."""
        return {}

    def steps_of(self, request: Request) -> int:
        """Of denoising: the request's, the card's or the family's."""
        return getattr(request, "steps", None) or int(self.option("steps", self.usual_steps))

    def guidance_of(self, request: Request) -> float:
        """Of the prompt: the request's, the card's or the family's."""
        asked: float | None = getattr(request, "guidance", None)
        return self.option("guidance", self.usual_guidance) if asked is None else asked

    def batch_key(self, prepared: Asked[Request]) -> Hashable | None:
        """Rows of one batch have size, steps, guidance and adapter in common.

        An empty negative prompt is another thing than one with words: some pipelines take zeros for it.
        """
        asked = prepared.request
        return (
            *size_of(asked).values(), self.steps_of(asked), self.guidance_of(asked), adapter_of(asked),
            bool(getattr(asked, "negative_prompt", "")),
        )  # fmt: skip

    def generate(self, batch: Sequence[Asked[Request]], steps: Steps) -> Sequence[Output]:
        """Run the pipeline once for all rows, each with noise of its own seed."""
        first = batch[0].request
        self.adapters.use(adapter_of(first))
        told = {"done": 0, "total": self.steps_of(first)}

        def after_step(pipeline: "DiffusionPipeline", index: int, time: object, tensors: Tensors) -> Tensors:
            told["total"] = getattr(pipeline, "num_timesteps", 0) or told["total"]
            told["done"] = index + 1
            steps(**told)
            return tensors

        self._alive = lambda: steps(**told) if told["done"] else None
        try:
            output = self.pipeline(
                num_inference_steps=self.steps_of(first),
                generator=[generator(getattr(asked.request, "seed", 0)) for asked in batch],
                **self.hook(after_step),
                output_type=self.output_type,
                **size_of(first),
                **self.arguments(batch),
            )
        finally:
            self._alive = None
        return self.results(output, batch)

    def hook(self, after_step: AfterStep) -> Mapping[str, object]:
        """How the pipeline is told to call after each step, with itself, the step, its time and tensors."""
        return {"callback_on_step_end": after_step}

    def recover(self) -> None:
        """Let offloaded parts go back to the host, and the decoder to its precision."""
        self.pipeline.maybe_free_model_hooks()
        if self.pipeline.vae.dtype != self._vae_dtype:
            self.pipeline.vae.to(dtype=self._vae_dtype)

    def unload(self) -> None:
        """Drop the pipeline."""
        self.pipeline = None
        self.adapters.close()

    def _watch_decoder(self) -> None:
        """Whoever cancels while frames or tiles are decoded waits for one of them, not for all."""

        def before(*_: object) -> None:
            if self._alive is not None:
                self._alive()

        if (decoder := getattr(self.pipeline.vae, "decoder", None)) is not None:
            decoder.register_forward_pre_hook(before)


def check_read(request: TaskRequest, unread: Mapping[str, str]) -> None:
    """Refuse fields that would change nothing; what equals its default is as good as not sent.

    Args:
        request: any.
        unread: fields that the network cannot use, each with the reason.

    Raises:
        BadInput: names the first of them.
    """
    for name, problem in unread.items():
        if getattr(request, name) != type(request).model_fields[name].default:
            raise BadInput(problem, field=name, fix="leave it out, or use another model")


def size_of(request: TaskRequest) -> dict[str, int]:
    """``width`` and ``height`` in pixels; nothing for a request without a picture."""
    return {name: getattr(request, name) for name in ("width", "height") if hasattr(request, name)}


def adapter_of(request: TaskRequest) -> str | None:
    """The fine-tune that the request names."""
    return getattr(request, "adapter", None)


def rows(output: "NDArray[np.floating]") -> "Sequence[NDArray[np.uint8]]":
    """Pictures or clips of a batch as uint8, from float ``(batch, ..., height, width, 3)``."""
    return list(pixels(output))


def negatives(batch: Sequence[Asked[Worded]]) -> list[str] | None:
    """Negative prompts of a batch; None where they are empty, which pipelines may take for something of their own."""
    texts = [asked.request.negative_prompt for asked in batch]
    return texts if any(texts) else None
