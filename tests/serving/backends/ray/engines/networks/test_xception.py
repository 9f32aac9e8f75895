"""Xception has the layout of the common port, whichever way a file names it, and answers with a probability."""

import pytest
import torch

from serving.backends.ray.engines.networks.xception import Xception, load_xception
from serving.errors import BadInput

PORT = {
    "conv1.weight": [32, 3, 3, 3],
    "bn1.running_mean": [32],
    "conv2.weight": [64, 32, 3, 3],
    "block1.rep.0.conv1.weight": [64, 1, 3, 3],
    "block1.rep.0.pointwise.weight": [128, 64, 1, 1],
    "block1.rep.1.weight": [128],
    "block1.rep.3.pointwise.weight": [128, 128, 1, 1],
    "block1.skip.weight": [128, 64, 1, 1],
    "block1.skipbn.weight": [128],
    "block2.rep.1.pointwise.weight": [256, 128, 1, 1],
    "block3.rep.4.conv1.weight": [728, 1, 3, 3],
    "block4.rep.7.pointwise.weight": [728, 728, 1, 1],
    "block11.rep.8.running_var": [728],
    "block12.rep.1.pointwise.weight": [728, 728, 1, 1],
    "block12.rep.4.pointwise.weight": [1024, 728, 1, 1],
    "block12.skip.weight": [1024, 728, 1, 1],
    "conv3.conv1.weight": [1024, 1, 3, 3],
    "conv3.pointwise.weight": [1536, 1024, 1, 1],
    "conv4.pointwise.weight": [2048, 1536, 1, 1],
    "bn4.num_batches_tracked": [],
    "last_linear.weight": [2, 2048],
    "last_linear.bias": [2],
}
"""Of every kind of key in pretrainedmodels' xception, with two classes, one."""


@pytest.fixture(scope="module")
def network(xception_weights: dict) -> Xception:
    return load_xception(xception_weights)


def faces(count: int) -> torch.Tensor:
    return torch.rand(count, 3, 299, 299, generator=torch.Generator().manual_seed(3)) * 2 - 1


def test_names_and_shapes_are_those_of_the_port() -> None:
    with torch.device("meta"):
        network = Xception()
    layout = {key: list(value.shape) for key, value in network.state_dict().items()}
    assert {key: layout.get(key) for key in PORT} == PORT
    assert not any(key.startswith(("block4.skip", "block1.rep.6")) for key in layout)
    of_imagenet = 22_855_952
    last = 1000 * 2048 + 1000
    assert sum(value.numel() for value in network.parameters()) == of_imagenet - last + 2 * 2048 + 2


def test_faces_get_a_share_between_0_and_1(network: Xception) -> None:
    scores = network(faces(2))
    assert scores.shape == (2,)
    assert ((scores > 0) & (scores < 1)).all()
    torch.testing.assert_close(network(faces(2)[1:]), scores[1:], atol=1e-5, rtol=0)


def renamed(weights: dict) -> dict:
    """As after a dropout, without the prefix, pointwise weights flat."""
    bare = {key.removeprefix("model."): value for key, value in weights.items()}
    return {
        key.replace("last_linear.", "last_linear.1."): value[:, :, 0, 0] if "pointwise" in key else value
        for key, value in bare.items()
    }


@pytest.mark.parametrize(
    "held",
    [renamed, lambda weights: {"state_dict": {f"module.{key}": value for key, value in weights.items()}}],
    ids=["after a dropout, flat", "of DataParallel"],
)
def test_other_ways_of_naming_load_the_same(xception_weights: dict, network: Xception, held: object) -> None:
    other = load_xception(held(xception_weights))
    assert all(torch.equal(value, network.state_dict()[key]) for key, value in other.state_dict().items())


def test_a_detector_of_five_kinds_is_refused(xception_weights: dict) -> None:
    wide = dict(xception_weights)
    wide["model.last_linear.weight"] = torch.zeros(5, 2048)
    with pytest.raises(BadInput, match=r"another shape last_linear\.weight \[5, 2048\], not \[2, 2048\]"):
        load_xception(wide)
