"""Lint against the real tritonserver: what one calls an error, the other refuses to load, and what it loads is none."""

import asyncio
import contextlib
import os
import subprocess
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml

from serving.backends.triton.command import environment, free_ports
from serving.backends.triton.install import TritonInstall, default_folder, find_tritonserver, install
from serving.backends.triton.view import build_python
from serving.repository.lint import lint
from serving.settings import Settings

VERDICTS: Mapping[str, Mapping[str, str]] = yaml.safe_load(Path(__file__).with_name("verdicts.yaml").read_text())
TENSORS = """\
input [ { name: "X" data_type: TYPE_FP32 dims: [ 4 ] } ]
output [ { name: "Y" data_type: TYPE_FP32 dims: [ 4 ] } ]"""
MODEL = """\
import triton_python_backend_utils as triton

class TritonPythonModel:
    def execute(self, requests):
        return [triton.InferenceResponse([]) for _ in requests]
"""
STEPS = ("good", "two", "decoupled")
"""What ensembles are made of, loaded first."""
ACCEPTED = (
    "dyn_no_batch", "prio_policy_nolevels", "dup_in", "dup_out", "reshape_ok", "reshape_empty1", "ver_absent_some",
    "warm_extra", "seq_two_controls", "inst_neg", "ens_shape_var", "ens_batch_zero", "ens_decoupled",
)  # fmt: skip
"""Those that look wrong and are not; to load every right one would take a minute."""


def written(folder: Path) -> Path:
    for name, verdict in VERDICTS.items():
        (folder / name / "1").mkdir(parents=True)
        (folder / name / "config.pbtxt").write_text(verdict["config"].replace("TENSORS", TENSORS))
        if not name.startswith("ens_"):
            (folder / name / "1" / "model.py").write_text(MODEL)
    return folder


@pytest.fixture(scope="module")
def said(tmp_path_factory: pytest.TempPathFactory) -> Mapping[str, list[str]]:
    """The errors of lint by model."""
    folder = written(tmp_path_factory.mktemp("models"))
    found: dict[str, list[str]] = {name: [] for name in VERDICTS}
    for finding in lint([folder]):
        if finding.severity == "error":
            line = f"{finding.field}: {finding.problem}: {finding.fix}"
            found[finding.file.relative_to(folder).parts[0]].append(line)
    return found


@pytest.mark.parametrize("name", VERDICTS)
def test_lint_says_what_is_wrong_and_nothing_of_what_is_right(said: Mapping[str, list[str]], name: str) -> None:
    expected = VERDICTS[name].get("refused")
    assert said[name][:1] == ([expected] if expected else [])


@pytest.fixture
def triton() -> TritonInstall:
    """The tritonserver of this machine, unpacked from its wheel where there is none."""
    install(default_folder())
    return find_tritonserver(Settings())


@contextlib.asynccontextmanager
async def serving(triton: TritonInstall, repository: Path, folder: Path) -> AsyncIterator[httpx.AsyncClient]:
    """A bare tritonserver in explicit mode."""
    ports = free_ports()
    command = [
        str(triton.binary), f"--model-repository={repository}", f"--backend-directory={triton.backends}",
        "--model-control-mode=explicit", "--disable-auto-complete-config", f"--http-port={ports.http}",
        f"--grpc-port={ports.grpc}", f"--metrics-port={ports.metrics}", "--allow-gpu-metrics=false",
        "--pinned-memory-pool-byte-size=0", f"--backend-config=python,shm-region-prefix-name=reelmesh_{os.getpid()}",
    ]  # fmt: skip
    programs = build_python(folder, triton.stub) if triton.stub else None
    variables = environment(triton, programs, gpus=0)
    child = await asyncio.create_subprocess_exec(
        *command, env=variables, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    try:
        async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{ports.http}", timeout=30) as client:
            for _ in range(300):
                if await lives(client):
                    break
                await asyncio.sleep(0.1)
            yield client
            for name in STEPS:
                await client.post(f"/v2/repository/models/{name}/unload")
    finally:
        child.kill()
        await child.wait()
        clear_regions()


def clear_regions() -> None:
    for region in Path("/dev/shm").glob(f"reelmesh_{os.getpid()}*"):
        region.unlink(missing_ok=True)


async def lives(client: httpx.AsyncClient) -> bool:
    with contextlib.suppress(httpx.HTTPError):
        return (await client.get("/v2/health/live")).is_success
    return False


async def loads(client: httpx.AsyncClient, name: str) -> bool:
    answer = await client.post(f"/v2/repository/models/{name}/load")
    if answer.is_success and name not in STEPS:
        await client.post(f"/v2/repository/models/{name}/unload")
    return answer.is_success


async def test_triton_refuses_what_lint_calls_an_error_and_loads_the_rest(
    triton: TritonInstall, tmp_path: Path
) -> None:
    wanted: dict[str, Any] = {name: True for name in (*STEPS, *ACCEPTED)}
    wanted |= {name: False for name, verdict in VERDICTS.items() if "refused" in verdict}
    async with serving(triton, written(tmp_path / "models"), tmp_path / "python") as client:
        verdicts = {name: await loads(client, name) for name in wanted}
    assert {name: loaded for name, loaded in verdicts.items() if loaded is not wanted[name]} == {}
