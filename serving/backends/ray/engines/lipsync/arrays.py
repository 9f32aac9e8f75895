"""Array types and the one easing curve of the puppet; used by all its parts.

The one invariant: the curve is flat at both ends, so whatever is eased by it starts and stops without a jerk.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.floating[Any]]
"""Real numbers; float32 wherever pictures are concerned."""

Picture = NDArray[np.uint8]
"""Pixels, uint8 ``(height, width[, channels])``."""


def smooth(x: Floats) -> Floats:
    """Cubic step: 0 for x <= 0, 1 for x >= 1; keeps the dtype."""
    y = np.clip(x, 0, 1)
    return np.asarray(y * y * (3 - 2 * y), x.dtype)
