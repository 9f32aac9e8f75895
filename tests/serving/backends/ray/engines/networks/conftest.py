"""Synthetic checkpoints of the published layouts, made once for all tests of a process."""

import pytest
import torch

from serving.backends.ray.engines.networks import synthetic


@pytest.fixture(autouse=True)
def one_thread() -> None:
    """The machine has few cores, and sums are the same in one order only."""
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def wav2lip_weights() -> dict:
    return synthetic.wav2lip_checkpoint(0)


@pytest.fixture(scope="session")
def fomm_weights() -> dict:
    return synthetic.fomm_checkpoint(0)


@pytest.fixture(scope="session")
def xception_weights() -> dict:
    return synthetic.xception_checkpoint(0)


@pytest.fixture(scope="session")
def sadtalker_weights() -> dict:
    return synthetic.sadtalker_checkpoint(0)
