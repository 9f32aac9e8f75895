"""The one easing curve of the puppet; used by all its parts.

The one invariant: flat at both ends, so whatever is eased by it starts and stops without a jerk.
"""

from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

F = TypeVar("F", np.float32, np.float64)


def smooth(x: NDArray[F]) -> NDArray[F]:
    """Cubic step: 0 for x <= 0, 1 for x >= 1; keeps the dtype."""
    y = np.clip(x, 0, 1)
    return np.asarray(y * y * (3 - 2 * y), x.dtype)
