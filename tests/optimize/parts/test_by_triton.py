"""A published part that its model's card gives to Triton: from the export to the engine, by a real tritonserver."""

import asyncio
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from optimize.parts.run import optimize_parts
from optimize.parts.samples import Samples
from optimize.parts.work import Asked
from serving.artifacts.store import ArtifactStore
from serving.backends.base import EngineContext
from serving.backends.call import Call
from serving.backends.ray.engines import load_engine
from serving.backends.ray.tiny.build import tiny_model_folder
from serving.backends.triton.install import default_folder, find_tritonserver, install
from serving.backends.triton.server import TritonServer
from serving.errors import BadInput
from serving.protocol.tasks import FaceMotionRequest
from serving.repository.load import load_repository
from serving.repository.served import load_served
from serving.settings import InferenceSettings, Settings
from serving.weights.cache import WeightsCache

MODELS = Path(__file__).parents[3] / "model_repository"
MODEL, PART = "face_motion", "audio2exp"


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Exports of these tests are kept apart from the user's."""
    folder = tmp_path_factory.mktemp("home")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("optimize.parts.gates.CASE_SECONDS", 0.05)
        patch.setattr("optimize.parts.fingerprint.exports_folder", lambda: folder / "exports")
        yield folder


@pytest.fixture(scope="module")
def repository(home: Path) -> Path:
    """The model with its part in two versions."""
    folder = home / "models"
    tiny_model_folder(load_repository([MODELS]).get(MODEL), folder)
    weights = WeightsCache.of(Settings(home=home))
    (outcome,) = optimize_parts(load_repository([folder]).get(MODEL), Asked([PART]), weights)
    assert outcome.status == "published", outcome.error
    shutil.copytree(outcome.folder, outcome.folder.with_name("2"))
    return folder


def choose(repository: Path, **chosen: object) -> None:
    card = repository / MODEL / "model.yaml"
    optimized = {PART: {"model": f"{MODEL}_{PART}", **chosen}} if chosen else {}
    card.write_text(yaml.safe_dump({**yaml.safe_load(card.read_text()), "optimized": optimized}))


def settings(repository: Path, home: Path, **inference: Any) -> Settings:
    asked = InferenceSettings(optional_models=[MODEL], **inference)
    return Settings(home=home, model_repositories=[repository], inference=asked).resolved()


async def motion(repository: Path, scratch: Path, triton: TritonServer | None, home: Path) -> np.ndarray:
    """Coefficients of a face by the model as its card says."""
    store = ArtifactStore(f"file://{scratch}/store", scratch / "cache")
    weights = WeightsCache.of(Settings(home=home))

    def find(model: str, version: int) -> str:
        assert (model, version) == (f"{MODEL}_{PART}", 1)
        assert triton is not None
        assert triton.ports is not None
        return f"127.0.0.1:{triton.ports.grpc}"

    context = EngineContext(store, scratch, threads=2, weights=weights, triton=find if triton else None)
    model = load_served(settings(repository, home)).get(MODEL)
    engine: Any = await asyncio.to_thread(load_engine, model, context)
    try:
        audio = await Samples(model.card, store).sound(1.0, seed=3)
        result = await engine.run(FaceMotionRequest(audio=audio, pose_style=3, seed=5), Call())
        assert [part.calls for part in engine.swapped.values()] == ([1] if triton else [])
        return np.load(await store.local_path(result.coefficients))
    finally:
        await engine.close()


async def test_triton_runs_the_version_that_was_rolled_back_to_and_the_result_is_torchs(
    repository: Path, home: Path, tmp_path: Path
) -> None:
    choose(repository)
    expected = await motion(repository, tmp_path, None, home)
    choose(repository, version=1, runtime="triton")
    served = load_served(settings(repository, home))
    (part,) = served.triton()
    assert (part.name, part.versions) == (f"{MODEL}_{PART}", (1, 2))
    install(default_folder())
    triton = TritonServer(find_tritonserver(Settings()), [part], tmp_path)
    await triton.start()
    try:
        ready = [(state.name, state.version) for state in await triton.index() if state.state == "READY"]
        assert ready == [(f"{MODEL}_{PART}", "1")]
        found = await motion(repository, tmp_path, triton, home)
    finally:
        await triton.stop()
    assert np.abs(expected).max() > 1
    np.testing.assert_allclose(found, expected, atol=1e-4 * np.abs(expected).max(), rtol=0)


async def test_in_a_mesh_without_triton_the_model_is_refused_with_the_way_out(
    repository: Path, home: Path, tmp_path: Path
) -> None:
    choose(repository, version=1, runtime="triton")
    assert list(load_served(settings(repository, home, triton="off")).models) == [MODEL]
    with pytest.raises(BadInput, match=r"optimized.audio2exp.runtime: there is no Triton in this mesh to run it: use"):
        await motion(repository, tmp_path, None, home)
