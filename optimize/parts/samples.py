"""Samples: media and texts for requests that show how a model's parts are called; used by the families.

The one invariant: equal calls give equal bytes, so that an export can be repeated.
"""

import io
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from serving.artifacts.store import ArtifactStore
from serving.protocol.artifact import ArtifactRef
from serving.repository.model import ModelCard

RATE_HZ = 16_000
_COLOURS = np.array([(150, 170, 180), (215, 165, 135), (60, 40, 30)])
"""Of wall, skin and hair, red-green-blue."""


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

    async def face(self, width: int, height: int, seed: int = 0) -> ArtifactRef:
        """A PNG of a drawn face, which MediaPipe's detector finds."""
        from PIL import Image

        held = io.BytesIO()
        Image.fromarray(drawn_face(width, height, seed)).save(held, "PNG")
        return await self.store.put_bytes(held.getvalue(), media_type="image/png", name=f"face-{seed}.png")

    async def clip(self, frames: int, width: int, height: int, seed: int = 0) -> ArtifactRef:
        """An MP4, 25 frames a second, of a drawn face that turns a little and opens its mouth."""
        from serving.media.ffmpeg import VideoWriter

        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "clip.mp4"
            with VideoWriter(path, width, height, 25, pixel_format="rgb24") as video:
                for frame in range(frames):
                    video.write(drawn_face(width, height, seed, moved=frame / 25))
            return await self.store.put_file(path, media_type="video/mp4")

    async def sound(self, seconds: float, seed: int = 0) -> ArtifactRef:
        """A WAV, 16 kHz mono, of gliding harmonics in syllables: loud and quiet bands as in speech."""
        return await self.store.put_bytes(
            wav(voice_like(seconds, seed)), media_type="audio/wav", name=f"sample-{seed}.wav"
        )


def drawn_face(width: int, height: int, seed: int = 0, moved: float = 0.0) -> "np.ndarray[Any, np.dtype[np.uint8]]":
    """Pixels ``(height, width, 3)`` of a plain face in front of a wall.

    Args:
        width: in pixels.
        height: in pixels.
        seed: of its colours.
        moved: seconds of its motion.
    """
    from PIL import Image, ImageDraw, ImageFilter

    random = np.random.default_rng(seed)
    side, middle = min(width, height), (width / 2 + 12 * np.sin(4 * moved), height / 2)
    wall, skin, hair = (tuple(int(c) for c in base + random.integers(-15, 15, 3)) for base in _COLOURS)
    picture = Image.new("RGB", (width, height), wall)
    draw = ImageDraw.Draw(picture)

    def oval(x: float, y: float, half: float, high: float, fill: str | tuple[int, ...]) -> None:
        left, top = middle[0] + (x - half) * side, middle[1] + (y - high) * side
        draw.ellipse((left, top, left + 2 * half * side, top + 2 * high * side), fill=fill)

    oval(0, -0.06, 0.27, 0.36, hair)
    oval(0, 0.02, 0.22, 0.3, skin)
    for eye in (-0.09, 0.09):
        oval(eye, -0.11, 0.055, 0.014, hair)
        oval(eye, -0.05, 0.045, 0.024, "white")
        oval(eye, -0.05, 0.02, 0.024, (40, 25, 20))
    oval(0, 0.06, 0.025, 0.045, tuple(channel - 30 for channel in skin))
    oval(0, 0.17, 0.07, 0.02 + 0.02 * abs(np.sin(9 * moved)), (150, 50, 55))
    return np.asarray(picture.filter(ImageFilter.GaussianBlur(side / 150)))


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
