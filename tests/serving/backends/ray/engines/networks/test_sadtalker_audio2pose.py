"""SadTalker's head motion comes from sound, style and chance, in pieces of 32 frames."""

import pytest
import torch

from serving.backends.ray.engines.networks.sadtalker_audio2pose import Audio2Pose, load_audio2pose

MEL = torch.rand(2, 32, 80, 16, generator=torch.Generator().manual_seed(1)) * 8 - 4
LATENT = torch.randn(2, 64, generator=torch.Generator().manual_seed(2))
LAYOUT = {
    "audio_encoder.audio_encoder.0.conv_block.0.weight": [32, 1, 3, 3],
    "netG.decoder.classbias": [46, 64],
    "netG.decoder.MLP.L0.weight": [128, 262],
    "netG.decoder.MLP.L1.weight": [192, 128],
    "netG.decoder.pose_linear.weight": [6, 6],
    "netG.decoder.linear_audio.weight": [6, 512],
    "netG.decoder.resunet.input_layer.3.weight": [32, 32, 3, 3],
    "netG.decoder.resunet.input_skip.0.weight": [32, 1, 3, 3],
    "netG.decoder.resunet.residual_conv_1.conv_block.2.weight": [64, 32, 3, 3],
    "netG.decoder.resunet.bridge.conv_skip.0.weight": [256, 128, 3, 3],
    "netG.decoder.resunet.upsample_1.upsample.weight": [256, 256, 2, 1],
    "netG.decoder.resunet.up_residual_conv3.conv_block.5.weight": [32, 32, 3, 3],
    "netG.decoder.resunet.output_layer.0.weight": [1, 32, 1, 1],
}


@pytest.fixture(scope="module")
def network(sadtalker_weights: dict) -> Audio2Pose:
    return load_audio2pose(sadtalker_weights)


def test_names_and_shapes_are_the_published_ones(network: Audio2Pose) -> None:
    layout = {key: list(value.shape) for key, value in network.state_dict().items()}
    assert {key: layout.get(key) for key in LAYOUT} == LAYOUT


def test_a_piece_of_sound_gives_32_poses(network: Audio2Pose) -> None:
    motion = network(MEL, torch.zeros(6), 0, LATENT)
    assert motion.shape == (2, 32, 6)
    assert torch.equal(network(MEL, torch.zeros(6), 0, LATENT), motion)
    torch.testing.assert_close(network(MEL[1:], torch.zeros(6), 0, LATENT[1:]), motion[1:], atol=1e-5, rtol=0)


@pytest.mark.parametrize(
    "other",
    [(-MEL, 0, LATENT), (MEL, 7, LATENT), (MEL, 0, -LATENT)],
    ids=["sound", "style", "chance"],
)
def test_everything_it_is_given_matters(network: Audio2Pose, other: tuple) -> None:
    mel, style, latent = other
    assert not torch.allclose(
        network(mel, torch.zeros(6), style, latent), network(MEL, torch.zeros(6), 0, LATENT), atol=1e-6
    )


def test_what_training_left_in_the_file_is_not_needed(sadtalker_weights: dict) -> None:
    trained = sadtalker_weights | {
        "audio2pose.netG.encoder.classbias": torch.zeros(46, 64),
        "audio2pose.netD_motion.seq.0.weight": torch.zeros(1),
    }
    assert isinstance(load_audio2pose(trained), Audio2Pose)
