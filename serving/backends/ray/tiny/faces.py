"""Checkpoints of the face networks in the published layouts, with weights drawn from a seed; made by `models tiny`.

They are not small: the layouts are the published ones, name by name and shape by shape. The one invariant: equal seeds
give equal weights, and the networks they make neither die out nor blow up.
"""

import math
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Final

import torch
from safetensors.torch import save_file
from torch import nn

from serving.backends.ray.engines.networks.fomm_blocks import KEYPOINTS, Shrink
from serving.backends.ray.engines.networks.fomm_generator import Generator
from serving.backends.ray.engines.networks.fomm_keypoints import KeypointDetector
from serving.backends.ray.engines.networks.sadtalker_audio2exp import Audio2Exp
from serving.backends.ray.engines.networks.sadtalker_audio2pose import Audio2Pose
from serving.backends.ray.engines.networks.wav2lip import Wav2Lip
from serving.backends.ray.engines.networks.xception import Xception

_FACES: Final = Path(__file__).parents[4] / "model_repository/face_detection/1/model.onnx"
_GREY: Final = 0.05
"""By what the last layer before a sigmoid or softmax is made smaller, so that what comes out is not all 0 and 1."""

_UNDECIDED: Final = 1e-6
"""The same for Xception, whose twelve sums make random signals large."""


def random_weights(make: Callable[[], nn.Module], seed: int) -> dict[str, torch.Tensor]:
    """A state_dict with every parameter and buffer of a network.

    Kernels are normal with variance 2 / inputs, biases and means are zero, variances and batch norms' factors one.

    Args:
        make: makes the network; it is made without memory for its parameters.
        seed: of the weights.
    """
    chance = torch.Generator().manual_seed(seed)
    with torch.device("meta"):
        shapes = make().state_dict()
    constant = {"bias": 0.0, "running_mean": 0.0, "running_var": 1.0}
    weights = {}
    for name, like in shapes.items():
        kind = name.rpartition(".")[2]
        if not like.is_floating_point():
            weights[name] = torch.zeros(like.shape, dtype=like.dtype)
        elif kind in constant:
            weights[name] = torch.full(like.shape, constant[kind])
        elif like.ndim == 1:
            weights[name] = torch.ones(like.shape)
        else:
            inputs = math.prod(like.shape[1:])
            weights[name] = torch.randn(like.shape, generator=chance) * math.sqrt(2 / inputs)
    return weights


def wav2lip_checkpoint(seed: int) -> dict[str, object]:
    """``{"state_dict": {"module.<name>": ...}}``, as Wav2Lip's generator was published; 145 MB."""
    weights = random_weights(Wav2Lip, seed)
    weights["output_block.1.weight"] *= _GREY
    return {"state_dict": {f"module.{name}": value for name, value in weights.items()}}


def fomm_checkpoint(seed: int) -> dict[str, object]:
    """``{"generator": ..., "kp_detector": ...}``, as FOMM was published; 239 MB.

    The blur is the real one, and local motion starts near the identity, as it does in training: noise there would be
    matrices without an inverse.
    """
    generator = random_weights(Generator, seed)
    detector = random_weights(KeypointDetector, seed + 1)
    blur = Shrink().weight
    generator["dense_motion_network.down.weight"] = blur
    detector["down.weight"] = blur.clone()
    detector["jacobian.weight"] *= 0.1
    detector["jacobian.bias"] = torch.tensor([1.0, 0, 0, 1] * KEYPOINTS)
    return {"generator": generator, "kp_detector": detector}


def xception_checkpoint(seed: int) -> dict[str, object]:
    """``{"model.<name>": ...}``, the state_dict of a published FaceForensics++ detector; 84 MB."""
    weights = random_weights(Xception, seed)
    weights["last_linear.weight"] *= _UNDECIDED
    return {f"model.{name}": value for name, value in weights.items()}


def sadtalker_checkpoint(seed: int) -> dict[str, object]:
    """``audio2exp.<name>`` and ``audio2pose.<name>`` of a published SadTalker safetensors file; 36 MB."""
    expression = random_weights(Audio2Exp, seed)
    pose = random_weights(Audio2Pose, seed + 1)
    return {
        **{f"audio2exp.{name}": value for name, value in expression.items()},
        **{f"audio2pose.{name}": value for name, value in pose.items()},
    }


def wav2lip(folder: Path) -> Mapping[str, object]:
    """The one file of Wav2Lip's generator."""
    torch.save(wav2lip_checkpoint(0), folder / "wav2lip_gan.pth")
    return {}


def face_animation(folder: Path) -> Mapping[str, object]:
    """The one file of FOMM's vox-256."""
    torch.save(fomm_checkpoint(0), folder / "vox-cpk.pth.tar")
    return {}


def face_motion(folder: Path) -> Mapping[str, object]:
    """The one file of SadTalker, without the parts that render."""
    save_file(sadtalker_checkpoint(0), folder / "SadTalker_V0.0.2_256.safetensors")
    return {}


def manipulation_detection(folder: Path) -> Mapping[str, object]:
    """A detector's weights and, from a checkout, the face detector that lies beside the model there."""
    save_file(xception_checkpoint(0), folder / "xception.safetensors")
    if _FACES.is_file():
        shutil.copyfile(_FACES, folder / "face_detection.onnx")
    return {}
