"""Samples: media and texts for requests that show how a model's parts are called; used by the families.

The one invariant: equal calls give equal bytes, so that an export can be repeated.
"""

import io
from collections.abc import Sequence

import numpy as np

from serving.artifacts.store import ArtifactStore
from serving.protocol.artifact import ArtifactRef
from serving.repository.model import ModelCard

RATE_HZ = 16_000


class Samples:
    """Puts media into a store for the requests of one model.

    Attributes:
        card: of the model, for its voices, languages and limits.
        store: where the media go.
    """

    def __init__(self, card: ModelCard, store: ArtifactStore) -> None:
        self.card, self.store = card, store

    async def picture(self, width: int, height: int, seed: int = 0) -> ArtifactRef:
        """A PNG with soft shapes: gradients, edges and a bright spot, so that no channel is constant."""
        from PIL import Image

        down, across = np.mgrid[0:height, 0:width].astype(np.float32)
        random = np.random.default_rng(seed)
        waves = [np.sin(across / random.uniform(3, 20) + down / random.uniform(3, 20) + phase) for phase in range(3)]
        pixels = (127.5 + 110 * np.stack(waves, axis=-1)).astype(np.uint8)
        held = io.BytesIO()
        Image.fromarray(pixels).save(held, "PNG")
        return await self.store.put_bytes(held.getvalue(), media_type="image/png", name=f"sample-{seed}.png")

    async def sound(self, seconds: float, seed: int = 0) -> ArtifactRef:
        """A WAV, 16 kHz mono, of gliding harmonics in syllables: loud and quiet bands as in speech."""
        return await self.store.put_bytes(
            wav(voice_like(seconds, seed)), media_type="audio/wav", name=f"sample-{seed}.wav"
        )


def voice_like(seconds: float, seed: int = 0) -> "np.ndarray[tuple[int], np.dtype[np.float32]]":
    """Float32 ``(samples,)`` at 16 kHz, -1 to 1."""
    random = np.random.default_rng(seed)
    time = np.arange(int(seconds * RATE_HZ)) / RATE_HZ
    pitch = 140 + 40 * np.sin(2 * np.pi * 0.7 * time + random.uniform(0, 6))
    phase = 2 * np.pi * np.cumsum(pitch) / RATE_HZ
    voice = sum(random.uniform(0.2, 1) / k * np.sin(k * phase) for k in range(1, 25))
    syllables = np.clip(np.sin(2 * np.pi * 2.5 * time + random.uniform(0, 6)), 0, 1)
    return np.asarray(0.2 * voice * syllables + 1e-3 * random.standard_normal(len(time)), np.float32)


def wav(samples: "np.ndarray[tuple[int], np.dtype[np.float32]]") -> bytes:
    """16-bit mono WAV at 16 kHz."""
    import soundfile

    held = io.BytesIO()
    soundfile.write(held, samples, RATE_HZ, format="WAV", subtype="PCM_16")
    return held.getvalue()


def sizes(*pairs: tuple[int, int]) -> Sequence[dict[str, int]]:
    """Widths and heights as fields of requests."""
    return [{"width": width, "height": height} for width, height in pairs]
