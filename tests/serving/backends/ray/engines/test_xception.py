"""Xception's engine on a checkpoint of the published layout: faces of pictures and clips get scores."""

from collections.abc import AsyncIterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from serving.backends.base import Engine, EngineContext, StartsCold
from serving.backends.call import Call
from serving.errors import BadInput, Cancelled
from serving.media.ffmpeg import VideoWriter
from serving.protocol.artifact import ArtifactRef
from serving.protocol.tasks import ManipulationRequest, ManipulationResult
from tests.servers.tiny import context_in, tiny_engine

PORTRAIT = Path(__file__).parents[5] / "examples/podcast/portraits/asha.png"


@pytest.fixture
def context(tmp_path: Path) -> EngineContext:
    return context_in(tmp_path, threads=1)


@pytest.fixture
async def engine(context: EngineContext) -> AsyncIterator[Engine]:
    loaded = tiny_engine("manipulation_detection", context)
    yield loaded
    await loaded.close()


def portrait(side: int) -> np.ndarray:
    with Image.open(PORTRAIT) as picture:
        return np.asarray(picture.convert("RGB").resize((side, side)))


async def clip(context: EngineContext, folder: Path, *, face: bool = True) -> ArtifactRef:
    path = folder / "clip.mp4"
    with VideoWriter(path, 240, 240, 25, pixel_format="rgb24") as video:
        for _ in range(10):
            video.write(portrait(240) if face else np.full((240, 240, 3), 90, np.uint8))
    return await context.artifacts.put_file(path, media_type="video/mp4")


async def test_a_picture_is_scored_and_the_threshold_decides(engine: Engine, context: EngineContext) -> None:
    media = await context.artifacts.put_file(PORTRAIT, media_type="image/png")
    result = await engine.run(ManipulationRequest(media=media), Call())
    assert isinstance(result, ManipulationResult)
    assert len(result.frames) == 1
    assert result.score == pytest.approx(result.frames[0].score)
    with Image.open(PORTRAIT) as picture:
        assert result.frames[0].box[2] > picture.width / 6
    for threshold in (result.score * 0.99, min(0.999, result.score * 1.01)):
        again = await engine.run(ManipulationRequest(media=media, threshold=threshold), Call())
        assert isinstance(again, ManipulationResult)
        assert again.score == result.score
        assert again.passed == (result.score < threshold)


async def test_a_clip_is_looked_at_in_as_many_places_as_asked(
    engine: Engine, context: EngineContext, tmp_path: Path
) -> None:
    told: list[float] = []
    request = ManipulationRequest(media=await clip(context, tmp_path), frames=2)
    result = await engine.run(request, Call(on_progress=told.append))
    assert isinstance(result, ManipulationResult)
    assert [frame.time_s for frame in result.frames] == pytest.approx([0.1, 0.3])
    assert result.score == pytest.approx(np.mean([frame.score for frame in result.frames]))
    assert told == pytest.approx([1 / 3, 2 / 3, 1])


async def test_a_clip_without_faces_never_passes(engine: Engine, context: EngineContext, tmp_path: Path) -> None:
    request = ManipulationRequest(media=await clip(context, tmp_path, face=False), frames=2)
    with pytest.raises(BadInput, match="no face was found in any of the 2 frames"):
        await engine.run(request, Call())


async def test_a_cancel_takes_effect_after_one_frame(engine: Engine, context: EngineContext, tmp_path: Path) -> None:
    stopped = Call()
    stopped.on_progress = lambda _: stopped.cancel()
    with pytest.raises(Cancelled):
        await engine.run(ManipulationRequest(media=await clip(context, tmp_path), frames=8), stopped)


@pytest.mark.parametrize("data", [b"neither", b"\x89PNG\r\n\x1a\nrest"], ids=["neither", "the beginning of a picture"])
async def test_what_is_no_medium_is_refused(engine: Engine, context: EngineContext, data: bytes) -> None:
    media = await context.artifacts.put_bytes(data, media_type="application/octet-stream", name="medium")
    with pytest.raises(BadInput, match="neither a picture nor a clip") as refused:
        await engine.run(ManipulationRequest(media=media), Call())
    assert refused.value.field == "media"


async def test_the_warm_up_runs_the_network_and_leaves_nothing_behind(engine: Engine, context: EngineContext) -> None:
    assert isinstance(engine, StartsCold)
    await engine.warm_up()
    assert engine.cold_start.warm_up_s is not None
    await engine.close()
    assert list(context.scratch.iterdir()) == []
