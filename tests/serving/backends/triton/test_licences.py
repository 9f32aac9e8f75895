"""A replica with a real tritonserver keeps commercial work from its weights, and tells the edge of them."""

import shutil
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from serving.backends.call import Call
from serving.backends.triton.install import TritonInstall
from serving.backends.triton.replica import TritonReplica
from serving.errors import LicenceForbids, NotFound
from serving.protocol.artifact import ArtifactRef
from serving.protocol.licences import NON_COMMERCIAL
from serving.protocol.tasks import AudioFeaturesRequest
from serving.settings import Settings
from tests.flows.triton_models import write_models

from .edge import Edge

ROOT = Path(__file__).resolve().parents[4]
CARD = """\
description: for tests
task: tensor
backend: triton
engine: tensor
license: {name: CC-BY-NC-4.0, commercial_use: false}
source: {uri: "file:."}
"""


@pytest_asyncio.fixture
async def replica(triton: TritonInstall, tmp_path: Path) -> AsyncIterator[TritonReplica]:
    models = write_models(tmp_path / "models", ["simple", "simple_ensemble", "mlp"])
    (models / "simple" / "model.yaml").write_text(CARD)
    shutil.copytree(ROOT / "model_repository" / "log_mel", models / "log_mel")
    card = models / "log_mel" / "model.yaml"
    card.write_text(card.read_text().replace("commercial_use: true", "commercial_use: false"))
    running = TritonReplica.__new__(TritonReplica)
    settings = Settings(home=tmp_path / "home", model_repositories=[models]).resolved()
    await running.__init__(settings, [], Edge())  # type: ignore[misc]  # as Serve does
    yield running
    await running.close()


async def test_the_edge_hears_of_licences_an_ensembles_steps_among_them_and_typed_calls_are_refused(
    replica: TritonReplica,
) -> None:
    told = {endpoint.model: endpoint for endpoint in replica._edge.beats[-1].endpoints}
    assert told["simple"].refuses == told["simple_ensemble"].refuses
    assert told["simple"].refuses.startswith("the weights of 'simple' are under CC-BY-NC-4.0")
    assert (told["mlp"].refuses, told["mlp"].task) == ("", "")
    assert (bool(told["log_mel"].refuses), told["log_mel"].task) == (True, "audio_features")
    ask = AudioFeaturesRequest(audio=ArtifactRef(sha256="0" * 64, size_bytes=1))
    with pytest.raises(LicenceForbids, match="no other model here does audio_features"):
        await replica.run("log_mel", ask, Call())
    with pytest.raises(NotFound):  # of the recording: the model itself was reached
        await replica.run("log_mel", ask, Call(use=NON_COMMERCIAL))
