"""Voice activity by Silero's model: audio to probabilities to spans of speech; loaded by adapters.load_adapter.

The one invariant: the answer does not depend on how the audio was cut into inferences, since the model's state is
carried from one to the next.
"""

from collections.abc import Sequence
from typing import Final

import numpy as np
from numpy.typing import NDArray

from serving.artifacts.store import ArtifactStore
from serving.backends.call import Call
from serving.backends.triton.client import Tensors
from serving.errors import EngineFailed
from serving.media.ffmpeg import decode_audio
from serving.protocol.tasks import Span, TaskRequest, VoiceActivityRequest, VoiceActivityResult
from serving.repository.model import Model

RATE_HZ: Final = 16_000
WINDOW: Final = 512
"""Samples that one probability stands for, 32 ms."""
CONTEXT: Final = 64
"""Samples of the window before, put in front of each window."""
STATE: Final = (1, 1, 128)
WINDOWS_PER_CALL: Final = 2048
"""About 65 s of audio and 4.7 MB a call: well under a second of work between two looks at the deadline."""
HYSTERESIS: Final = 0.15
"""Speech goes on until the probability falls this far below the threshold (Silero's own value)."""
LOWEST: Final = 0.01


class VoiceActivityAdapter:
    """Runs ``voice_activity`` requests."""

    def __init__(self, model: Model, tensors: Tensors, artifacts: ArtifactStore) -> None:
        self._model = model.name
        self._tensors = tensors
        self._artifacts = artifacts

    async def run(self, request: TaskRequest, call: Call) -> VoiceActivityResult:
        """Find speech in any medium that ffmpeg reads; raises :class:`BadInput` where there is no audio in it."""
        if not isinstance(request, VoiceActivityRequest):
            raise EngineFailed(f"{self._model} was sent a {type(request).__name__}")
        path = await self._artifacts.local_path(request.audio)
        samples = await decode_audio(path, RATE_HZ, checkpoint=call.checkpoint)
        probabilities = await self._probabilities(samples, call)
        spans = speech_spans(probabilities, request, len(samples))
        return VoiceActivityResult(spans=spans, duration_s=len(samples) / RATE_HZ)

    async def _probabilities(self, samples: NDArray[np.float32], call: Call) -> NDArray[np.float32]:
        """The probability of speech in each window, float32 ``(windows,)``."""
        rows = windows(samples)
        state = {"h": np.zeros(STATE, np.float32), "c": np.zeros(STATE, np.float32)}
        parts = []
        for start in range(0, len(rows), WINDOWS_PER_CALL):
            inputs = {"input": rows[start : start + WINDOWS_PER_CALL], **state}
            outputs = await self._tensors.infer(self._model, inputs, ["speech_probs", "hn", "cn"], call)
            state = {"h": outputs["hn"], "c": outputs["cn"]}
            parts.append(outputs["speech_probs"])
        return np.concatenate(parts)


def windows(samples: NDArray[np.float32]) -> NDArray[np.float32]:
    """The model's input: float32 ``(windows, 576)``, a view; silence stands before the start and after the end.

    Args:
        samples: float32 ``(samples,)``, at least one.
    """
    missing = -len(samples) % WINDOW
    padded = np.concatenate([np.zeros(CONTEXT, np.float32), samples, np.zeros(missing, np.float32)])
    return np.lib.stride_tricks.sliding_window_view(padded, CONTEXT + WINDOW)[::WINDOW]


def speech_spans(
    probabilities: Sequence[float] | NDArray[np.float32], request: VoiceActivityRequest, samples: int
) -> list[Span]:
    """Spans of speech from the probabilities of windows.

    Speech begins at the threshold and ends when the probability stays :data:`HYSTERESIS` below it for
    ``min_silence_s``; what lasts less than ``min_speech_s`` is dropped; the rest is padded by ``padding_s``, where two
    spans would meet by half the gap. Silero's ``get_speech_timestamps`` (MIT) does the same.

    Args:
        probabilities: one for each window of 32 ms.
        request: thresholds and durations.
        samples: length of the audio at 16 kHz.
    """
    found = [
        (start * WINDOW, min(end * WINDOW, samples))
        for start, end in _raw_spans(probabilities, request.threshold, request.min_silence_s * RATE_HZ / WINDOW)
    ]
    kept = [(start, end) for start, end in found if end - start >= request.min_speech_s * RATE_HZ]
    padding = round(request.padding_s * RATE_HZ)
    spans = []
    for place, (start, end) in enumerate(kept):
        before = kept[place - 1][1] if place else -2 * padding
        after = kept[place + 1][0] if place + 1 < len(kept) else samples + 2 * padding
        first = max(start - min(padding, (start - before) // 2), 0)
        last = min(end + min(padding, (after - end) // 2), samples)
        spans.append(Span(start_s=first / RATE_HZ, end_s=last / RATE_HZ))
    return spans


def _raw_spans(
    probabilities: Sequence[float] | NDArray[np.float32], threshold: float, min_silence: float
) -> list[tuple[int, int]]:
    """Spans as window numbers, the end exclusive; silences shorter than ``min_silence`` windows are bridged."""
    low = max(threshold - HYSTERESIS, LOWEST)
    spans: list[tuple[int, int]] = []
    start: int | None = None
    silence: int | None = None
    for place, probability in enumerate(probabilities):
        if probability >= threshold:
            start = place if start is None else start
            silence = None
        elif start is not None and probability < low:
            silence = place if silence is None else silence
            if place + 1 - silence >= min_silence:
                spans.append((start, silence))
                start = silence = None
    if start is not None:
        spans.append((start, len(probabilities) if silence is None else silence))
    return spans
