"""Wav2Lip has the published layout, draws pictures, and draws each frame by itself."""

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from serving.backends.ray.engines.networks.checkpoint import read_checkpoint
from serving.backends.ray.engines.networks.wav2lip import Wav2Lip, load_wav2lip
from serving.errors import BadInput

PUBLISHED = json.loads((Path(__file__).parent / "wav2lip.json").read_text(encoding="utf-8"))


def some(frames: int) -> tuple[torch.Tensor, torch.Tensor]:
    chance = torch.Generator().manual_seed(5)
    mel = torch.rand(frames, 1, 80, 16, generator=chance) * 8 - 4
    return mel, torch.rand(frames, 6, 96, 96, generator=chance)


@pytest.fixture(scope="module")
def network(wav2lip_weights: dict) -> Wav2Lip:
    return load_wav2lip(wav2lip_weights)


def test_names_and_shapes_are_those_of_the_published_generator() -> None:
    with torch.device("meta"):
        layout = {name: list(value.shape) for name, value in Wav2Lip().state_dict().items()}
    assert layout == PUBLISHED


def test_a_file_of_the_published_layout_loads_and_so_does_its_safetensors_conversion(
    tmp_path: Path, wav2lip_weights: dict, network: Wav2Lip
) -> None:
    torch.save(wav2lip_weights, tmp_path / "wav2lip.pth")
    save_file({name: value.contiguous() for name, value in network.state_dict().items()}, tmp_path / "w.safetensors")
    torch_file = load_wav2lip(read_checkpoint(tmp_path / "wav2lip.pth", pickles=True))
    converted = load_wav2lip(read_checkpoint(tmp_path / "w.safetensors"))
    for loaded in (torch_file, converted):
        assert all(torch.equal(value, network.state_dict()[key]) for key, value in loaded.state_dict().items())
    torch.testing.assert_close(converted(*some(1)), network(*some(1)), atol=1e-3, rtol=0)


def test_faces_come_out_as_pictures(network: Wav2Lip) -> None:
    drawn = network(*some(2))
    assert drawn.shape == (2, 3, 96, 96)
    assert drawn.dtype == torch.float32
    assert 0 <= drawn.min() < drawn.max() <= 1
    assert drawn.std() > 0.01


def test_equal_inputs_give_equal_pictures(network: Wav2Lip) -> None:
    assert torch.equal(network(*some(1)), network(*some(1)))


def test_a_frame_is_the_same_alone_and_in_a_batch(network: Wav2Lip) -> None:
    mel, face = some(3)
    torch.testing.assert_close(network(mel, face)[1:2], network(mel[1:2], face[1:2]), atol=1e-5, rtol=0)


def test_both_the_sound_and_the_face_matter(network: Wav2Lip) -> None:
    mel, face = some(1)
    drawn = network(mel, face)
    assert not torch.allclose(network(-mel, face), drawn, atol=1e-4)
    assert not torch.allclose(network(mel, 1 - face), drawn, atol=1e-4)


def test_a_checkpoint_that_lacks_a_layer_is_refused_by_its_name(wav2lip_weights: dict) -> None:
    held = dict(wav2lip_weights["state_dict"])
    del held["module.output_block.1.bias"]
    with pytest.raises(BadInput, match=r"does not fit Wav2Lip: lacks output_block\.1\.bias"):
        load_wav2lip({"state_dict": held})
