"""Head, gaze and eyelids over programme time; used by puppet's callers.

The one invariant: what does not depend on speech is a pure function of programme time and seed, and what speech adds is
zero at both ends of a clip, so clips rendered apart join without a jump.
"""

from collections.abc import Sequence
from typing import Final, NamedTuple

import numpy as np

from serving.backends.ray.engines.lipsync.arrays import Floats, smooth

BLINK_EVERY_S: Final = 3.8
"""One blink in each slot of this length, at a random place: gaps of about 2 to 6 s, as people blink."""

BLINK_CLOSE_S: Final = 0.07
BLINK_HOLD_S: Final = 0.03
BLINK_OPEN_S: Final = 0.11
GAZE_EVERY_S: Final = 1.7
CAMERA_SHARE: Final = 0.45
NOD_EVERY_S: Final = 6.5
NOD_S: Final = 0.62
NOD_CHANCE: Final = 0.68


class Motion(NamedTuple):
    """Everything that moves besides the mouth, float32 ``(frames,)`` each.

    ``x`` and ``y`` in hundredths of the face's height, ``roll`` in degrees, ``yaw`` and ``pitch`` in hundredths of the
    face's height that the nose moves against the ears, ``brow`` 0..1, ``breath`` -1..1, ``gaze_x`` and
    ``gaze_y`` -1..1, ``blink`` 0 (open) to 1 (shut), ``smile`` 0..1.
    """

    x: Floats
    y: Floats
    roll: Floats
    yaw: Floats
    pitch: Floats
    brow: Floats
    breath: Floats
    gaze_x: Floats
    gaze_y: Floats
    blink: Floats
    smile: Floats


def move(start_s: float, fps: int, seed: int, speaking: Floats, stress_s: Sequence[float]) -> Motion:
    """Motion in every frame of a clip.

    Args:
        start_s: the clip's place in the programme, in seconds.
        fps: frames a second.
        seed: whose motion it is.
        speaking: float32 ``(frames,)`` in 0..1, see mouth_track.speaking_window.
        stress_s: times of stressed vowels, in seconds from the clip's start.
    """
    clip = np.arange(len(speaking)) / fps
    t = start_s + clip
    beat = _beats(clip, stress_s) * speaking
    listen = 1.0 - speaking
    nod = _nods(t, seed) * listen
    blink = blinks(t, seed, fps)
    values = {
        "x": 2.0 * _drift(t, seed, 1, 7.0) + speaking * 1.3 * _drift(t, seed, 2, 2.3),
        "y": 1.0 * _drift(t, seed, 3, 6.0) + speaking * 0.7 * _drift(t, seed, 4, 1.9) + 1.1 * beat + 1.0 * nod,
        "roll": 1.9 * _drift(t, seed, 5, 8.0) + speaking * 1.7 * _drift(t, seed, 6, 2.7),
        "yaw": 2.3 * _drift(t, seed, 7, 6.5) + speaking * 1.6 * _drift(t, seed, 8, 2.1),
        "pitch": 1.0 * _drift(t, seed, 9, 5.5) + speaking * 0.8 * _drift(t, seed, 10, 1.7) + 1.5 * beat + 2.0 * nod,
        "brow": 0.10 + 0.10 * _drift(t, seed, 11, 5.0) + speaking * 0.25 * _drift(t, seed, 12, 2.5) + 0.5 * beat,
        "breath": np.sin(2 * np.pi * (t / 4.1 + seed % 97 * 0.37)),
        "gaze_x": _glances(t, seed, 13),
        "gaze_y": 0.5 * _glances(t, seed, 14),
        "blink": blink,
        "smile": (0.34 + 0.22 * _drift(t, seed, 15, 9.0)) * (1.0 - 0.75 * speaking),
    }
    return Motion(**{name: np.asarray(value, np.float32) for name, value in values.items()})


def blinks(t: Floats, seed: int, fps: int) -> Floats:
    """How far the eyes are shut at programme times ``t``: 0..1; every blink is fully shut in at least one frame."""
    hold = max(BLINK_HOLD_S, 1.0 / fps)
    shut = np.zeros(len(t))
    t = _shifted(t, BLINK_EVERY_S, seed, 22)
    slots = np.floor(t / BLINK_EVERY_S)
    for near in (-1, 0):
        slot = slots + near
        begin = (slot + 0.08 + 0.62 * _random(slot, seed, 21)) * BLINK_EVERY_S
        since = t - begin
        closing = smooth(since / BLINK_CLOSE_S)
        opening = smooth((since - BLINK_CLOSE_S - hold) / BLINK_OPEN_S)
        shut = np.maximum(shut, np.where(since >= 0, closing - opening, 0.0))
    return np.asarray(shut, np.float32)


def _beats(clip: Floats, stress_s: Sequence[float]) -> Floats:
    """Small dips of the head on stressed vowels: 0..1, a quick fall and a slower return."""
    out = np.zeros(len(clip))
    for time in stress_s:
        since = clip - time + 0.08
        out = np.maximum(out, smooth(since / 0.14) * (1.0 - smooth((since - 0.16) / 0.34)))
    return out


def _nods(t: Floats, seed: int) -> Floats:
    """A listener's nods: two dips a second apart at most, in about two of three slots."""
    t = _shifted(t, NOD_EVERY_S, seed, 33)
    slot = np.floor(t / NOD_EVERY_S)
    since = t - (slot + 0.1 + 0.55 * _random(slot, seed, 31)) * NOD_EVERY_S
    wave = 0.5 - 0.5 * np.cos(2 * np.pi * since / NOD_S)
    inside = (since >= 0) & (since < 2 * NOD_S) & (_random(slot, seed, 32) < NOD_CHANCE)
    fade = np.where(since < NOD_S, 1.0, 0.55)
    return np.where(inside, wave * fade, 0.0)


def _glances(t: Floats, seed: int, channel: int) -> Floats:
    """Eyes rest, then jump: a target for every slot, reached within 60 ms; CAMERA_SHARE of them is the camera."""
    t = _shifted(t, GAZE_EVERY_S, seed, 40)
    slot = np.floor(t / GAZE_EVERY_S)

    def target(k: Floats) -> Floats:
        value = 2.0 * _random(k, seed, channel) - 1.0
        return np.where(np.abs(value) < CAMERA_SHARE, 0.0, value * 0.9)

    turn = smooth((t - slot * GAZE_EVERY_S) / 0.06)
    return target(slot - 1) * (1.0 - turn) + target(slot) * turn


def _shifted(t: Floats, slot_s: float, seed: int, channel: int) -> Floats:
    """Time moved by a part of a slot, so that two people do not act in step."""
    return np.asarray(t + slot_s * _random(np.zeros(1), seed, channel)[0])


def _drift(t: Floats, seed: int, channel: int, period_s: float) -> Floats:
    """Smooth noise in about -1..1: three sines of unrelated periods with seeded phases."""
    phase = _random(np.arange(3.0), seed, 100 + channel) * 2 * np.pi
    waves = [
        weight * np.sin(2 * np.pi * t / (period_s * factor) + p)
        for weight, factor, p in zip((0.55, 0.33, 0.2), (1.0, 0.618, 0.357), phase, strict=True)
    ]
    return np.asarray(sum(waves))


def _random(index: Floats, seed: int, channel: int) -> Floats:
    """A number in 0..1 for every integer index: an integer hash (Wellons' lowbias32), equal on every machine."""
    salt = (seed * 0x85EBCA6B + channel * 0xC2B2AE35) & 0xFFFFFFFF
    x = (index.astype(np.int64) * 0x9E3779B1 + salt).astype(np.uint32)
    x = (x ^ (x >> np.uint32(16))) * np.uint32(0x7FEB352D)
    x = (x ^ (x >> np.uint32(15))) * np.uint32(0x846CA68B)
    return (x ^ (x >> np.uint32(16))).astype(np.float64) / 2.0**32
