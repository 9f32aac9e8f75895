"""Part and Family: the declarations from which modules of a loaded model are exported; one file a family beside this.

The one invariant: a declaration says what to export and what must hold; how is the same for all.
"""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from importlib import import_module
from typing import Final, Literal

from optimize.parts.samples import Samples
from optimize.recipe import INSTALL
from serving.errors import BadInput, MissingDependency
from serving.protocol.tasks import TaskRequest
from serving.repository.model import ModelCard
from serving.repository.part_file import Precision

TOLERANCES: Final[Mapping[Precision, float]] = {"fp32": 1e-4, "fp16": 2e-2, "bf16": 5e-2}
"""Largest difference to torch in fp32, relative to the output's scale, unless a part says otherwise.

fp16 has 11 bits of precision (5e-4), bf16 has 8 (4e-3); a few dozen layers add up to some ten times that. What matters
of it is decided by the check of the whole model.
"""


@dataclass(frozen=True, slots=True)
class Part:
    """One module.

    Attributes:
        at: its path in the loaded engine, such as ``pipeline.unet``.
        axes: by name of a flat input, or a pattern of names, its axes in words: ``_`` is fixed, ``*`` varies by itself,
            a name varies and is told in the file; ``"batch _ height width"``. Inputs without a word are fixed.
        tolerances: where they differ from :data:`TOLERANCES`.
        fixes: names of :data:`optimize.diffusion_fixes.ALL_FIXES` that the export needs.
        adapter: name of one in serving.backends.ray.parts.adapters.
        keeps: whether the module keeps its numbers when the part is swapped in, since the engine looks inside it, too.
        int8: how it is quantised (optimize.int8); None where that is not worth it.
        decibels: least signal-to-noise ratio of its outputs in int8.
    """

    at: str
    axes: Mapping[str, str] = field(default_factory=dict)
    tolerances: Mapping[Precision, float] = field(default_factory=dict)
    fixes: Sequence[str] = ()
    adapter: str | None = None
    keeps: bool = False
    int8: Literal["static", "dynamic", "weight_only"] | None = None
    decibels: float = 30.0

    def tolerance(self, precision: Precision) -> float:
        """Of a precision.

        INT8 is bounded by :attr:`decibels` of its noise; the largest of many differences is up to ten times the mean.
        """
        if precision == "int8":
            return float(min(1.0, 10 * 10 ** (-self.decibels / 20)))
        return self.tolerances.get(precision) or TOLERANCES[precision]

    def dynamic(self, name: str, rank: int) -> dict[int, str]:
        """The axes of an input that vary, with their names.

        Raises:
            BadInput: the declaration has another number of axes.
        """
        words = next((words for pattern, words in self.axes.items() if fnmatchcase(name, pattern)), None)
        if words is None:
            return {}
        axes = words.split()
        if len(axes) != rank:
            raise BadInput(f"declared as {words!r}, and it has {rank} axes", field=name, fix="correct the declaration")
        plain = name.replace(".", "_")
        return {i: f"{plain}_{i}" if axis == "*" else axis for i, axis in enumerate(axes) if axis != "_"}


@dataclass(frozen=True, slots=True)
class Family:
    """The parts of models of one architecture, and requests that show how they are called.

    Attributes:
        parts: by name.
        requests: small ones of the model's task, at three sizes at least; the first shows the most common case.
    """

    parts: Mapping[str, Part]
    requests: Callable[[Samples], Awaitable[Sequence[TaskRequest]]]


FAMILIES: Final[Mapping[str, str]] = {
    "StableDiffusionXLPipeline": "optimize.parts.pictures:SDXL",
    "StableDiffusionXLControlNetPipeline": "optimize.parts.pictures:SDXL_CONTROLNET",
    "AnimateDiffPipeline": "optimize.parts.unets:ANIMATEDIFF",
    "StableVideoDiffusionPipeline": "optimize.parts.unets:STABLE_VIDEO",
    "CogVideoXPipeline": "optimize.parts.cogvideox:FROM_TEXT",
    "CogVideoXImageToVideoPipeline": "optimize.parts.cogvideox:FROM_PICTURE",
    "LTXPipeline": "optimize.parts.ltx:FROM_TEXT",
    "LTXImageToVideoPipeline": "optimize.parts.ltx:FROM_PICTURE",
    "LTX2Pipeline": "optimize.parts.ltx2:FROM_TEXT",
    "LTX2ImageToVideoPipeline": "optimize.parts.ltx2:FROM_PICTURE",
    "StableAudioPipeline": "optimize.parts.music:STABLE_AUDIO",
    "AceStepPipeline": "optimize.parts.music:ACE_STEP",
    "MusicgenForConditionalGeneration": "optimize.parts.musicgen:MUSICGEN",
    "transformers/transcription": "optimize.parts.whisper:WHISPER",
    "transformers/translation": "optimize.parts.translation:TRANSLATION",
    "SeamlessM4Tv2Model": "optimize.parts.translation:SEAMLESS",
    "VitsModel": "optimize.parts.voices:VITS",
    "Vits": "optimize.parts.voices:COQUI_VITS",
    "Xtts": "optimize.parts.voices:XTTS",
    "Wav2Lip": "optimize.parts.faces:WAV2LIP",
    "FirstOrderMotionModel": "optimize.parts.faces:FIRST_ORDER",
    "SadTalkerAudio2Coeff": "optimize.parts.faces:SADTALKER",
    "Xception": "optimize.parts.faces:XCEPTION",
}
"""Architecture, or engine/task where the card names none, to ``module:family``."""


def family_name(card: ModelCard) -> str:
    """The key of :data:`FAMILIES`."""
    return card.architecture or f"{card.engine}/{card.task}"


def find_family(model: str, card: ModelCard) -> Family:
    """The family of a model.

    Raises:
        BadInput: nothing of it is exported.
        MissingDependency: a library is not installed.
    """
    name = family_name(card)
    if name not in FAMILIES:
        raise BadInput(
            f"nothing of {model!r} is exported ({name} has no parts)",
            field="model",
            fix=f"parts are declared for {', '.join(sorted(FAMILIES))}",
        )
    module, _, attribute = FAMILIES[name].partition(":")
    try:
        family = getattr(import_module(module), attribute)
    except ModuleNotFoundError as error:
        raise MissingDependency(f"{name} needs the package {error.name!r}", fix=INSTALL) from error
    assert isinstance(family, Family)  # noqa: S101 - the table above is ours
    return family
