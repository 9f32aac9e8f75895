"""What is no number becomes no frame, no coefficient and no score, and is told before any traffic."""

import pickle
from pathlib import Path
from typing import Any

import pytest
import torch

from serving.backends.ray.engines.networks.finite import check_finite
from serving.errors import EngineFailed
from tests.servers.tiny import context_in, tiny_engine


def test_numbers_pass_as_they_are() -> None:
    values = torch.tensor([0.0, -1.5], dtype=torch.bfloat16)
    assert check_finite(values, "painter") is values


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_others_name_the_model_in_one_line(bad: float) -> None:
    with pytest.raises(
        EngineFailed, match="painter: the network's output holds no numbers: check the weights"
    ) as caught:
        check_finite(torch.tensor([0.0, bad]), "painter")
    assert "\n" not in str(pickle.loads(pickle.dumps(caught.value)))  # noqa: S301  our own, as it crosses to a caller


@pytest.mark.parametrize(
    ("name", "network"),
    [
        ("wav2lip", "network"),
        ("face_animation", "generator"),
        ("face_motion", "expression"),
        ("manipulation_detection", "network"),
    ],
)
async def test_weights_that_are_no_numbers_are_told_by_the_warm_up(name: str, network: str, tmp_path: Path) -> None:
    engine: Any = tiny_engine(name, context_in(tmp_path))
    try:
        await engine.warm_up()
        next(getattr(engine, network).parameters()).fill_(float("nan"))
        with pytest.raises(EngineFailed, match="the network's output holds no numbers"):
            await engine.warm_up()
    finally:
        await engine.close()
