"""One request per family, and the same work by the family's own library; measured by bench.engines.

The one invariant: both make the same kind of file from the same weights, with the same steps, seed and size.
"""

import io
from collections.abc import Awaitable, Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Final, NamedTuple, TypeVar

import numpy as np
import soundfile
from PIL import Image

from serving.artifacts.store import ArtifactStore
from serving.backends.base import EngineContext
from serving.backends.ray.engines import load_engine
from serving.backends.ray.engines.diffusion.engine import DiffusionEngine, size_of
from serving.backends.ray.engines.musicgen.engine import MusicgenEngine
from serving.backends.ray.engines.network.engine import NetworkEngine
from serving.backends.ray.engines.network.seeds import generator, seeded
from serving.backends.ray.engines.translation.engine import TranslationEngine
from serving.backends.ray.engines.voices.spoken import Speech
from serving.backends.ray.engines.voices.vits import VitsEngine
from serving.backends.ray.engines.whisper.faster import FasterWhisperEngine
from serving.protocol.tasks import (
    ImageRequest,
    ImageToVideoRequest,
    MusicRequest,
    SpeechRequest,
    TaskRequest,
    TextToVideoRequest,
    TranscriptionRequest,
    TranslationRequest,
)
from serving.repository.model import Model

Direct = Callable[[Path], None]
Loaded = NetworkEngine[TaskRequest, object, object]
T = TypeVar("T")
PROMPT: Final = "a lighthouse at dusk"
RATE_HZ: Final = 16_000


class Case(NamedTuple):
    """What is measured of one model.

    Args:
        model: its name, with a tiny checkpoint.
        request: makes a request; the number changes its seed or text.
        direct: of a loaded engine, a request and its files, the same work without the engine.
    """

    model: str
    request: Callable[[ArtifactStore, int], Awaitable[TaskRequest]]
    direct: Callable[[Loaded, TaskRequest, Mapping[str, Path]], Direct]


def the(kind: type[T], value: object) -> T:
    """The value, which is of that class; raises :class:`TypeError` where a case was put together wrongly."""
    if not isinstance(value, kind):
        raise TypeError(f"{type(value).__name__} is no {kind.__name__}")
    return value


def loaded(model: Model, context: EngineContext) -> Loaded:
    """The model's engine; blocks. Raises :class:`TypeError` where it runs no network."""
    engine = load_engine(model, context)
    if not isinstance(engine, NetworkEngine):
        raise TypeError(f"{model.name} runs no network")
    return engine


async def image(_: ArtifactStore, number: int) -> ImageRequest:
    """A small picture in four steps."""
    return ImageRequest(prompt=PROMPT, width=64, height=64, steps=4, seed=number)


async def clip(_: ArtifactStore, number: int, *, side: int, fps: int, seconds: float) -> TextToVideoRequest:
    """A short clip from words."""
    return TextToVideoRequest(prompt=PROMPT, width=side, height=side, fps=fps, duration_s=seconds, steps=4, seed=number)


async def motion(store: ArtifactStore, number: int, *, side: int, fps: int, seconds: float) -> ImageToVideoRequest:
    """A short clip from a picture."""
    picture = io.BytesIO()
    Image.linear_gradient("L").resize((side, side)).convert("RGB").save(picture, "PNG")
    ref = await store.put_bytes(picture.getvalue(), media_type="image/png", name="still.png")
    return ImageToVideoRequest(image=ref, width=side, height=side, fps=fps, duration_s=seconds, steps=4, seed=number)


async def music(_: ArtifactStore, number: int, *, seconds: float = 1.0) -> MusicRequest:
    """A second of music."""
    return MusicRequest(duration_s=seconds, prompt="slow strings", steps=4, seed=number)


async def speech(_: ArtifactStore, number: int) -> SpeechRequest:
    """A sentence."""
    return SpeechRequest(text="good morning to all of you", voice="narrator", seed=number)


async def lines(_: ArtifactStore, number: int) -> TranslationRequest:
    """One line of subtitles."""
    return TranslationRequest(texts=[f"Good morning number {number}"], source_language="en", target_language="hi")


async def recording(store: ArtifactStore, number: int) -> TranscriptionRequest:
    """Ten seconds of something like speech."""
    rng = np.random.default_rng(number)
    sound = rng.normal(0, 0.05, 10 * RATE_HZ) * (1 + np.sin(np.arange(10 * RATE_HZ) / 900))
    wav = io.BytesIO()
    soundfile.write(wav, sound.astype(np.float32), RATE_HZ, format="WAV")
    return TranscriptionRequest(
        audio=await store.put_bytes(wav.getvalue(), media_type="audio/wav", name="voice.wav"), language="en"
    )


def diffusers(loaded: Loaded, asked: TaskRequest, files: Mapping[str, Path]) -> Direct:
    """The pipeline as a script calls it, and the same encoder."""
    import torch

    if not isinstance(loaded, DiffusionEngine):
        raise TypeError(f"{type(loaded).__name__} is none of diffusion")
    engine = loaded
    prepared = engine.prepare(asked, files)

    def direct(folder: Path) -> None:
        with torch.inference_mode():
            output = engine.pipeline(
                num_inference_steps=engine.steps_of(asked),
                generator=[generator(getattr(asked, "seed", 0))],
                output_type=engine.output_type,
                **size_of(asked),
                **engine.arguments([prepared]),
            )
        engine.write(asked, engine.results(output, [prepared])[0], folder)

    return direct


def translation(loaded: Loaded, asked: TaskRequest, _: Mapping[str, Path]) -> Direct:
    """``generate`` of transformers."""
    import torch

    engine, request = the(TranslationEngine, loaded), the(TranslationRequest, asked)

    def direct(_: Path) -> None:
        tokenizer = engine.family.tokenizer
        with torch.inference_mode():
            told = tokenizer(request.texts, return_tensors="pt", padding=True)
            written = engine.network.generate(**told, num_beams=engine.beams, max_new_tokens=engine.tokens)
        tokenizer.batch_decode(written, skip_special_tokens=True)

    return direct


def vits(loaded: Loaded, asked: TaskRequest, files: Mapping[str, Path]) -> Direct:
    """The network's own forward, and the same encoder."""
    import torch

    engine, request = the(VitsEngine, loaded), the(SpeechRequest, asked)

    def direct(folder: Path) -> None:
        (line,) = engine.prepare(request, files).lines
        with torch.inference_mode(), seeded(request.seed):
            wave = engine.network(torch.tensor([line.ids])).waveform[0].numpy()
        engine.write(request, Speech(wave, engine.network.config.sampling_rate, ()), folder)

    return direct


def musicgen(loaded: Loaded, asked: TaskRequest, files: Mapping[str, Path]) -> Direct:
    """``generate`` of transformers, and the same encoder."""
    import torch

    engine, request = the(MusicgenEngine, loaded), the(MusicRequest, asked)
    piece = engine.prepare(request, files)

    def direct(folder: Path) -> None:
        with torch.inference_mode(), seeded(request.seed):
            told = engine.tokenizer([piece.prompt], padding=True, return_tensors="pt")
            waves = engine.network.generate(
                **told,
                do_sample=True,
                guidance_scale=piece.guidance,
                max_new_tokens=piece.frames + engine.network.decoder.num_codebooks - 1,
            )
        engine.write(request, np.ascontiguousarray(waves[0].numpy().T), folder)

    return direct


def whisper(loaded: Loaded, asked: TaskRequest, files: Mapping[str, Path]) -> Direct:
    """``transcribe`` of faster-whisper with times of words."""
    engine, request = the(FasterWhisperEngine, loaded), the(TranscriptionRequest, asked)

    def direct(_: Path) -> None:
        segments, _info = engine.network.transcribe(
            str(files["audio"]),
            language=request.language,
            beam_size=engine.beams,
            temperature=0.0,
            max_new_tokens=engine.tokens,
            word_timestamps=True,
            condition_on_previous_text=False,
        )
        list(segments)

    return direct


CASES: Final[tuple[Case, ...]] = (
    Case("sdxl", image, diffusers),
    Case("animatediff", partial(clip, side=64, fps=8, seconds=1.0), diffusers),
    Case("stable_video_diffusion", partial(motion, side=64, fps=7, seconds=1.0), diffusers),
    Case("cogvideox_2b", partial(clip, side=64, fps=8, seconds=1.0), diffusers),
    Case("ltx_video", partial(clip, side=64, fps=8, seconds=1.0), diffusers),
    Case("ltx2", partial(clip, side=64, fps=8, seconds=1.0), diffusers),
    Case("stable_audio", music, diffusers),
    Case("ace_step", music, diffusers),
    Case("musicgen_small", music, musicgen),
    Case("mms_tts_eng", speech, vits),
    Case("opus_mt_en_hi", lines, translation),
    Case("whisper_large_v3", recording, whisper),
)
