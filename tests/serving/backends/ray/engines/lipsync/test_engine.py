import asyncio
import io
import time
from collections.abc import AsyncIterator
from pathlib import Path

import av
import numpy as np
import pytest

from serving.artifacts.store import ArtifactStore
from serving.backends.base import EngineContext
from serving.backends.call import Call
from serving.backends.ray.engines import load_engine
from serving.backends.ray.engines.lipsync import LipSyncEngine
from serving.errors import BadInput, Cancelled, TooLarge
from serving.media.ffmpeg import concat_clips
from serving.protocol.artifact import ArtifactRef
from serving.protocol.tasks import LipSyncRequest, Phoneme, SpeechRequest
from serving.repository.load import load_repository
from serving.repository.model import Model

from .conftest import points_of, portrait_of

MODELS = Path(__file__).parents[6] / "model_repository"


@pytest.fixture
def context(tmp_path: Path) -> EngineContext:
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    return EngineContext(artifacts=ArtifactStore(f"file://{tmp_path}/store", tmp_path), scratch=scratch)


@pytest.fixture(scope="session")
def model() -> Model:
    return load_repository([MODELS]).get("lip_sync")


@pytest.fixture
async def engine(model: Model, context: EngineContext) -> AsyncIterator[LipSyncEngine]:
    engine = load_engine(model, context)
    assert isinstance(engine, LipSyncEngine)
    yield engine
    await engine.close()


async def request(context: EngineContext, name: str = "asha", **fields: object) -> LipSyncRequest:
    portrait = await context.artifacts.put_file(portrait_of(name), media_type="image/png")
    given = {"duration_s": 1.0, "width": 320, "height": 360, **fields}
    return LipSyncRequest(portrait=portrait, points=points_of(name).tolist(), **given)


async def stored(context: EngineContext, array: np.ndarray) -> ArtifactRef:
    file = io.BytesIO()
    np.save(file, array)
    return await context.artifacts.put_bytes(file.getvalue(), media_type="application/octet-stream", name="f.npy")


async def shown(context: EngineContext, ref: ArtifactRef) -> np.ndarray:
    path = await context.artifacts.local_path(ref)
    with av.open(str(path)) as video:
        return np.stack([frame.to_ndarray(format="gray") for frame in video.decode(video=0)])


def steps(frames: np.ndarray) -> np.ndarray:
    return np.abs(np.diff(frames.astype(np.int16), axis=0)).mean(axis=(1, 2))


@pytest.mark.parametrize(
    ("duration_s", "fps", "frames"), [(1.0, 25, 25), (0.333, 30, 10), (0.04, 25, 1), (0.5, 24, 12)]
)
async def test_a_clip_has_exactly_the_frames_asked_for(
    engine: LipSyncEngine, context: EngineContext, duration_s: float, fps: int, frames: int
) -> None:
    result = await engine.run(await request(context, duration_s=duration_s, fps=fps), Call())
    assert result.frames == frames == len(await shown(context, result.video))
    assert list(context.scratch.iterdir()) == []


async def test_equal_requests_give_equal_bytes(engine: LipSyncEngine, context: EngineContext) -> None:
    asked = await request(context, phonemes=[Phoneme(symbol="a", start_s=0.2, end_s=0.6)], duration_s=0.8)
    first, again = await engine.run(asked, Call()), await engine.run(asked, Call())
    fresh = LipSyncEngine(load_repository([MODELS]).get("lip_sync"), context)
    assert first.video.sha256 == again.video.sha256 == (await fresh.run(asked, Call())).video.sha256


async def test_a_listener_stays_alive_and_a_speaker_moves_the_mouth(
    engine: LipSyncEngine, context: EngineContext
) -> None:
    listener = await engine.run(await request(context, duration_s=3.0), Call())
    assert (steps(await shown(context, listener.video)) > 0.02).mean() > 0.9
    phonemes = [Phoneme(symbol=s, start_s=0.3 * k, end_s=0.3 * k + 0.3) for k, s in enumerate("mamamamama")]
    speaker = await engine.run(await request(context, duration_s=3.0, phonemes=phonemes), Call())
    quiet, talking = [steps(await shown(context, r.video)).mean() for r in (listener, speaker)]
    assert talking > 1.5 * quiet


async def test_sound_alone_moves_the_mouth(engine: LipSyncEngine, context: EngineContext) -> None:
    features = np.full((300, 80), -0.6, np.float32)
    for at in range(30, 240, 40):
        features[at : at + 25, 3:45] = 0.8
    heard = await request(context, duration_s=3.0, features=await stored(context, features))
    clips = [await engine.run(one, Call()) for one in (heard, await request(context, duration_s=3.0))]
    talking, quiet = [steps(await shown(context, clip.video)).mean() for clip in clips]
    assert talking > 1.3 * quiet


async def test_clips_join_by_copy_without_a_jump(engine: LipSyncEngine, context: EngineContext, tmp_path: Path) -> None:
    spoken = [Phoneme(symbol=s, start_s=0.2 * k, end_s=0.2 * k + 0.2) for k, s in enumerate("masuma")]
    asked = [
        await request(context, start_s=8.0, duration_s=1.2, phonemes=spoken, seed=4),
        await request(context, start_s=9.2, duration_s=1.2, seed=4),
        await request(context, start_s=10.4, duration_s=1.2, phonemes=spoken, seed=4),
    ]
    clips = [await context.artifacts.local_path((await engine.run(one, Call())).video) for one in asked]
    joined = tmp_path / "joined.mp4"
    await concat_clips(clips, joined)
    ref = await context.artifacts.put_file(joined, media_type="video/mp4")
    change = steps(await shown(context, ref))
    assert len(change) == 89
    assert max(change[29], change[59]) <= 1.5 * np.percentile(change, 90)


@pytest.mark.parametrize(
    ("array", "problem"),
    [
        (np.zeros((10, 40), np.float32), "(10, 40)"),
        (np.zeros(80, np.float32), "(80,)"),
        (np.zeros((10, 80), np.int64), "int64"),
        (np.full((10, 80), np.nan, np.float32), "not numbers"),
        (np.array([[None] * 80]), "numpy file"),
    ],
    ids=["bands", "flat", "integers", "nan", "objects"],
)
async def test_wrong_features_are_refused_by_name(
    engine: LipSyncEngine, context: EngineContext, array: np.ndarray, problem: str
) -> None:
    asked = await request(context, features=await stored(context, array))
    with pytest.raises(BadInput) as caught:
        await engine.run(asked, Call())
    assert problem in str(caught.value)
    assert caught.value.field == "features"


async def test_features_that_are_no_file_of_numpy_are_refused(engine: LipSyncEngine, context: EngineContext) -> None:
    text = await context.artifacts.put_bytes(b"hello", media_type="text/plain", name="f.npy")
    with pytest.raises(BadInput, match="numpy file"):
        await engine.run(await request(context, features=text), Call())


async def test_a_portrait_that_is_no_picture_is_refused_and_leaves_nothing(
    engine: LipSyncEngine, context: EngineContext
) -> None:
    text = await context.artifacts.put_bytes(b"hello", media_type="image/png", name="me.png")
    asked = (await request(context)).model_copy(update={"portrait": text})
    with pytest.raises(BadInput) as caught:
        await engine.run(asked, Call())
    assert caught.value.field == "portrait"
    assert list(context.scratch.iterdir()) == []


async def test_too_long_too_short_and_foreign_requests_are_refused(
    engine: LipSyncEngine, context: EngineContext
) -> None:
    with pytest.raises(TooLarge, match="1800"):
        await engine.run(await request(context, duration_s=1801.0), Call())
    with pytest.raises(BadInput, match="no frame"):
        await engine.run(await request(context, duration_s=0.001), Call())
    with pytest.raises(BadInput, match="lip_sync"):
        await engine.run(SpeechRequest(text="hi", voice="x"), Call())


async def test_a_cancelled_call_ends_within_a_second_and_leaves_nothing(
    engine: LipSyncEngine, context: EngineContext
) -> None:
    call = Call()
    task = asyncio.create_task(engine.run(await request(context, duration_s=600.0), call))
    await asyncio.sleep(0.7)
    call.cancel()
    started = time.monotonic()
    with pytest.raises(Cancelled):
        await task
    assert time.monotonic() - started < 1.0
    assert list(context.scratch.iterdir()) == []


async def test_a_cancelled_task_stops_its_thread_before_it_ends(engine: LipSyncEngine, context: EngineContext) -> None:
    task = asyncio.create_task(engine.run(await request(context, duration_s=600.0), Call()))
    await asyncio.sleep(0.7)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert list(context.scratch.iterdir()) == []


async def test_two_people_are_rendered_side_by_side(engine: LipSyncEngine, context: EngineContext) -> None:
    asked = [await request(context, name, duration_s=0.4) for name in ("asha", "ravi", "asha", "ravi")]
    results = await asyncio.gather(*(engine.run(one, Call()) for one in asked))
    assert len({result.video.sha256 for result in results}) == 2
