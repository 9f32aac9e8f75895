"""When each token is said, from the attention of the alignment heads; used by Whisper in transformers.

The one invariant: times ascend. The method is openai/whisper's (timing.py): normalised weights, a median filter, and
dynamic time warping; transformers' own, of version 5.23, fails on batches of sounds that are not equally long.
"""

from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

SECONDS_PER_FRAME: Final = 0.02
_MEDIAN: Final = 7


def starts_of(weights: "NDArray[np.float32]", median: int = _MEDIAN) -> list[float]:
    """Where each token begins.

    Args:
        weights: attention, float32 ``(heads, tokens, frames)``, of 20 ms frames within the sound.
        median: width of the filter along the frames.

    Returns:
        Seconds, one for each token.
    """
    import numpy as np

    spread = weights.std(axis=-2, keepdims=True)
    normal = (weights - weights.mean(axis=-2, keepdims=True)) / np.maximum(spread, 1e-6)
    side = median // 2
    padded = np.pad(normal, ((0, 0), (0, 0), (side, side)), mode="reflect" if normal.shape[-1] > side else "edge")
    smooth = np.median(np.lib.stride_tricks.sliding_window_view(padded, 2 * side + 1, axis=-1), axis=-1)
    return [frame * SECONDS_PER_FRAME for frame in warp(-smooth.mean(axis=0))]


def warp(costs: "NDArray[np.float32]") -> list[int]:
    """Dynamic time warping, one diagonal at a time.

    Args:
        costs: ``(tokens, frames)``.

    Returns:
        For each token the first frame of the cheapest path through it.
    """
    import numpy as np

    rows, columns = costs.shape
    total = np.full((rows + 1, columns + 1), np.inf)
    total[0, 0] = 0
    came = np.zeros((rows + 1, columns + 1), np.int8)
    for diagonal in range(2, rows + columns + 1):
        row = np.arange(max(1, diagonal - columns), min(rows, diagonal - 1) + 1)
        column = diagonal - row
        before = np.stack([total[row - 1, column - 1], total[row - 1, column], total[row, column - 1]])
        chosen = before.argmin(axis=0)
        total[row, column] = costs[row - 1, column - 1] + before[chosen, np.arange(len(row))]
        came[row, column] = chosen
    return _first_frames(came, rows, columns)


def _first_frames(came: "NDArray[np.int8]", row: int, column: int) -> list[int]:
    """Walk the path back."""
    first = [0] * row
    while row > 0 and column > 0:
        first[row - 1] = column - 1
        step = came[row, column]
        row, column = row - (step != 2), column - (step != 1)  # noqa: PLR2004  0 both, 1 the token, 2 the frame
    return first
