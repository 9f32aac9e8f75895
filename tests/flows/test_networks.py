"""Engines of networks in a mesh from first to last: tiny models made by the command, served, asked on both wires."""

import asyncio
import io
import json
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
import soundfile
from PIL import Image

from tests.flows.conftest import ROOT, STOP_S, Mesh, announced, launch, stop_mesh

pytestmark = [pytest.mark.flow, pytest.mark.timeout(300)]

NAMES = ("sdxl", "whisper_large_v3", "mms_tts_eng")


def command(*words: str) -> subprocess.CompletedProcess[str]:
    line = [sys.executable, "-m", "serving.cli.main", *words]
    return subprocess.run(line, cwd=ROOT, capture_output=True, text=True, timeout=120, check=False)


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A repository of tiny models, and the builtin voices beside them."""
    into = tmp_path_factory.mktemp("tiny") / "models"
    made = command("models", "tiny", *NAMES, "--into", str(into))
    assert made.returncode == 0, made.stderr
    (into / "speech").symlink_to(ROOT / "model_repository" / "speech")
    return into


@pytest.fixture(scope="module")
def mesh(models: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Mesh]:
    home = tmp_path_factory.mktemp("networks") / "home"
    process, log = launch("serve", home, "--model-repository", str(models))
    mesh = announced(process, home, log)
    yield mesh
    stop_mesh(mesh)


def inputs(**fields: Any) -> list[dict[str, Any]]:
    kinds = {int: "INT64", float: "FP32", str: "BYTES"}
    return [
        {"name": name.upper(), "datatype": kinds[type(value)], "shape": [1], "data": [value]}
        for name, value in fields.items()
    ]


def drawn(mesh: Mesh, seed: int, wire: str = "http") -> tuple[bytes, dict[str, Any]]:
    module, client = mesh.client(wire)
    given = []
    fields = {"PROMPT": "a lighthouse at dusk", "WIDTH": 64, "HEIGHT": 64, "STEPS": 3, "SEED": seed}
    for name, value in fields.items():
        array = np.array([value.encode() if isinstance(value, str) else value])
        tensor = module.InferInput(name, [1], "INT64" if isinstance(value, int) else "BYTES")
        tensor.set_data_from_numpy(array.astype(np.int64 if isinstance(value, int) else np.object_))
        given.append(tensor)
    answer = client.infer("sdxl", given)
    client.close()
    return answer.as_numpy("IMAGE")[0], json.loads(answer.as_numpy("MADE")[0])


def test_equal_seeds_give_equal_pictures_on_both_wires(mesh: Mesh) -> None:
    first, made = drawn(mesh, 5)
    assert Image.open(io.BytesIO(first)).size == (64, 64)
    assert drawn(mesh, 5, "grpc")[0] == first
    assert drawn(mesh, 6)[0] != first
    assert (made["model"], made["seed"], made["steps"]) == ("sdxl", 5, 3)
    assert made["timings_s"]["run"] > 0


async def test_requests_that_come_together_share_a_batch(mesh: Mesh) -> None:
    answers = await asyncio.gather(*(asyncio.to_thread(drawn, mesh, seed) for seed in range(6)))
    assert max(made["batch"] for _, made in answers) > 1


def test_a_prompt_that_the_model_cannot_read_whole_is_refused_with_its_tokens(mesh: Mesh) -> None:
    body = {"inputs": inputs(prompt="x7 q9 " * 60, width=64, height=64)}
    answer = httpx.post(f"{mesh.http}/v2/models/sdxl/infer", json=body, timeout=60)
    assert answer.status_code == 400
    assert "tokens, and the model reads 77" in answer.json()["error"]


def test_weights_without_commercial_use_answer_only_who_says_what_it_is_for(mesh: Mesh) -> None:
    body = {"inputs": inputs(text="good morning", voice="narrator", seed=1), "outputs": [{"name": "DURATION_S"}]}
    address = f"{mesh.http}/v2/models/mms_tts_eng/infer"
    refused = httpx.post(address, json=body, timeout=60)
    assert refused.status_code == 403
    assert "speech" in refused.json()["error"]
    allowed = httpx.post(address, json=body, headers={"x-reelmesh-use": "non_commercial"}, timeout=60)
    assert allowed.status_code == 200, allowed.text
    assert allowed.json()["outputs"][0]["data"][0] > 0


def test_speech_is_heard(mesh: Mesh) -> None:
    wav = io.BytesIO()
    soundfile.write(wav, 0.1 * np.sin(np.arange(32_000) / 20).astype(np.float32), 16_000, format="WAV")
    module, client = mesh.client("grpc")
    sound = module.InferInput("AUDIO", [1], "BYTES")
    sound.set_data_from_numpy(np.array([wav.getvalue()], dtype=np.object_))
    answer = client.infer("whisper_large_v3", [sound])
    client.close()
    assert json.loads(answer.as_numpy("MADE")[0])["precision"] in ("fp32", "int8")
    assert isinstance(json.loads(answer.as_numpy("WORDS")[0]), list)


def test_the_cold_start_is_kept_and_shown(mesh: Mesh, models: Path) -> None:
    kept = json.loads((mesh.home / "cold_starts" / "sdxl.json").read_text())
    assert kept["load_s"] > 0
    assert kept["warm_up_s"] > 0
    shown = subprocess.run(
        [sys.executable, "-m", "serving.cli.main", "models", "show", "sdxl", "--model-repository", str(models)],
        cwd=ROOT,
        env={"PATH": "", "REELMESH_HOME": str(mesh.home), "COLUMNS": "200"},
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    assert "s first request (fp32 on cpu)" in shown.stdout


def test_a_truncated_checkpoint_stops_the_start_in_one_line(models: Path, tmp_path: Path) -> None:
    broken = tmp_path / "models"
    shutil.copytree(models / "sdxl", broken / "sdxl")
    card = broken / "sdxl" / "model.yaml"
    source = card.read_text().partition("uri: file:")[2].split()[0]
    shutil.copytree(source, tmp_path / "checkpoint")
    file = tmp_path / "checkpoint" / "unet" / "diffusion_pytorch_model.safetensors"
    file.write_bytes(file.read_bytes()[:-100])
    card.write_text(card.read_text().replace(source, str(tmp_path / "checkpoint")))
    process, log = launch("serve", tmp_path / "home", "--model-repository", str(broken))
    process.communicate(timeout=STOP_S * 2)
    assert process.returncode != 0
    last = log.read_text().splitlines()[-1]
    assert "diffusion_pytorch_model.safetensors" in last
    assert len([line for line in log.read_text().splitlines() if "Traceback" in line]) == 0
