"""The moving camera: exact lengths, smooth steps, never a look past the picture's edge."""

import io
import itertools
from typing import Any, get_args

import av
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from serving.backends.call import Call
from serving.backends.ray.engines.ken_burns import stage, yuv_planes
from serving.backends.ray.engines.ken_burns_camera import Motion, View, eased, sampling, view
from serving.errors import BadInput, Cancelled
from serving.protocol.tasks import ImageToVideoRequest

MOTIONS = get_args(Motion)


async def picture(studio: Any, size: tuple[int, int] = (400, 300), mode: str = "RGB") -> Any:
    rows, columns = np.mgrid[0 : size[1], 0 : size[0]]
    pixels = np.stack([columns * 255 // size[0], rows * 255 // size[1], (columns // 20 + rows // 20) % 2 * 200], -1)
    stream = io.BytesIO()
    Image.fromarray(pixels.astype(np.uint8), "RGB").convert(mode).save(stream, "PNG")
    return await studio.store.put_bytes(stream.getvalue(), media_type="image/png", name="picture.png")


def frames(path: Any) -> list[np.ndarray]:
    with av.open(str(path)) as medium:
        return [frame.to_ndarray(format="gray") for frame in medium.decode(video=0)]


@pytest.mark.parametrize("motion", MOTIONS)
async def test_every_motion_moves_and_has_exactly_its_frames(studio: Any, motion: str) -> None:
    request = ImageToVideoRequest.model_validate(
        {"image": await picture(studio), "duration_s": 1.3, "motion": motion, "width": 320, "height": 180}
    )
    result = await studio.engine("image_to_video").run(request, Call())
    seen = frames(await studio.store.local_path(result.video))
    assert result.frames == len(seen) == round(1.3 * 25)
    assert np.abs(seen[0].astype(int) - seen[-1]).mean() > 3
    steps = [np.abs(after.astype(int) - before).mean() for before, after in itertools.pairwise(seen)]
    assert min(steps) > 0
    assert max(steps) < 8


async def test_transparent_and_tall_pictures_fill_the_frame(studio: Any) -> None:
    request = ImageToVideoRequest(
        image=await picture(studio, (200, 600), "RGBA"), duration_s=0.2, width=320, height=180
    )
    result = await studio.engine("image_to_video").run(request, Call())
    assert frames(await studio.store.local_path(result.video))[0].shape == (180, 320)


async def test_a_file_that_is_no_picture_is_bad_input(studio: Any) -> None:
    request = ImageToVideoRequest(image=await studio.text("no", "picture.png"), duration_s=1)
    with pytest.raises(BadInput, match="not a picture"):
        await studio.engine("image_to_video").run(request, Call())


async def test_a_cancelled_call_stops_and_leaves_nothing(studio: Any) -> None:
    call = Call()
    call.cancel()
    with pytest.raises(Cancelled):
        await studio.engine("image_to_video").run(ImageToVideoRequest(image=await picture(studio), duration_s=60), call)
    assert not list(studio.scratch.iterdir())


@given(st.sampled_from(MOTIONS), st.floats(0, 1), st.integers(0, 2**32 - 1))
def test_the_view_never_leaves_the_picture(motion: Motion, progress: float, seed: int) -> None:
    seen = view(motion, progress, seed)
    assert seen.zoom >= 1
    source, target = (1485, 835), (1280, 720)
    matrix = sampling(seen, source, target)
    for axis in (0, 1):
        first = matrix[axis, 2]
        last = matrix[axis, axis] * (target[axis] - 1) + matrix[axis, 2]
        assert first >= -0.51
        assert last <= source[axis] - 0.49


def test_motion_starts_and_ends_softly_without_standing_still() -> None:
    steps = np.diff([eased(at / 100) for at in range(101)])
    assert steps.min() > 0
    assert steps[0] < steps[50]
    assert steps.sum() == pytest.approx(1)


def test_the_whole_picture_maps_to_the_whole_frame() -> None:
    matrix = sampling(View(1.0, 0.5, 0.5), (200, 100), (100, 50))
    assert matrix.tolist() == [[2.0, 0.0, 0.5], [0.0, 2.0, 0.5]]


def test_a_tall_picture_is_shown_whole() -> None:
    tall = np.full((600, 200, 3), 255, np.uint8)
    staged = stage(tall, (320, 180))
    assert staged[5, staged.shape[1] // 2].mean() < 130
    assert staged[staged.shape[0] // 2, staged.shape[1] // 2].mean() == 255


def test_colours_are_those_of_bt709() -> None:
    luma, blue, red = yuv_planes(np.full((4, 4, 3), (0, 0, 255), np.uint8))
    assert (luma[0, 0], blue[0, 0], red[0, 0]) == (63, 102, 240)
    assert (luma.shape, blue.shape) == ((4, 4), (2, 2))
