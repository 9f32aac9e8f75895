import numpy as np
import pytest

from serving.backends.ray.engines.lipsync.arrays import Floats
from serving.backends.ray.engines.lipsync.colour import OFFSET, from_rgb, paint
from serving.backends.ray.engines.lipsync.face import Face
from serving.backends.ray.engines.lipsync.inverse import inverse
from serving.backends.ray.engines.lipsync.motion import Motion
from serving.backends.ray.engines.lipsync.mouth import Mouth
from serving.backends.ray.engines.lipsync.puppet import Puppet
from serving.backends.ray.engines.lipsync.visemes import REST, TABLE


def still(**parts: float) -> Motion:
    zero = np.zeros(1, np.float32)
    return Motion(*[zero] * len(Motion._fields))._replace(**{name: zero + value for name, value in parts.items()})


def shape(symbol: str) -> Floats:
    return np.array([REST[:-1] if symbol == "rest" else TABLE[symbol][:-1]], np.float32)


def dark_rows(puppet: Puppet, symbol: str) -> int:
    """Pixels of the canvas column through the middle of the mouth that are much darker than its lips: the opening."""
    region = puppet.mouth.draw(shape(symbol)[0], 0.0)
    middle = region[:, region.shape[1] // 2, 0].astype(int)
    closed = puppet.mouth.draw(shape("rest")[0], 0.0)[:, region.shape[1] // 2, 0].astype(int)
    return int((middle < closed.min() - 4).sum())


@pytest.mark.parametrize("symbol", ["m", "b", "p"])
def test_lips_touch_on_m_b_p(puppet: Puppet, symbol: str) -> None:
    assert puppet.mouth.opening_px(shape(symbol)[0]) < 0.01 * puppet.mouth.unit


def test_the_mouth_opens_wide_on_a_and_shows_its_dark_inside(puppet: Puppet) -> None:
    assert puppet.mouth.opening_px(shape("a")[0]) > 0.45 * puppet.mouth.unit
    assert dark_rows(puppet, "a") > 0.1 * puppet.mouth.unit
    assert dark_rows(puppet, "m") == 0


def test_openings_are_ordered_as_in_speech(puppet: Puppet) -> None:
    openings = [puppet.mouth.opening_px(shape(symbol)[0]) for symbol in ("m", "f", "i", "ɛ", "a")]
    assert openings == sorted(openings)


def test_a_face_at_rest_is_the_portrait_pixel_by_pixel(face: Face, puppet: Puppet) -> None:
    canvas = from_rgb(face.canvas)
    drawn = [(puppet.mouth.region, puppet.mouth.draw(shape("rest")[0], 0.0))]
    drawn += [(eye.region, eye.draw(0.0, 0.0, 0.0)) for eye in puppet.eyes]
    for (x0, y0, x1, y1), picture in drawn:
        assert np.abs(picture.astype(int) - canvas[y0:y1, x0:x1]).max() <= 1


@pytest.mark.parametrize("symbol", ["a", "ɔ", "u", "i", "m", "f"])
def test_the_warp_fades_out_before_the_regions_border(face: Face, puppet: Puppet, symbol: str) -> None:
    canvas = from_rgb(face.canvas)
    x0, y0, x1, y1 = puppet.mouth.region
    change = np.abs(puppet.mouth.draw(shape(symbol)[0], 1.0).astype(int) - canvas[y0:y1, x0:x1]).max(axis=2)
    assert max(change[0].max(), change[-1].max(), change[:, 0].max(), change[:, -1].max()) <= 2


def test_shut_eyes_hide_the_white(puppet: Puppet) -> None:
    for eye in puppet.eyes:
        bright_open, bright_shut = (int((eye.draw(b, 0.0, 0.0)[:, :, 0] > 205).sum()) for b in (0.0, 1.0))
        assert bright_open > 80
        assert bright_shut < 0.12 * bright_open


def test_a_glance_moves_the_iris(puppet: Puppet) -> None:
    for eye in puppet.eyes:
        left, right = (eye.draw(0.0, g, 0.0)[:, :, 0] < 60 for g in (-1.0, 1.0))
        columns = np.arange(left.shape[1])
        assert (columns * right).sum() / right.sum() > (columns * left).sum() / left.sum() + 1


def test_frames_are_yuv420p_and_do_not_depend_on_the_frame_before(puppet: Puppet) -> None:
    first = puppet.frame(0, shape("a"), still(yaw=2.0, blink=0.5))
    puppet.frame(0, shape("u"), still(roll=-2.0, smile=1.0))
    assert first.shape == (1080, 640)
    assert first.dtype == np.uint8
    np.testing.assert_array_equal(first, puppet.frame(0, shape("a"), still(yaw=2.0, blink=0.5)))


@pytest.mark.parametrize("part", ["x", "y", "yaw", "pitch", "roll", "brow"])
def test_the_head_moves_while_the_pictures_border_stays(puppet: Puppet, part: str) -> None:
    rest, moved = (puppet.frame(0, shape("rest"), m)[:720].astype(int) for m in (still(), still(**{part: 3.0})))
    change = np.abs(moved - rest)
    assert change[100:500, 150:490].mean() > 0.2
    assert max(change[:4].max(), change[:400, :4].max(), change[:400, -4:].max()) <= 3


def test_an_inverted_field_takes_the_displacement_back() -> None:
    y, x = np.mgrid[0:60, 0:80].astype(np.float32)
    bump = np.exp(-((x - 40) ** 2 + (y - 30) ** 2) / 200)
    forward = np.stack((3 * bump * (y - 30) / 8, 5 * bump)).astype(np.float32)
    back = inverse(forward)
    u, v = x - back[0], y - back[1]
    bump_there = np.exp(-((u - 40) ** 2 + (v - 30) ** 2) / 200)
    assert np.abs(3 * bump_there * (v - 30) / 8 - back[0])[5:-5, 5:-5].max() < 0.15
    assert np.abs(5 * bump_there - back[1])[5:-5, 5:-5].max() < 0.15


def test_colours_follow_bt709() -> None:
    rgb = np.array([[[255, 255, 255], [0, 0, 0], [255, 0, 0]]], np.uint8)
    assert from_rgb(rgb)[0].tolist() == [[235, 128, 128], [16, 128, 128], [63, 102, 240]]
    assert (paint(255, 0, 0) + OFFSET).round().tolist() == [63, 102, 240]


def test_parted_lips_are_closed_on_m(face: Face) -> None:
    points = face.points.copy()
    points[[95, 88, 178, 87, 14, 317, 402, 318, 324], 1] += 0.12 * Mouth(face, from_rgb(face.canvas)).unit
    parted = Mouth(face._replace(points=points), from_rgb(face.canvas))
    assert parted.opening_px(shape("m")[0]) < 0.01 * parted.unit
