"""The First Order Motion Model's engine on a checkpoint of the published layout: a picture moves as a clip does."""

import io
from collections.abc import AsyncIterator
from pathlib import Path

import av
import numpy as np
import pytest
from PIL import Image

from serving.backends.base import Engine, EngineContext, StartsCold
from serving.backends.call import Call
from serving.errors import BadInput, Cancelled, TooLarge
from serving.media.ffmpeg import VideoWriter
from serving.protocol.tasks import FaceAnimationRequest, VideoResult
from tests.servers.tiny import context_in, tiny_engine

OPTIONS = {"frames_at_once": 2, "driving_frames": 8}


@pytest.fixture
def context(tmp_path: Path) -> EngineContext:
    return context_in(tmp_path, threads=1)


@pytest.fixture
async def engine(context: EngineContext) -> AsyncIterator[Engine]:
    loaded = tiny_engine("face_animation", context, options=OPTIONS)
    yield loaded
    await loaded.close()


def blob(frame: int) -> np.ndarray:
    """A bright spot on a gradient that moves to the right."""
    y, x = np.mgrid[:128, :160]
    spot = 160 * np.exp(-((x - 40 - 8 * frame) ** 2 + (y - 64) ** 2) / 300)
    return np.stack((spot + x / 4, spot, spot + y / 4), axis=2).astype(np.uint8)


async def request(context: EngineContext, folder: Path, frames: int, **changes: object) -> FaceAnimationRequest:
    stream = io.BytesIO()
    Image.fromarray(blob(0)).save(stream, "PNG")
    source = await context.artifacts.put_bytes(stream.getvalue(), media_type="image/png", name="face.png")
    clip = folder / f"driving{frames}.mp4"
    with VideoWriter(clip, 160, 128, 25, pixel_format="rgb24") as video:
        for number in range(frames):
            video.write(blob(number))
    driving = await context.artifacts.put_file(clip, media_type="video/mp4")
    fields = {"source": source, "driving": driving, "width": 128, "height": 128}
    return FaceAnimationRequest.model_validate(fields | changes)


async def test_a_picture_moves_for_as_long_as_the_clip(engine: Engine, context: EngineContext, tmp_path: Path) -> None:
    told: list[float] = []
    result = await engine.run(await request(context, tmp_path, 3), Call(on_progress=told.append))
    assert isinstance(result, VideoResult)
    assert (result.frames, result.fps) == (3, 25)
    assert told == pytest.approx([0.5, 1])
    with av.open(str(await context.artifacts.local_path(result.video))) as medium:
        frames = np.stack([frame.to_ndarray(format="rgb24") for frame in medium.decode(video=0)]).astype(int)
    assert frames.shape == (3, 128, 128, 3)
    assert np.abs(frames[2] - frames[0]).max() > 4


async def test_equal_requests_give_equal_bytes_and_absolute_motion_others(
    engine: Engine, context: EngineContext, tmp_path: Path
) -> None:
    asked = await request(context, tmp_path, 2)
    results = [await engine.run(one, Call()) for one in (asked, asked, asked.model_copy(update={"relative": False}))]
    digests = [result.video.sha256 for result in results if isinstance(result, VideoResult)]
    assert len(digests) == 3
    assert digests[0] == digests[1]


async def test_a_cancel_takes_effect_after_one_pass(engine: Engine, context: EngineContext, tmp_path: Path) -> None:
    stopped = Call()
    stopped.on_progress = lambda _: stopped.cancel()
    with pytest.raises(Cancelled):
        await engine.run(await request(context, tmp_path, 6), stopped)
    await engine.close()
    assert list(context.scratch.iterdir()) == []


@pytest.mark.parametrize(
    ("changes", "field", "problem"),
    [
        ({"width": 130}, "width", "multiples of 128"),
        ({}, "driving", "longer than 0.32 s"),
    ],
    ids=["size", "long clip"],
)
async def test_what_cannot_be_done_is_refused_with_its_field(
    engine: Engine, context: EngineContext, tmp_path: Path, changes: dict, field: str, problem: str
) -> None:
    frames = 12 if field == "driving" else 2
    with pytest.raises(BadInput, match=problem) as refused:
        await engine.run(await request(context, tmp_path, frames, **changes), Call())
    assert refused.value.field == field
    assert isinstance(refused.value, TooLarge) == (field == "driving")


async def test_a_picture_is_no_driving_clip_and_a_clip_no_picture(
    engine: Engine, context: EngineContext, tmp_path: Path
) -> None:
    asked = await request(context, tmp_path, 2)
    with pytest.raises(BadInput) as refused:
        await engine.run(asked.model_copy(update={"source": asked.driving}), Call())
    assert refused.value.field == "source"


def test_half_precision_is_refused_before_anything_is_read(context: EngineContext) -> None:
    with pytest.raises(BadInput, match="cannot run bf16"):
        tiny_engine("face_animation", context, precision="bf16")


async def test_the_warm_up_runs_the_network_and_leaves_nothing_behind(engine: Engine, context: EngineContext) -> None:
    assert isinstance(engine, StartsCold)
    await engine.warm_up()
    assert engine.cold_start.warm_up_s is not None
    await engine.close()
    assert list(context.scratch.iterdir()) == []
