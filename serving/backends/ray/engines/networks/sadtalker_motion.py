"""What SadTalker's motion stage does around its networks: blinks, pieces of sound, smoothing; used by its engine.

The one invariant: pure numpy functions, so equal seeds give equal motion.
"""

from typing import Final

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]

SMOOTHED_FRAMES: Final = 13
_BLINK: Final = (0.5, 0.9, 1.0, 0.9, 0.5)
_SOONEST, _LATEST = 10, 70
_DEGREE: Final = 2


def blinks(frames: int, seed: int) -> Floats:
    """How far the eyes are closed, (frames,), 0 to 1: a blink of 5 frames after every 10 to 70 open ones."""
    chance = np.random.default_rng(seed)
    closed = np.zeros(frames, np.float32)
    at = int(chance.integers(_SOONEST, _LATEST))
    while at + len(_BLINK) < frames:
        closed[at : at + len(_BLINK)] = _BLINK
        at += len(_BLINK) + int(chance.integers(_SOONEST, _LATEST))
    return closed


def latents(pieces: int, size: int, seed: int) -> Floats:
    """Standard normal numbers (pieces, size); a longer clip begins with those of a shorter one."""
    return np.random.default_rng((seed, 1)).standard_normal((pieces, size), dtype=np.float32)


def pieces(windows: Floats, length: int) -> Floats:
    """Windows (frames, 80, 16), at least one, in pieces of ``length`` frames.

    What is left over after whole pieces is heard with the frames before it, as one more piece of the last ``length``;
    a sound shorter than a piece is filled up by its last window.

    Returns:
        (pieces, length, 80, 16).
    """
    short = max(0, length - len(windows))
    filled = np.concatenate((windows, np.repeat(windows[-1:], short, axis=0)))
    starts = [start * length for start in range(len(filled) // length)]
    if len(filled) % length:
        starts.append(len(filled) - length)
    return np.stack([filled[start : start + length] for start in starts])


def joined(motion: Floats, frames: int) -> Floats:
    """The motion of ``frames`` frames from what came of :func:`pieces`, (frames, values)."""
    length = motion.shape[1]
    whole = min(frames // length, len(motion))
    left = frames - whole * length
    if frames < length:
        return motion[0, :frames]
    return np.concatenate((motion[:whole].reshape(whole * length, -1), motion[-1, length - left :]))


def smoothed(track: Floats) -> Floats:
    """A track (frames, values) after a Savitzky-Golay filter of degree 2 over 13 frames, fewer in a short clip.

    At both ends the polynomial of the outermost frames goes on (Savitzky, Golay: Analytical Chemistry 36, 1964).
    """
    width = min(SMOOTHED_FRAMES, (len(track) - 1) // 2 * 2 + 1)
    if width <= _DEGREE:
        return track
    half = width // 2
    powers = np.vander(np.arange(-half, half + 1), _DEGREE + 1, increasing=True).astype(np.float64)
    fit = powers @ np.linalg.pinv(powers)
    around = np.lib.stride_tricks.sliding_window_view(track, width, axis=0)
    middle = around @ fit[half]
    return np.concatenate((fit[:half] @ track[:width], middle, fit[half + 1 :] @ track[-width:])).astype(np.float32)
