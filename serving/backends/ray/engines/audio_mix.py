"""AudioMixEngine: voices on a timeline, music ducked under them, brought to broadcast loudness; one per render replica.

The one invariant: the loudness in the result was measured on the file in the result.
"""

import asyncio
import math
import tempfile
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Final

from serving.artifacts.store import ArtifactStore
from serving.backends.base import EngineContext
from serving.backends.call import Call
from serving.backends.ray.engines.audio_mix_arguments import (
    RATE_HZ,
    master_arguments,
    music_arguments,
    next_gain_db,
    premix_arguments,
)
from serving.backends.ray.engines.threads import in_thread
from serving.errors import BadInput
from serving.media.ffmpeg import Checkpoint, decode_audio, run_ffmpeg
from serving.media.loudness import Loudness, parse_summary
from serving.protocol.tasks import MAX_SECONDS, AudioMixRequest, AudioMixResult, PlacedAudio, TaskRequest
from serving.repository.model import Model

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

VOICE_LEVEL_DB: Final = -20.0
"""Every voice is brought to this RMS while speaking, so that two speakers sound equally near."""

MOST_VOICE_GAIN_DB: Final = 15.0
TOLERANCE_LU: Final = 0.2
PASSES: Final = 4
_EDGE_S: Final = 0.004
_BLOCK_S: Final = 0.05
_GATE_DB: Final = -50.0
_LEVEL_RATE_HZ: Final = 8000
_LEVEL_S: Final = 600.0
_READ_S: Final = 30
"""The music's level is taken from its first minutes, at a rate that holds its energy."""


class AudioMixEngine:
    """Mixes with numpy and ffmpeg; needs no weights."""

    def __init__(self, model: Model, context: EngineContext) -> None:
        self._artifacts = context.artifacts
        self._scratch = context.scratch

    async def run(self, request: TaskRequest, call: Call) -> AudioMixResult:
        """Mix.

        Raises:
            BadInput: a voice or the music cannot be read, or all voices are silent.
            EngineFailed: ffmpeg failed.
        """
        if not isinstance(request, AudioMixRequest):
            raise BadInput(f"the mixer cannot run a {type(request).__name__}", fix="send an audio_mix")
        with tempfile.TemporaryDirectory(prefix="mix-", dir=self._scratch) as name:
            return await _Mix(self._artifacts, request, call, Path(name)).make()

    async def close(self) -> None:
        """Nothing stays loaded."""


class _Mix:
    """One request in the making, in a folder of its own."""

    def __init__(self, artifacts: ArtifactStore, request: AudioMixRequest, call: Call, folder: Path) -> None:
        self._artifacts = artifacts
        self._request = request
        self._call = call
        self._folder = folder
        self._samples = max(1, round(request.duration_s * RATE_HZ))

    async def make(self) -> AudioMixResult:
        """Place the voices, duck the music, reach the loudness, store."""
        premix = self._folder / "premix.wav"
        first = await self._measured(await self._premix_arguments(premix), self._request.loudness_lufs)
        target, measured = await self._mastered(premix, first)
        return AudioMixResult(
            audio=await self._artifacts.put_file(target, media_type="audio/wav", name="mix.wav"),
            duration_s=self._samples / RATE_HZ,
            loudness_lufs=round(measured.integrated_lufs, 1),
            true_peak_dbtp=round(max(measured.true_peak_dbtp, -120.0), 1),
        )

    async def _premix_arguments(self, premix: Path) -> list[str]:
        if not self._request.voices and self._request.music is not None:
            return music_arguments(await self._artifacts.local_path(self._request.music), self._samples, premix)
        voices = await self._voice_bus()
        music, gain_db = await self._music()
        return premix_arguments(voices, music, gain_db, self._samples, premix)

    async def _mastered(self, premix: Path, first: Loudness) -> tuple[Path, Loudness]:
        """Repeat the last pass until the loudness is right: the limiter's share is only known afterwards."""
        wanted = self._request.loudness_lufs
        gain_db, target = next_gain_db(0.0, first, wanted), self._folder / "mix.wav"
        measured = first
        for _ in range(PASSES):
            arguments = master_arguments(premix, gain_db, self._request.true_peak_dbtp, self._samples, target)
            measured = await self._measured(arguments, wanted)
            if abs(measured.integrated_lufs - wanted) <= TOLERANCE_LU:
                break
            gain_db = next_gain_db(gain_db, measured, wanted)
        return target, measured

    async def _measured(self, arguments: list[str], wanted_lufs: float) -> Loudness:
        output = await run_ffmpeg(arguments, loglevel="info", checkpoint=self._call.checkpoint)
        measured = parse_summary(output.stderr)
        if measured.silent:
            raise BadInput(
                f"the mix is silent and cannot be brought to {wanted_lufs:g} LUFS",
                field="voices" if self._request.voices else "music",
                fix="give sound that can be heard",
            )
        return measured

    async def _voice_bus(self) -> Path:
        """All voices added up in a raw float32 file; on disk, since a programme may last hours."""
        import numpy as np

        path = self._folder / "voices.f32"
        bus = np.memmap(path, np.float32, "w+", shape=(self._samples,))
        for index, placed in enumerate(self._request.voices):
            self._call.checkpoint()
            samples = await self._read(placed, index)
            await in_thread(self._call, partial(add_voice, bus, samples, round(placed.start_s * RATE_HZ)))
        bus.flush()
        return path

    async def _read(self, placed: PlacedAudio, index: int) -> "NDArray[np.float32]":
        path = await self._artifacts.local_path(placed.audio)
        try:
            return await read_mono(path, RATE_HZ, checkpoint=self._call.checkpoint)
        except BadInput as error:
            raise BadInput(error.problem, field=f"voices[{index}].audio", fix=error.fix) from error

    async def _music(self) -> tuple[Path | None, float]:
        """The music's file and the gain that sets it ``music_gain_db`` under the voices."""
        if self._request.music is None:
            return None, 0.0
        path = await self._artifacts.local_path(self._request.music)
        try:
            samples = await read_mono(path, _LEVEL_RATE_HZ, longest_s=_LEVEL_S, checkpoint=self._call.checkpoint)
            level = active_level_db(samples, _LEVEL_RATE_HZ)
        except BadInput as error:
            raise BadInput(error.problem, field="music", fix=error.fix) from error
        if level is None:
            return None, 0.0
        return path, VOICE_LEVEL_DB + self._request.music_gain_db - level


async def read_mono(
    path: Path, rate_hz: int, *, longest_s: float = MAX_SECONDS, checkpoint: Checkpoint | None = None
) -> "NDArray[np.float32]":
    """A file's sound as float32 mono; WAV, FLAC, Ogg and MP3 in this process, all else by ffmpeg.

    Args:
        path: the file.
        rate_hz: sample rate of the answer.
        longest_s: what comes later is left out.
        checkpoint: called every :data:`_READ_S` of sound, and by ffmpeg's runner; stops by raising.

    Raises:
        BadInput: no sound can be read.
    """
    samples = await asyncio.to_thread(_read_with_soundfile, path, rate_hz, longest_s, checkpoint)
    if samples is None:
        samples = (await decode_audio(path, rate_hz, checkpoint=checkpoint))[: int(longest_s * rate_hz)]
    return samples


def _read_with_soundfile(
    path: Path, rate_hz: int, longest_s: float, checkpoint: Checkpoint | None
) -> "NDArray[np.float32] | None":
    import numpy as np
    import soundfile
    import soxr

    parts: list[NDArray[np.float32]] = []
    try:
        with soundfile.SoundFile(str(path)) as sound:
            rate, left = sound.samplerate, int(longest_s * sound.samplerate)
            resampler = soxr.ResampleStream(rate, rate_hz, 1, dtype="float32")
            while left > 0:
                if checkpoint is not None:
                    checkpoint()
                block = sound.read(min(left, _READ_S * rate), dtype="float32", always_2d=True)
                left = left - len(block) if len(block) else 0
                mono = block.mean(axis=1, dtype=np.float32)
                parts.append(mono if rate == rate_hz else resampler.resample_chunk(mono, last=left <= 0))
    except soundfile.LibsndfileError:
        return None
    return np.concatenate(parts) if parts else np.zeros(0, np.float32)


def active_level_db(samples: "NDArray[np.float32]", rate_hz: int) -> float | None:
    """RMS in dBFS over the 50 ms blocks above -50 dBFS; None for silence."""
    import numpy as np

    block = max(1, round(_BLOCK_S * rate_hz))
    usable = samples[: samples.size // block * block] if samples.size >= block else samples
    if not usable.size:
        return None
    power = np.square(usable.reshape(-1, min(block, usable.size)), dtype=np.float64).mean(axis=1)
    active = power[power > 10 ** (_GATE_DB / 10)]
    return float(10 * math.log10(active.mean())) if active.size else None


def add_voice(bus: "NDArray[np.float32]", samples: "NDArray[np.float32]", start: int) -> None:
    """Add a voice to the bus at common level, its edges softened against clicks; what lies outside is dropped."""
    import numpy as np

    room = min(samples.size, bus.size - start)
    level = active_level_db(samples, RATE_HZ)
    if room <= 0 or level is None:
        return
    gain_db = max(-MOST_VOICE_GAIN_DB, min(MOST_VOICE_GAIN_DB, VOICE_LEVEL_DB - level))
    voice = samples[:room] * np.float32(10 ** (gain_db / 20))
    edge = min(round(_EDGE_S * RATE_HZ), room // 2)
    ramp = np.linspace(0, 1, edge, dtype=np.float32)
    voice[:edge] *= ramp
    voice[room - edge :] *= ramp[::-1]
    bus[start : start + room] += voice
