"""Which sentences go through the network together, and where their words are."""

from types import SimpleNamespace

import numpy as np
import pytest

from serving.backends.ray.engines.voices.spelling import SpelledWord
from serving.backends.ray.engines.voices.vits_passes import Sound, edge_frames, groups


@pytest.mark.parametrize(
    ("lengths", "most", "symbols", "expected"),
    [
        pytest.param([5], 8, 100, [[0]], id="one"),
        pytest.param([9, 5, 7], 8, 100, [[1, 2, 0]], id="by length"),
        pytest.param([9, 5, 7], 2, 100, [[1, 2], [0]], id="at most so many"),
        pytest.param([30, 5, 30], 8, 60, [[1, 0], [2]], id="padding counts"),
        pytest.param([500, 400], 8, 100, [[1], [0]], id="long ones alone"),
    ],
)
def test_sentences_of_like_length_go_together(
    lengths: list[int], most: int, symbols: int, expected: list[list[int]]
) -> None:
    assert groups(lengths, most, symbols) == expected


@pytest.mark.parametrize("blanks", [True, False])
def test_a_word_lasts_from_the_end_of_the_symbol_before_it(blanks: bool) -> None:
    ends = np.array([0.1, 0.2, 0.3, 0.4])
    with_blanks = np.repeat(ends, 2)[:-1] if blanks else ends
    sound = Sound(np.zeros(4, np.float32), np.concatenate([[0.05], with_blanks]) if blanks else with_blanks)
    words = sound.words([SpelledWord("a", 0, 1), SpelledWord("bc", 2, 4)], blanks)
    assert [(word.text, round(word.start_s, 2), round(word.end_s, 2)) for word in words] == [
        ("a", 0.0, 0.1),
        ("bc", 0.2, 0.4),
    ]


def test_the_reach_of_a_published_decoder_is_a_dozen_frames() -> None:
    config = SimpleNamespace(
        upsample_rates=[8, 8, 2, 2],
        upsample_kernel_sizes=[16, 16, 4, 4],
        resblock_kernel_sizes=[3, 7, 11],
        resblock_dilation_sizes=[[1, 3, 5]] * 3,
    )
    assert edge_frames(config) == 15
