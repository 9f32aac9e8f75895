"""Which sentences go through the network together, and where their words are."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch

from serving.backends.ray.engines.network.seeds import seeded
from serving.backends.ray.engines.voices.spelling import SpelledWord
from serving.backends.ray.engines.voices.vits_passes import Line, Passes, Sound, edge_frames, groups


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


@pytest.mark.parametrize("stochastic", [True, False])
def test_a_network_of_several_speakers_speaks_each_line_with_its_own(stochastic: bool) -> None:
    from transformers import VitsConfig, VitsModel

    config = VitsConfig(
        vocab_size=9, hidden_size=16, num_hidden_layers=1, ffn_dim=32, flow_size=16, spectrogram_bins=17,
        upsample_initial_channel=32, duration_predictor_filter_channels=16, prior_encoder_num_flows=2,
        prior_encoder_num_wavenet_layers=1, posterior_encoder_num_wavenet_layers=1, num_speakers=3,
        speaker_embedding_size=8, upsample_rates=[4, 4], upsample_kernel_sizes=[8, 8],
        use_stochastic_duration_prediction=stochastic,
    )  # fmt: skip
    with seeded(1), torch.inference_mode():
        network = VitsModel(config).eval()
        if stochastic:
            network.get_parameter("duration_predictor.flows.0.log_scale").fill_(2.0)
        passes = Passes(network, "toy")
        lines = [Line((0, 3, 0, 5, 0), speaker, 1.0, (7, 0)) for speaker in (0, 2)]
        together = passes.run(lines, lambda: None, lambda: None)
        alone = [passes.run([line], lambda: None, lambda: None)[0] for line in lines]
    for one, shared in zip(alone, together, strict=True):
        assert np.abs(one.samples - shared.samples).max() < 1e-4
    assert alone[0].samples.shape != alone[1].samples.shape or np.abs(alone[0].samples - alone[1].samples).max() > 1e-3
