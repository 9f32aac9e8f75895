"""The First Order Motion Model has the published layout and draws each frame by itself."""

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from serving.backends.ray.engines.networks.checkpoint import read_checkpoint
from serving.backends.ray.engines.networks.fomm_generator import Generator, Networks, load_fomm
from serving.backends.ray.engines.networks.fomm_keypoints import KeypointDetector, Keypoints, relative
from serving.errors import BadInput

PUBLISHED = json.loads((Path(__file__).parent / "fomm_vox256.json").read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def networks(fomm_weights: dict) -> Networks:
    return load_fomm(fomm_weights)


def picture(seed: int) -> torch.Tensor:
    return torch.rand(1, 3, 128, 128, generator=torch.Generator().manual_seed(seed))


def animate(networks: Networks, driving: torch.Tensor) -> torch.Tensor:
    encoder, generator, detector = networks
    source = detector(picture(1))
    moved = relative(source, detector(driving), detector(picture(2)), 1.0)
    return generator(picture(1), encoder(picture(1)), source, moved)


@pytest.mark.parametrize(("name", "kind"), [("generator", Generator), ("kp_detector", KeypointDetector)])
def test_names_and_shapes_are_those_of_the_published_checkpoint(name: str, kind: type) -> None:
    with torch.device("meta"):
        layout = {key: list(value.shape) for key, value in kind().state_dict().items()}
    assert layout == PUBLISHED[name]


def test_a_file_of_the_published_layout_loads_and_so_does_its_safetensors_conversion(
    tmp_path: Path, fomm_weights: dict, networks: Networks
) -> None:
    torch.save({**fomm_weights, "epoch_kp_detector": 100, "discriminator": {}}, tmp_path / "vox.pth.tar")
    flat = {f"{name}.{key}": value for name, held in fomm_weights.items() for key, value in held.items()}
    save_file(flat, tmp_path / "vox.safetensors")
    torch_file = load_fomm(read_checkpoint(tmp_path / "vox.pth.tar", pickles=True))
    converted = load_fomm(read_checkpoint(tmp_path / "vox.safetensors"))
    for loaded in (torch_file, converted):
        for ours, theirs in zip(networks, loaded, strict=True):
            assert all(torch.equal(value, ours.state_dict()[key]) for key, value in theirs.state_dict().items())


def test_frames_come_out_as_pictures(networks: Networks) -> None:
    drawn = animate(networks, torch.cat((picture(3), picture(4))))
    assert drawn.shape == (2, 3, 128, 128)
    assert 0 <= drawn.min() < drawn.max() <= 1
    assert not torch.allclose(drawn[0], drawn[1], atol=1e-4)


def test_a_frame_is_the_same_alone_and_in_a_batch(networks: Networks) -> None:
    together = animate(networks, torch.cat((picture(3), picture(4))))
    torch.testing.assert_close(animate(networks, picture(4)), together[1:], atol=1e-5, rtol=0)


def test_a_driving_face_that_does_not_move_gives_the_frame_of_the_source_itself(networks: Networks) -> None:
    encoder, generator, detector = networks
    source = detector(picture(1))
    still = generator(picture(1), encoder(picture(1)), source, Keypoints(*source))
    torch.testing.assert_close(animate(networks, picture(2)), still, atol=1e-4, rtol=0)


def test_a_checkpoint_without_keypoints_is_refused(fomm_weights: dict) -> None:
    with pytest.raises(BadInput, match="does not fit FOMM's keypoint detector: lacks"):
        load_fomm({"generator": fomm_weights["generator"]})
