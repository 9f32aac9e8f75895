"""Finished sound: a master as WAV and as M4A; the last stages of graphs that make sound alone.

The one invariant: both files hold the same samples of the same length.
"""

import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from serving.artifacts.store import ArtifactStore
from serving.jobs.types import JobContext
from serving.media.sound import cut_pieces, encode_m4a
from serving.protocol.artifact import ArtifactRef
from serving.protocol.tasks import AudioMixResult, Message

TRUE_PEAK_DBTP: Final = -2.0
"""Ceiling of a master that is also compressed: AAC raised the peaks of twenty minutes of limited music by 0.7 dB, and
both files must stay under -1 dBTP."""


class SoundFiles(Message):
    """The master and its compressed copy, by format."""

    wav: ArtifactRef
    m4a: ArtifactRef


async def encoded(job: JobContext, mix: AudioMixResult) -> SoundFiles:
    """The stage ``encode``: the master, and a copy that is small enough to send around."""

    async def encode() -> SoundFiles:
        with tempfile.TemporaryDirectory(prefix="encode-") as folder:
            target = Path(folder) / "master.m4a"
            await encode_m4a(await job.artifacts.local_path(mix.audio), target)
            return SoundFiles(wav=mix.audio, m4a=await job.artifacts.put_file(target, media_type="audio/mp4"))

    return await job.step("encode", encode, inputs=mix.audio)


async def cut_recording(
    artifacts: ArtifactStore, recording: ArtifactRef, spans: Sequence[tuple[float, float]]
) -> list[ArtifactRef]:
    """Pieces of a recording as WAV, for models that hear speech; spans are starts and ends in seconds."""
    with tempfile.TemporaryDirectory(prefix="cut-") as folder:
        targets = [Path(folder) / f"piece-{number:03}.wav" for number in range(1, len(spans) + 1)]
        await cut_pieces(await artifacts.local_path(recording), spans, targets)
        return [await artifacts.put_file(target, media_type="audio/wav") for target in targets]
