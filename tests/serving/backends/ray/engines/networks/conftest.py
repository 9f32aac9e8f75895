"""Synthetic checkpoints of the published layouts, made once for all tests of a process."""

import pytest
import torch

from serving.backends.ray.tiny import faces


@pytest.fixture(autouse=True)
def one_thread() -> None:
    """The machine has few cores, and sums are the same in one order only."""
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def wav2lip_weights() -> dict:
    return faces.wav2lip_checkpoint(0)


@pytest.fixture(scope="session")
def fomm_weights() -> dict:
    return faces.fomm_checkpoint(0)


@pytest.fixture(scope="session")
def xception_weights() -> dict:
    return faces.xception_checkpoint(0)


@pytest.fixture(scope="session")
def sadtalker_weights() -> dict:
    return faces.sadtalker_checkpoint(0)
