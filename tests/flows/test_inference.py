"""Real tritonclient programs against one address: models that Triton serves and models that Ray replicas serve."""

import io
import json
from typing import Any

import httpx
import numpy as np
import pytest
import soundfile
import tritonclient.grpc
import tritonclient.http
from tritonclient.utils import InferenceServerException

from tests.flows.conftest import Mesh

WIRES = ["http", "grpc"]


def client_of(mesh: Mesh, wire: str) -> tuple[Any, Any]:
    if wire == "http":
        return tritonclient.http, tritonclient.http.InferenceServerClient(mesh.http.removeprefix("http://"))
    return tritonclient.grpc, tritonclient.grpc.InferenceServerClient(mesh.grpc)


def tensor(module: Any, name: str, array: np.ndarray, datatype: str) -> Any:
    made = module.InferInput(name, list(array.shape), datatype)
    made.set_data_from_numpy(array)
    return made


def text(module: Any, name: str, value: str) -> Any:
    return tensor(module, name, np.array([value.encode()], dtype=np.object_), "BYTES")


@pytest.mark.parametrize("wire", WIRES)
def test_a_model_served_by_triton_answers_at_the_mesh(mesh: Mesh, wire: str) -> None:
    module, client = client_of(mesh, wire)
    time_s = np.arange(16000, dtype=np.float32) / 16000
    tone = np.sin(2 * np.pi * 1000 * time_s).astype(np.float32)
    features = client.infer("log_mel", [tensor(module, "AUDIO", tone, "FP32")]).as_numpy("FEATURES")
    assert features.shape == (100, 80)
    loudest = int(features[50].argmax())
    assert 20 <= loudest <= 30, "1 kHz lies in the mel bands around 25"


@pytest.mark.parametrize("wire", WIRES)
def test_a_model_served_by_a_ray_replica_answers_at_the_same_address(mesh: Mesh, wire: str) -> None:
    module, client = client_of(mesh, wire)
    inputs = [text(module, "TEXT", "Good morning."), text(module, "VOICE", "asha")]
    answer = client.infer("speech", inputs)
    audio, rate = soundfile.read(io.BytesIO(answer.as_numpy("AUDIO")[0]))
    assert rate == answer.as_numpy("SAMPLE_RATE_HZ")[0]
    assert len(audio) / rate == pytest.approx(float(answer.as_numpy("DURATION_S")[0]), abs=0.01)
    assert np.abs(audio).max() > 0.05
    words = json.loads(answer.as_numpy("WORDS")[0])
    assert [word["text"] for word in words] == ["Good", "morning."]


@pytest.mark.parametrize("wire", WIRES)
@pytest.mark.parametrize("model", ["log_mel", "speech"])
def test_metadata_and_readiness_are_answered_for_both_kinds(mesh: Mesh, wire: str, model: str) -> None:
    _, client = client_of(mesh, wire)
    assert client.is_server_live()
    assert client.is_server_ready()
    assert client.is_model_ready(model)
    metadata = client.get_model_metadata(model)
    assert (metadata["name"] if wire == "http" else metadata.name) == model


@pytest.mark.parametrize("wire", WIRES)
def test_an_unknown_model_is_refused_in_tritons_words(mesh: Mesh, wire: str) -> None:
    module, client = client_of(mesh, wire)
    with pytest.raises(InferenceServerException, match="unknown model: 'nobody'"):
        client.infer("nobody", [text(module, "TEXT", "x")])


@pytest.mark.parametrize("wire", WIRES)
def test_bad_input_names_the_field(mesh: Mesh, wire: str) -> None:
    module, client = client_of(mesh, wire)
    with pytest.raises(InferenceServerException, match=r"asah.*asha|asha.*asah"):
        client.infer("speech", [text(module, "TEXT", "Hello."), text(module, "VOICE", "asah")])
    with pytest.raises(InferenceServerException, match="TEXT"):
        client.infer("speech", [text(module, "VOICE", "asha")])


def test_metrics_of_all_processes_are_one_exposition(mesh: Mesh) -> None:
    exposition = httpx.get(mesh.metrics, timeout=10).text
    assert "reelmesh_edge_endpoints" in exposition
    assert 'reelmesh_model_ready{backend="ray",model="speech"' in exposition
    assert "nv_inference_count" in exposition
