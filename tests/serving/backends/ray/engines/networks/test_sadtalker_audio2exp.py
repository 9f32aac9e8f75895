"""SadTalker's expressions come from sound, portrait and blink, frame by frame."""

import pytest
import torch

from serving.backends.ray.engines.networks.sadtalker_audio2exp import Audio2Exp, load_audio2exp
from serving.backends.ray.engines.networks.wav2lip import Wav2Lip

MEL = torch.rand(3, 1, 80, 16, generator=torch.Generator().manual_seed(1)) * 8 - 4


@pytest.fixture(scope="module")
def network(sadtalker_weights: dict) -> Audio2Exp:
    return load_audio2exp(sadtalker_weights)


def test_the_speech_encoder_has_wav2lips_layout_and_one_linear_layer_follows() -> None:
    with torch.device("meta"):
        ours, theirs = Audio2Exp().state_dict(), Wav2Lip().audio_encoder.state_dict()
    assert {key: value.shape for key, value in ours.items() if key.startswith("audio_encoder.")} == {
        f"audio_encoder.{key}": value.shape for key, value in theirs.items()
    }
    rest = {key: list(value.shape) for key, value in ours.items() if not key.startswith("audio_encoder.")}
    assert rest == {"mapping1.weight": [64, 577], "mapping1.bias": [64]}


def test_each_frame_has_64_coefficients_of_its_own(network: Audio2Exp) -> None:
    together = network(MEL, torch.zeros(64), torch.zeros(3))
    assert together.shape == (3, 64)
    torch.testing.assert_close(network(MEL[1:2], torch.zeros(64), torch.zeros(1)), together[1:2], atol=1e-4, rtol=0)


def test_the_portrait_and_the_blink_matter(network: Audio2Exp) -> None:
    plain = network(MEL, torch.zeros(64), torch.zeros(3))
    assert not torch.allclose(network(MEL, torch.ones(64), torch.zeros(3)), plain)
    closed = network(MEL, torch.zeros(64), torch.tensor([0.0, 1.0, 0.0]))
    assert torch.allclose(closed[0], plain[0])
    assert not torch.allclose(closed[1], plain[1])


def test_a_checkpoint_of_training_loads_too(sadtalker_weights: dict, network: Audio2Exp) -> None:
    bare = {
        key.removeprefix("audio2exp."): value
        for key, value in sadtalker_weights.items()
        if key.startswith("audio2exp.")
    }
    other = load_audio2exp({"model": bare, "epoch": 300, "optimizer": {}})
    assert torch.equal(other.mapping1.weight, network.mapping1.weight)
