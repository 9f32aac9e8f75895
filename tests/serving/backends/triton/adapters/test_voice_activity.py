import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from serving.backends.triton.adapters.voice_activity import CONTEXT, RATE_HZ, WINDOW, speech_spans, windows
from serving.protocol.artifact import ArtifactRef
from serving.protocol.tasks import VoiceActivityRequest

AUDIO = ArtifactRef(sha256="0" * 64, size_bytes=1)
STEP = WINDOW / RATE_HZ


def request(**fields: float) -> VoiceActivityRequest:
    plain = {"min_speech_s": 0.0, "min_silence_s": 0.0, "padding_s": 0.0}
    return VoiceActivityRequest(audio=AUDIO, **{**plain, **fields})


@pytest.mark.parametrize(
    ("probabilities", "fields", "expected"),
    [
        ([], {}, []),
        ([0.1, 0.2], {}, []),
        ([0.9, 0.9, 0.9], {}, [(0, 3)]),
        ([0.1, 0.9, 0.1, 0.9, 0.1], {}, [(1, 2), (3, 4)]),
        ([0.9, 0.4, 0.4, 0.1], {}, [(0, 3)]),
        ([0.4, 0.4, 0.9], {}, [(2, 3)]),
        ([0.9, 0.1, 0.9, 0.1, 0.1, 0.1, 0.9], {"min_silence_s": 3 * STEP}, [(0, 3), (6, 7)]),
        ([0.9, 0.1, 0.1, 0.9, 0.9], {"min_speech_s": 2 * STEP}, [(3, 5)]),
        ([0.9, 0.9, 0.1], {"min_silence_s": 1.0}, [(0, 2)]),
        ([0.6, 0.7, 0.1], {"threshold": 0.8}, []),
    ],
    ids=[
        "no audio", "silence",
        "speech to the end", "two spans", "goes on while it wavers", "a waver is no start",
        "short silence is bridged", "short speech is dropped", "trailing silence is cut", "threshold",
    ],
)  # fmt: skip
def test_spans_follow_the_probabilities(
    probabilities: list[float], fields: dict[str, float], expected: list[tuple[int, int]]
) -> None:
    spans = speech_spans(probabilities, request(**fields), len(probabilities) * WINDOW)
    assert [(span.start_s, span.end_s) for span in spans] == [
        (pytest.approx(start * STEP), pytest.approx(end * STEP)) for start, end in expected
    ]


def test_padding_stays_inside_the_audio_and_meets_in_the_middle_of_a_gap() -> None:
    spans = speech_spans([0.9, 0.1, 0.1, 0.9, 0.1], request(padding_s=2 * STEP), 5 * WINDOW)
    assert [(span.start_s / STEP, span.end_s / STEP) for span in spans] == [(0, 2), (2, 5)]


@given(
    probabilities=st.lists(st.floats(0, 1, width=32), max_size=80),
    cut=st.integers(0, WINDOW - 1),
    padding=st.floats(0, 0.5),
    silence=st.floats(0, 0.5),
    speech=st.floats(0, 0.5),
)
def test_spans_are_ordered_apart_and_inside_the_audio(
    probabilities: list[float], cut: int, padding: float, silence: float, speech: float
) -> None:
    samples = max(len(probabilities) * WINDOW - cut, 0)
    fields = {"padding_s": padding, "min_silence_s": silence, "min_speech_s": speech}
    spans = speech_spans(probabilities, request(**fields), samples)
    edges = [edge for span in spans for edge in (span.start_s, span.end_s)]
    assert edges == sorted(edges)
    assert all(span.start_s < span.end_s for span in spans)
    assert not edges or (edges[0] >= 0 and edges[-1] <= samples / RATE_HZ)


@pytest.mark.parametrize(("samples", "rows"), [(1, 1), (512, 1), (513, 2), (1024, 2)])
def test_windows_cover_the_audio_and_carry_the_end_of_the_one_before(samples: int, rows: int) -> None:
    audio = np.arange(1, samples + 1, dtype=np.float32)
    result = windows(audio)
    assert result.shape == (rows, CONTEXT + WINDOW)
    assert result.dtype == np.float32
    assert not result[0, :CONTEXT].any()
    np.testing.assert_array_equal(result[:, CONTEXT:].reshape(-1)[:samples], audio)
    np.testing.assert_array_equal(result[1:, :CONTEXT], result[:-1, -CONTEXT:])
