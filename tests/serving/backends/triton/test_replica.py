"""The replica with the project's own models, as Ray Serve holds it."""

import asyncio
import io
import os
import signal
from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import numpy as np
import pytest
import pytest_asyncio
import soundfile
from PIL import Image, ImageOps

from serving.artifacts.store import ArtifactStore
from serving.backends.call import Call
from serving.backends.ray.engines.espeak_pool import EspeakPool, Utterance
from serving.backends.triton.install import TritonInstall
from serving.backends.triton.replica import TritonReplica
from serving.errors import BadInput, NotFound, TooLarge, Unavailable, Unsupported
from serving.protocol.artifact import ArtifactRef
from serving.protocol.tasks import (
    AudioFeaturesRequest,
    AudioFeaturesResult,
    FaceLandmarksRequest,
    FaceLandmarksResult,
    VoiceActivityRequest,
    VoiceActivityResult,
)
from serving.settings import Settings

from .edge import Edge

pytestmark = [
    pytest.mark.asyncio(loop_scope="session"),
]
ROOT = Path(__file__).resolve().parents[4]
PORTRAITS = ROOT / "examples/podcast/portraits"
RATE_HZ = 16_000


async def start(settings: Settings, models: list[str], edge: Edge | None = None) -> TritonReplica:
    replica = TritonReplica.__new__(TritonReplica)
    await replica.__init__(settings, models, edge)  # type: ignore[misc]  # as Serve does
    return replica


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def replica(triton: TritonInstall, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[TritonReplica]:
    current = os.environ.pop("PYTEST_CURRENT_TEST", None)  # it outlives the first test, so it is not that test's
    home = tmp_path_factory.mktemp("replica")
    shared = await start(Settings(home=home, model_repositories=[ROOT / "model_repository"]).resolved(), [])
    if current is not None:
        os.environ["PYTEST_CURRENT_TEST"] = current
    yield shared
    await shared.close()


@pytest.fixture
def store(replica: TritonReplica) -> ArtifactStore:
    return replica.artifacts


async def put_wav(store: ArtifactStore, samples: np.ndarray, rate_hz: int = RATE_HZ) -> ArtifactRef:
    file = io.BytesIO()
    soundfile.write(file, samples, rate_hz, format="WAV", subtype="PCM_16")
    return await store.put_bytes(file.getvalue(), media_type="audio/wav", name="test.wav")


async def put_picture(
    store: ArtifactStore, picture: Image.Image, name: str = "test.png", **options: object
) -> ArtifactRef:
    file = io.BytesIO()
    picture.save(file, "JPEG" if name.endswith("jpg") else "PNG", **options)  # type: ignore[arg-type]
    return await store.put_bytes(file.getvalue(), media_type="image/png", name=name)


@pytest.fixture(scope="module")
def spoken() -> tuple[np.ndarray, int]:
    """A sentence by espeak-ng, float32, and its rate."""

    async def speak() -> tuple[np.ndarray, int]:
        pool = EspeakPool(1)
        try:
            said = await pool.speak(Utterance("The quick brown fox jumps over the lazy dog.", "en+f3"))
            return said.pcm.astype(np.float32) / 32768, said.rate_hz
        finally:
            await pool.close()

    return asyncio.run(speak())


async def test_speech_is_found_where_it_is(
    replica: TritonReplica, store: ArtifactStore, spoken: tuple[np.ndarray, int]
) -> None:
    voice, rate_hz = spoken
    loud = np.flatnonzero(np.abs(voice) > 0.02)
    voice = voice[loud[0] : loud[-1]]
    length_s = len(voice) / rate_hz
    hiss = np.random.default_rng(1).normal(0, 0.001, 2 * rate_hz).astype(np.float32)
    audio = await put_wav(store, np.concatenate([hiss, voice, hiss, voice, hiss]), rate_hz)
    result = await replica.run("voice_activity", VoiceActivityRequest(audio=audio, padding_s=0), Call())
    assert isinstance(result, VoiceActivityResult)
    assert result.duration_s == pytest.approx(6 + 2 * length_s, abs=0.01)
    expected = [(2.0, 2.0 + length_s), (4.0 + length_s, 4.0 + 2 * length_s)]
    assert [(span.start_s, span.end_s) for span in result.spans] == [
        (pytest.approx(start, abs=0.15), pytest.approx(end, abs=0.15)) for start, end in expected
    ]


async def test_silence_has_no_speech(replica: TritonReplica, store: ArtifactStore) -> None:
    audio = await put_wav(store, np.zeros(RATE_HZ))
    result = await replica.run("voice_activity", VoiceActivityRequest(audio=audio), Call())
    assert result == VoiceActivityResult(spans=[], duration_s=1.0)


async def test_the_answer_does_not_depend_on_how_the_audio_is_cut(
    replica: TritonReplica, store: ArtifactStore, spoken: tuple[np.ndarray, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    request = VoiceActivityRequest(audio=await put_wav(store, *spoken), padding_s=0)
    whole = await replica.run("voice_activity", request, Call())
    monkeypatch.setattr("serving.backends.triton.adapters.voice_activity.WINDOWS_PER_CALL", 7)
    assert await replica.run("voice_activity", request, Call()) == whole


async def test_features_have_a_hundred_frames_a_second(
    replica: TritonReplica, store: ArtifactStore, spoken: tuple[np.ndarray, int]
) -> None:
    audio = await put_wav(store, spoken[0], spoken[1])
    result = await replica.run("log_mel", AudioFeaturesRequest(audio=audio), Call())
    assert isinstance(result, AudioFeaturesResult)
    features = np.load(io.BytesIO(await store.get_bytes(result.features)))
    assert features.shape == (result.frames, 80) and features.dtype == np.float32
    assert result.frames * result.hop_s == pytest.approx(len(spoken[0]) / spoken[1], abs=0.02)
    assert np.isfinite(features).all() and features.std() > 0.1


async def test_audio_out_of_bounds_is_refused_with_the_bound(
    replica: TritonReplica, store: ArtifactStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    short = await put_wav(store, np.zeros(200))
    with pytest.raises(BadInput, match=r"send at least 0\.013 s"):
        await replica.run("log_mel", AudioFeaturesRequest(audio=short), Call())
    monkeypatch.setattr("serving.backends.triton.adapters.audio_features.LONGEST_S", 0.5)
    long = await put_wav(store, np.zeros(RATE_HZ))
    with pytest.raises(TooLarge, match=r"longer than 0\.5 s"):
        await replica.run("log_mel", AudioFeaturesRequest(audio=long), Call())


@pytest.mark.parametrize("model", ["voice_activity", "log_mel"])
async def test_what_is_no_audio_is_refused(replica: TritonReplica, store: ArtifactStore, model: str) -> None:
    text = await store.put_bytes(b"hello " * 1000, media_type="audio/wav", name="not.wav")
    request = {"voice_activity": VoiceActivityRequest, "log_mel": AudioFeaturesRequest}[model](audio=text)
    with pytest.raises(BadInput, match="no audio can be read"):
        await replica.run(model, request, Call())


async def landmarks(replica: TritonReplica, image: ArtifactRef) -> FaceLandmarksResult:
    result = await replica.run("face_landmarks", FaceLandmarksRequest(image=image), Call())
    assert isinstance(result, FaceLandmarksResult)
    return result


EYES_AND_MOUTH = [33, 263, 13, 14, 61, 291, 1]


@pytest.fixture(scope="module")
def portrait() -> Image.Image:
    return Image.open(PORTRAITS / "asha.png").convert("RGB")


@pytest.mark.parametrize("name", ["asha.png", "ravi.png"])
async def test_the_example_portraits_have_faces_the_right_way_up(
    replica: TritonReplica, store: ArtifactStore, name: str
) -> None:
    result = await landmarks(replica, await store.put_file(PORTRAITS / name, media_type="image/png"))
    points = np.array(result.points)
    right_eye, left_eye, upper_lip, lower_lip = points[[33, 263, 13, 14]]
    assert right_eye[0] < left_eye[0] and abs(right_eye[1] - left_eye[1]) < 0.02 * result.height
    assert right_eye[1] < upper_lip[1] <= lower_lip[1] + 2
    assert result.score > 0.8
    assert (points > 0).all() and (points < [result.width, result.height]).all()


@pytest.mark.parametrize("degrees", [-35, 20])
async def test_a_tilted_head_has_its_points_where_they_belong(
    replica: TritonReplica, store: ArtifactStore, portrait: Image.Image, degrees: float
) -> None:
    straight = np.array((await landmarks(replica, await put_picture(store, portrait))).points)
    centre = np.array(portrait.size) / 2
    turned = portrait.rotate(degrees, Image.Resampling.BILINEAR, fillcolor=(200, 180, 170))
    result = await landmarks(replica, await put_picture(store, turned))
    angle = np.deg2rad(-degrees)
    turn = np.array([[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]])
    expected = (straight - centre) @ turn + centre
    error = np.linalg.norm(np.array(result.points) - expected, axis=1)[EYES_AND_MOUTH]
    assert error.max() < 0.02 * portrait.height


async def test_a_small_face_is_found_in_a_large_picture(
    replica: TritonReplica, store: ArtifactStore, portrait: Image.Image
) -> None:
    small = portrait.resize((384, 432))
    scene = Image.new("RGB", (1920, 1080), (120, 140, 160))
    scene.paste(small, (1400, 600))
    result = await landmarks(replica, await put_picture(store, scene))
    straight = np.array((await landmarks(replica, await put_picture(store, portrait))).points) * 0.4 + [1400, 600]
    error = np.linalg.norm(np.array(result.points) - straight, axis=1)[EYES_AND_MOUTH]
    assert error.max() < 6


async def test_a_photo_that_lies_on_its_side_is_read_as_it_is_shown(
    replica: TritonReplica, store: ArtifactStore, portrait: Image.Image
) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # turn right to show
    stored = portrait.transpose(Image.Transpose.ROTATE_90)
    ref = await put_picture(store, stored, "phone.jpg", exif=exif, quality=95)
    result = await landmarks(replica, ref)
    shown = ImageOps.exif_transpose(Image.open(await store.local_path(ref)))
    assert (result.width, result.height) == shown.size == portrait.size
    assert result.points[33][1] < result.points[13][1]


@pytest.mark.parametrize(
    ("size", "says"),
    [((640, 480), "no face was found in 'test.png'"), ((100, 100), "100x100 pixels"), ((9000, 130), "9000x130")],
    ids=["no face", "too small", "too large"],
)
async def test_a_picture_that_cannot_be_used_says_why_and_what_to_do(
    replica: TritonReplica, store: ArtifactStore, size: tuple[int, int], says: str
) -> None:
    picture = await put_picture(store, Image.new("RGB", size, (90, 120, 90)))
    with pytest.raises(BadInput, match=says) as caught:
        await landmarks(replica, picture)
    assert caught.value.field == "image" and caught.value.fix


async def test_what_is_no_picture_is_refused(replica: TritonReplica, store: ArtifactStore) -> None:
    text = await store.put_bytes(b"hello", media_type="image/png", name="face.png")
    with pytest.raises(BadInput, match=r"'face\.png' is not a picture"):
        await landmarks(replica, text)


async def test_models_out_of_its_share_and_models_without_a_task_are_refused(replica: TritonReplica) -> None:
    request = VoiceActivityRequest(audio=ArtifactRef(sha256="0" * 64, size_bytes=1))
    with pytest.raises(NotFound):
        await replica.run("speech", request, Call())
    with pytest.raises(Unsupported, match="OIP"):
        await replica.run("face_detection", request, Call())


async def test_an_artifact_that_is_gone_is_named(replica: TritonReplica) -> None:
    request = VoiceActivityRequest(audio=ArtifactRef(sha256="0" * 64, size_bytes=1, name="voice.wav"))
    with pytest.raises(NotFound, match=r"voice\.wav"):
        await replica.run("voice_activity", request, Call())


async def test_metrics_of_triton_and_of_the_replica_come_from_one_address(
    replica: TritonReplica, store: ArtifactStore
) -> None:
    await replica.run("voice_activity", VoiceActivityRequest(audio=await put_wav(store, np.zeros(512))), Call())
    async with httpx.AsyncClient() as client:
        text = (await client.get(replica.metrics_url)).text
        refused = await client.post(replica.metrics_url)
    assert 'nv_inference_count{model="voice_activity"' in text
    assert 'reelmesh_requests_total{model="voice_activity",outcome="ok",protocol="task"}' in text
    assert refused.status_code == 405
    assert await replica.record_autoscaling_stats() == {"ongoing": 0.0, "queued": 0.0}


async def test_the_edge_hears_where_triton_listens_and_when_it_does_not(
    triton: TritonInstall, settings: Settings
) -> None:
    edge = Edge()
    replica = await start(settings, ["voice_activity"], edge)
    try:
        async with asyncio.timeout(20):
            while not edge.beats:  # noqa: ASYNC110 - the replica's own task sends them
                await asyncio.sleep(0.02)
            first = edge.beats[0].endpoints
            process = replica.server._process
            assert process is not None and [endpoint.model for endpoint in first] == ["voice_activity"]
            os.kill(process._child.pid, signal.SIGKILL)
            while edge.beats[-1].endpoints == first:  # noqa: ASYNC110
                await asyncio.sleep(0.01)
            assert edge.beats[-1].endpoints == []
            await replica.check_health()
            while not edge.beats[-1].endpoints:  # noqa: ASYNC110
                await asyncio.sleep(0.02)
        assert edge.beats[-1].endpoints != first
        assert len({beat.replica_id for beat in edge.beats}) == 1
    finally:
        await replica.close()
    assert edge.beats[-1].endpoints == []


async def test_a_full_replica_says_so(replica: TritonReplica, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(replica._places, "taken", replica._places.most)
    request = VoiceActivityRequest(audio=ArtifactRef(sha256="0" * 64, size_bytes=1))
    with pytest.raises(Unavailable, match="holds 64 requests"):
        await replica.run("voice_activity", request, Call())
