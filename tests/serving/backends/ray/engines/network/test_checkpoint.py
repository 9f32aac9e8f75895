"""What does not fit in a checkpoint, in one line."""

from pathlib import Path

import pytest
import torch

from serving.backends.ray.engines.network.checkpoint import check_info, check_shapes, check_types, reading
from serving.errors import BadInput, Unsupported
from serving.weights.safetensors_files import TensorInfo

FIELD = "voice: model.safetensors"


def test_a_checkpoint_that_fits_passes() -> None:
    check_shapes({"a": [2, 3]}, {"a": (2, 3)}, field=FIELD)
    check_info({"missing_keys": set(), "unexpected_keys": set(), "mismatched_keys": set()}, field=FIELD)


def test_all_that_does_not_fit_is_told_at_once() -> None:
    with pytest.raises(BadInput) as caught:
        check_shapes({"a": [2, 3], "more": [1], "s": []}, {"a": (3, 2), "b": (1,), "s": (4,)}, field=FIELD)
    assert caught.value.field == FIELD
    assert str(caught.value) == (
        f"{FIELD}: the checkpoint does not fit the network: misshapen a is 2x3 and not 3x2, s is a number and not 4; "
        "missing b; unknown more: use the checkpoint that belongs to this network, whole"
    )


def test_of_many_keys_three_are_named() -> None:
    with pytest.raises(BadInput, match="missing k0, k1, k2 and 7 more"):
        check_info({"missing_keys": {f"k{index}" for index in range(10)}}, field=FIELD)


def test_whole_numbers_in_the_place_of_fractions_are_refused() -> None:
    state = {"a": torch.zeros(2), "b": torch.zeros(2), "seen": torch.zeros(2).long()}
    info = {name: TensorInfo(dtype, (2,), 0, 2) for name, dtype in (("a", "BF16"), ("b", "F8_E4M3"), ("seen", "I64"))}
    check_types(state, info, field=FIELD)
    with pytest.raises(BadInput, match="an unsupported dtype: the checkpoint has a in I8, b in U8: use a checkpoint"):
        check_types(state, {"b": TensorInfo("U8", (2,), 0, 2), "a": TensorInfo("I8", (2,), 0, 2)}, field=FIELD)


def test_what_a_library_raises_about_a_file_becomes_one_line() -> None:
    with pytest.raises(BadInput, match="voice: folder: ValueError: broken"):
        reading("voice", lambda: fail(ValueError("broken")), Path("folder"))


def test_errors_of_ours_pass_as_they_are() -> None:
    with pytest.raises(Unsupported):
        reading("voice", lambda: fail(Unsupported("no")), Path("folder"))


def fail(error: Exception) -> None:
    raise error
