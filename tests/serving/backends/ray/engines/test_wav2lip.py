"""Wav2Lip's engine on a checkpoint of the published layout: a portrait and a voice become a clip."""

import io
import json
from collections.abc import AsyncIterator
from pathlib import Path

import av
import numpy as np
import pytest
import soundfile

from serving.backends.base import Engine, EngineContext, StartsCold
from serving.backends.call import Call
from serving.errors import BadInput, Cancelled
from serving.protocol.artifact import ArtifactRef
from serving.protocol.tasks import LipSyncRequest, VideoResult
from tests.servers.tiny import context_in, tiny_engine

HERE = Path(__file__).parent
PORTRAIT = HERE.parents[4] / "examples/podcast/portraits/asha.png"
POINTS = json.loads((HERE / "lipsync/asha_points.json").read_text(encoding="utf-8"))
RATE = 16_000


@pytest.fixture
def context(tmp_path: Path) -> EngineContext:
    return context_in(tmp_path, threads=1)


@pytest.fixture
async def engine(context: EngineContext) -> AsyncIterator[Engine]:
    loaded = tiny_engine("wav2lip", context, options={"frames_at_once": 4})
    yield loaded
    await loaded.close()


def voice(seconds: float) -> bytes:
    stream = io.BytesIO()
    sweep = np.sin(2 * np.pi * np.cumsum(np.linspace(100, 3000, int(seconds * RATE))) / RATE)
    soundfile.write(stream, 0.4 * sweep, RATE, format="WAV", subtype="FLOAT")
    return stream.getvalue()


async def request(context: EngineContext, sound: bytes, **changes: object) -> LipSyncRequest:
    portrait = await context.artifacts.put_file(PORTRAIT, media_type="image/png")
    audio = await context.artifacts.put_bytes(sound, media_type="audio/wav", name="voice.wav")
    fields = {"portrait": portrait, "points": POINTS, "audio": audio, "duration_s": 0.4, "width": 160, "height": 180}
    return LipSyncRequest.model_validate(fields | changes)


async def pictures(context: EngineContext, ref: ArtifactRef) -> np.ndarray:
    with av.open(str(await context.artifacts.local_path(ref))) as medium:
        return np.stack([frame.to_ndarray(format="rgb24") for frame in medium.decode(video=0)])


async def test_a_portrait_and_a_voice_become_a_clip_whose_lower_face_alone_moves(
    engine: Engine, context: EngineContext
) -> None:
    result = await engine.run(await request(context, voice(0.4)), Call())
    assert isinstance(result, VideoResult)
    assert (result.frames, result.fps) == (10, 25)
    frames = await pictures(context, result.video)
    assert frames.shape == (10, 180, 160, 3)
    moves = frames.astype(int).std(axis=0).max(axis=2)
    assert moves[:60].max() < 8, "above the mouth only the encoder changes pixels"
    assert moves[60:].max() > 8
    assert result.made is not None
    assert (result.made.model, result.made.steps, result.made.device) == ("wav2lip", 3, "cpu")


async def test_equal_requests_give_equal_bytes(engine: Engine, context: EngineContext) -> None:
    asked = await request(context, voice(0.4), duration_s=0.2)
    first, again = [await engine.run(asked, Call()) for _ in range(2)]
    assert isinstance(first, VideoResult)
    assert isinstance(again, VideoResult)
    assert first.video.sha256 == again.video.sha256


async def test_a_voice_shorter_than_the_clip_is_followed_by_silence(engine: Engine, context: EngineContext) -> None:
    result = await engine.run(await request(context, voice(0.1), duration_s=0.28), Call())
    assert isinstance(result, VideoResult)
    assert result.frames == 7


async def test_progress_comes_by_passes_and_a_cancel_takes_effect_after_one(
    engine: Engine, context: EngineContext
) -> None:
    told: list[float] = []
    call = Call(on_progress=told.append)
    await engine.run(await request(context, voice(0.4)), call)
    assert told == pytest.approx([1 / 3, 2 / 3, 1])

    stopped = Call()
    told.clear()

    def stop(done: float) -> None:
        told.append(done)
        stopped.cancel()

    stopped.on_progress = stop
    with pytest.raises(Cancelled):
        await engine.run(await request(context, voice(0.4)), stopped)
    assert told == pytest.approx([1 / 3])
    await engine.close()
    assert list(context.scratch.iterdir()) == []


@pytest.mark.parametrize(
    ("sound", "changes", "field", "problem"),
    [
        (None, {"audio": None}, "audio", "listens to the voice"),
        (b"no sound", {}, None, "no audio can be read"),
        (None, {"duration_s": 0.01}, "duration_s", "holds no frame"),
        (None, {"width": 32, "height": 32}, "height", "the face is only"),
        (None, {"points": [(0.0, 0.0)] * 468}, "points", "upright face"),
    ],
    ids=["no voice", "not a sound", "no frame", "face too small", "no face"],
)
async def test_what_cannot_be_done_is_refused_with_its_field(
    engine: Engine, context: EngineContext, sound: bytes | None, changes: dict, field: str | None, problem: str
) -> None:
    asked = await request(context, sound or voice(0.2), **changes)
    with pytest.raises(BadInput, match=problem) as refused:
        await engine.run(asked, Call())
    assert refused.value.field == field


async def test_the_warm_up_runs_the_network_and_leaves_nothing_behind(engine: Engine, context: EngineContext) -> None:
    assert isinstance(engine, StartsCold)
    await engine.warm_up()
    assert engine.cold_start.warm_up_s is not None
    await engine.close()
    assert list(context.scratch.iterdir()) == []


async def test_it_runs_in_bfloat16_too(context: EngineContext) -> None:
    loaded = tiny_engine("wav2lip", context, precision="bf16", options={"frames_at_once": 1})
    result = await loaded.run(await request(context, voice(0.1), duration_s=0.04), Call())
    await loaded.close()
    assert result.made is not None
    assert result.made.precision == "bf16"
