"""Xception with two classes, the FaceForensics kind of detector of manipulated faces; loaded by engine ``xception``.

Chollet: Xception: Deep Learning with Depthwise Separable Convolutions, CVPR 2017. Rössler, Cozzolino, Verdoliva, Riess,
Thies, Nießner: FaceForensics++: Learning to Detect Manipulated Facial Images, ICCV 2019.

The one invariant: parameters have the names and shapes of the common PyTorch port (``conv1``, ``block1.rep.0`` ...
``last_linear``), on which the published detectors were trained.
"""

import itertools
from collections.abc import Mapping
from typing import Final

import torch
from torch import nn
from torch.nn import functional

from serving.backends.ray.engines.networks.checkpoint import build, part

FACE_PX: Final = 299
"""Width and height of the face the network sees."""

CLASSES: Final = ("real", "manipulated")
"""In the order of the network's outputs, as FaceForensics++ has it."""


class Separable(nn.Module):
    """A convolution of kernel 3 in each channel by itself, then one of kernel 1 across channels; no biases."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, inputs, 3, padding=1, groups=inputs, bias=False)
        self.pointwise = nn.Conv2d(inputs, outputs, 1, bias=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(batch, inputs, height, width) to (batch, outputs, height, width)."""
        out: torch.Tensor = self.pointwise(self.conv1(x))
        return out


class Stage(nn.Module):
    """Separable convolutions, each with batch norm and a ReLU before it, and a shortcut around them.

    Args:
        sizes: channels between the convolutions, first to last.
        halve: whether the size is halved at the end.
        relu_first: whether a ReLU stands before the first convolution.
    """

    def __init__(self, sizes: tuple[int, ...], *, halve: bool, relu_first: bool = True) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for before, after in itertools.pairwise(sizes):
            layers += [nn.ReLU(), Separable(before, after), nn.BatchNorm2d(after)]
        if halve:
            layers.append(nn.MaxPool2d(3, 2, 1))
            self.skip = nn.Conv2d(sizes[0], sizes[-1], 1, stride=2, bias=False)
            self.skipbn = nn.BatchNorm2d(sizes[-1])
        self.rep = nn.Sequential(*(layers if relu_first else layers[1:]))
        self._halve = halve

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(batch, channels, height, width) to (batch, channels out, height, width), or half of both."""
        short = self.skipbn(self.skip(x)) if self._halve else x
        out: torch.Tensor = self.rep(x) + short
        return out


class Xception(nn.Module):
    """Entry flow (conv1 to block3), middle flow (blocks 4 to 11), exit flow, and a linear layer of two classes."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 32, 3, 2, bias=False)
        self.bn1 = nn.BatchNorm2d(32)
        self.conv2 = nn.Conv2d(32, 64, 3, bias=False)
        self.bn2 = nn.BatchNorm2d(64)
        self.block1 = Stage((64, 128, 128), halve=True, relu_first=False)
        self.block2 = Stage((128, 256, 256), halve=True)
        self.block3 = Stage((256, 728, 728), halve=True)
        for index in range(4, 12):
            self.add_module(f"block{index}", Stage((728, 728, 728, 728), halve=False))
        self.block12 = Stage((728, 728, 1024), halve=True)
        self.conv3 = Separable(1024, 1536)
        self.bn3 = nn.BatchNorm2d(1536)
        self.conv4 = Separable(1536, 2048)
        self.bn4 = nn.BatchNorm2d(2048)
        self.last_linear = nn.Linear(2048, len(CLASSES))

    def forward(self, faces: torch.Tensor) -> torch.Tensor:
        """How likely faces are manipulated.

        Args:
            faces: float (batch, 3, 299, 299), red-green-blue, -1 to 1.

        Returns:
            (batch,), 0 to 1: the softmax share of the class ``manipulated``.
        """
        out = torch.relu(self.bn1(self.conv1(faces)))
        out = torch.relu(self.bn2(self.conv2(out)))
        for index in range(1, 13):
            out = self.get_submodule(f"block{index}")(out)
        out = torch.relu(self.bn3(self.conv3(out)))
        out = torch.relu(self.bn4(self.conv4(out)))
        logits = self.last_linear(functional.adaptive_avg_pool2d(out, 1).flatten(1))
        return torch.softmax(logits, dim=1)[:, 1]


def load_xception(checkpoint: Mapping[str, object]) -> Xception:
    """The network with a checkpoint's weights: the names alone, or with ``model.`` before them.

    A ``state_dict`` may hold them; the last layer may be called ``fc`` or, after a dropout, ``last_linear.1``;
    pointwise weights may lack their two sizes of 1, as the port's first files do.

    Raises:
        BadInput: keys are missing, foreign or misshapen; so is a network of another number of classes.
    """
    weights = part(part(checkpoint, "state_dict", "model_state_dict"), "model")
    return build(Xception, {canonical(key): widened(key, value) for key, value in weights.items()}, "Xception")


def canonical(key: str) -> str:
    """The name of a parameter, whichever of the ports wrote it."""
    layer, _, kind = key.rpartition(".")
    return f"last_linear.{kind}" if layer in {"fc", "last_linear.1"} else key


def widened(key: str, value: torch.Tensor) -> torch.Tensor:
    """A pointwise weight with its two sizes of 1; anything else as it is."""
    flat = key.endswith("pointwise.weight") and value.ndim == 2  # noqa: PLR2004
    return value[:, :, None, None] if flat else value
