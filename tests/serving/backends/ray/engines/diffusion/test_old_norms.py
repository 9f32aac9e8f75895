"""The one warning that diffusers' sound autoencoder raises against itself."""

import warnings

import pytest
import torch

from serving.backends.ray.engines.diffusion.old_norms import old_norms


def test_the_old_norm_is_used_in_silence_and_other_warnings_are_heard() -> None:
    with old_norms():
        torch.nn.utils.weight_norm(torch.nn.Linear(2, 2))
        with pytest.warns(FutureWarning, match="something else"):
            warnings.warn("something else", FutureWarning, stacklevel=1)
    with pytest.warns(FutureWarning, match="weight_norm"):
        torch.nn.utils.weight_norm(torch.nn.Linear(2, 2))
