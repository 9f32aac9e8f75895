import numpy as np
import pytest

from serving.backends.ray.engines.lipsync.motion import Motion, blinks, move

FPS = 25


def listener(start_s: float, frames: int, seed: int = 3) -> Motion:
    return move(start_s, FPS, seed, np.zeros(frames, np.float32), [])


def test_motion_of_two_clips_is_the_motion_of_one() -> None:
    whole = listener(10.0, 200)
    parts = [listener(10.0, 80), listener(10.0 + 80 / FPS, 120)]
    for name in Motion._fields:
        joined = np.concatenate([getattr(part, name) for part in parts])
        np.testing.assert_allclose(joined, getattr(whole, name), atol=2e-5, err_msg=name)


def test_speech_adds_nothing_at_the_ends_of_a_clip() -> None:
    speaking = np.concatenate(([0.0], np.ones(48), [0.0])).astype(np.float32)
    speaker, still = move(5.0, FPS, 3, speaking, [0.8]), listener(5.0, 50)
    for name in Motion._fields:
        np.testing.assert_allclose(getattr(speaker, name)[[0, -1]], getattr(still, name)[[0, -1]], atol=1e-6)
    assert np.abs(speaker.pitch - still.pitch).max() > 0.5


@pytest.mark.parametrize("seed", [0, 1, 7, 2**32 - 1])
def test_eyes_blink_every_two_to_seven_seconds_and_shut_each_time(seed: int) -> None:
    shut = blinks(np.arange(0, 120, 1 / FPS), seed, FPS)
    starts = np.flatnonzero(np.diff((shut > 0).astype(int)) == 1)
    peaks = [shut[a : a + 10].max() for a in starts[:-1]]
    gaps = np.diff(starts) / FPS
    assert min(peaks) > 0.99
    assert gaps.min() > 1.2
    assert gaps.max() < 7
    assert 2.5 < gaps.mean() < 5


@pytest.mark.parametrize("fps", [10, 24, 60])
def test_a_blink_lasts_about_a_fifth_of_a_second(fps: int) -> None:
    shut = blinks(np.arange(0, 60, 1 / fps), 5, fps)
    blinking = (shut > 0.02).sum() / fps / 16
    assert 0.1 < blinking < 0.4


def test_two_people_do_not_move_in_step() -> None:
    one, other = listener(0.0, 1000, seed=0), listener(0.0, 1000, seed=1)
    assert abs(np.corrcoef(one.yaw, other.yaw)[0, 1]) < 0.6
    assert not ((one.blink > 0.5) & (other.blink > 0.5)).sum() > 20


def test_a_listener_nods_and_smiles() -> None:
    motion = listener(0.0, 3000)
    assert motion.smile.min() >= 0
    assert motion.smile.mean() > 0.2
    fast = np.abs(np.diff(motion.pitch)) > 0.25
    assert 10 < fast.sum() < 1500
