"""One request per family, and the same work by the family's own library; measured by bench.engines.

The one invariant: both make the same file from the same weights, with the same steps, seed and size.
"""

import tempfile
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import Any, Final, NamedTuple

from serving.artifacts.store import ArtifactStore
from serving.backends.ray.engines.network.seeds import generator
from serving.protocol.tasks import ImageRequest, TaskRequest, TranscriptionRequest, TranslationRequest

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


async def _speech(artifacts: ArtifactStore, number: int) -> TranscriptionRequest:
    import numpy as np
    import soundfile

    random = np.random.default_rng(number)
    time = np.arange(16_000 * 20) / 16_000
    tones = sum(0.1 * np.sin(2 * np.pi * height * time) for height in random.uniform(150, 3000, 5))
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "speech.wav"
        soundfile.write(path, tones, 16_000)
        audio = await artifacts.put_file(path, media_type="audio/wav")
    return TranscriptionRequest(audio=audio, language="en")


def _faster_whisper(engine: Any, request: TranscriptionRequest, files: Mapping[str, Path]) -> Direct:  # noqa: ANN401
    def direct(folder: Path) -> None:
        segments, _ = engine.network.transcribe(
            str(files["audio"]), language=request.language, beam_size=engine.beams, temperature=0.0,
            max_new_tokens=engine.tokens, word_timestamps=True, condition_on_previous_text=False,
        )  # fmt: skip
        words = [word.word for segment in segments for word in segment.words]
        (folder / "words.txt").write_text(" ".join(words), encoding="utf-8")

    return direct


async def _lines(_: ArtifactStore, number: int) -> TranslationRequest:
    texts = [f"the old keeper {number}", "people say that good stories make long winters shorter"]
    return TranslationRequest(texts=texts, source_language="en", target_language="hi")


def _marian(engine: Any, request: TranslationRequest, _: Mapping[str, Path]) -> Direct:  # noqa: ANN401
    import torch

    def direct(folder: Path) -> None:
        tokenizer, network = engine.family.tokenizer, engine.network
        with torch.inference_mode():
            inputs = tokenizer(request.texts, return_tensors="pt", padding=True)
            written = network.generate(**inputs, num_beams=engine.beams, max_new_tokens=engine.tokens)
        texts = tokenizer.batch_decode(written, skip_special_tokens=True)
        (folder / "texts.txt").write_text("\n".join(texts), encoding="utf-8")

    return direct


CASES: Final[tuple[Case, ...]] = (
    Case("sdxl", _image, _sdxl),
    Case("whisper_large_v3", _speech, _faster_whisper),
    Case("opus_mt_en_hi", _lines, _marian),
)
