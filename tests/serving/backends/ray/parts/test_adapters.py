import pytest
import torch
from diffusers import LTXVideoTransformer3DModel
from torch import nn

from serving.backends.ray.parts.adapters import ADAPTERS, adapter_of, apart, ltx2_coordinates, ltx_coordinates
from serving.errors import BadInput


@pytest.fixture(scope="module")
def network() -> LTXVideoTransformer3DModel:
    return LTXVideoTransformer3DModel(
        in_channels=4, out_channels=4, num_attention_heads=2, attention_head_dim=8, cross_attention_dim=16,
        num_layers=1, caption_channels=8,
    ).eval()  # fmt: skip


def test_coordinates_mean_the_very_same_to_ltx_as_the_numbers_that_they_were_made_of(
    network: LTXVideoTransformer3DModel,
) -> None:
    random = torch.Generator().manual_seed(0)
    asked: dict[str, object] = {
        "hidden_states": torch.randn(2, 24, 4, generator=random),
        "encoder_hidden_states": torch.randn(2, 5, 8, generator=random),
        "timestep": torch.tensor([400.0, 400.0]),
        "encoder_attention_mask": torch.ones(2, 5),
        "num_frames": 2,
        "height": 3,
        "width": 4,
        "rope_interpolation_scale": (8 / 24, 32, 32),
    }
    told = ltx_coordinates(network, asked)
    assert set(asked) - set(told) == {"num_frames", "height", "width", "rope_interpolation_scale"}
    assert isinstance(told["video_coords"], torch.Tensor)
    assert told["video_coords"].shape == (1, 3, 24)
    with torch.no_grad():
        assert torch.equal(network(**told, return_dict=False)[0], network(**asked, return_dict=False)[0])


def test_calls_that_have_coordinates_or_no_scale_are_left_as_they_are(network: LTXVideoTransformer3DModel) -> None:
    sizes: dict[str, object] = {"hidden_states": torch.zeros(1, 1, 4), "num_frames": 1, "height": 1, "width": 1}
    assert ltx_coordinates(network, sizes) is sizes
    given = {**sizes, "rope_interpolation_scale": (1.0, 1.0, 1.0), "video_coords": torch.zeros(1, 3, 1)}
    assert ltx_coordinates(network, given) is given


def test_ltx2_is_told_sizes_only_where_it_has_no_coordinates() -> None:
    sizes: dict[str, object] = {"num_frames": 2, "height": 3, "width": 4, "fps": 24.0, "audio_num_frames": 9}
    assert ltx2_coordinates(nn.Identity(), sizes) == sizes
    video = {**sizes, "video_coords": torch.zeros(1, 3, 24, 2)}
    assert set(ltx2_coordinates(nn.Identity(), video)) == {"video_coords", "audio_num_frames"}
    both = {**video, "audio_coords": torch.zeros(1, 1, 9, 2)}
    assert set(ltx2_coordinates(nn.Identity(), both)) == {"video_coords", "audio_coords"}


def test_a_tensor_under_two_names_becomes_two_over_the_same_memory() -> None:
    time, other = torch.ones(2), torch.zeros(2)
    told = apart(nn.Identity(), {"timestep": time, "timestep_r": time, "other": other, "scale": 1.0})
    first, second = told["timestep"], told["timestep_r"]
    assert isinstance(second, torch.Tensor)
    assert first is time
    assert second is not time
    assert second.data_ptr() == time.data_ptr()
    assert (told["other"], told["scale"]) == (other, 1.0)


def test_an_adapter_that_is_not_there_is_named() -> None:
    assert all(adapter_of(name) is adapter for name, adapter in ADAPTERS.items())
    with pytest.raises(BadInput, match="there is no adapter 'none'"):
        adapter_of("none")
