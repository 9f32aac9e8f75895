"""A Ray replica on its own, over a repository of this test's, with an edge that only writes down what it hears."""

import asyncio
import shutil
from contextlib import asynccontextmanager
from pathlib import Path

import httpx

from serving.backends.ray.replica import EngineReplica
from serving.protocol.control import TOKEN_HEADER
from serving.repository.model import TENSOR_GROUP
from serving.settings import Settings
from tests.serving.backends.ray.tensor_models import MODELS


class _Remote:
    def __init__(self, call):
        self.remote = call


class FakeEdge:
    """Answers what a Serve handle of the edge answers; keeps every heartbeat."""

    def __init__(self, calls=()):
        self.beats = []
        self.calls = list(calls)
        self.heartbeat, self.recall = _Remote(self._heartbeat), _Remote(self._recall)

    async def _heartbeat(self, beat):
        self.beats.append(beat)

    async def _recall(self):
        return self.calls

    @property
    def names(self):
        return sorted(endpoint.model for endpoint in self.beats[-1].endpoints) if self.beats else []


def repository(folder: Path, *names: str) -> Path:
    """A repository with copies of those models, served by Ray."""
    for name in names:
        home = Path(shutil.copytree(MODELS / name, folder / name, ignore=shutil.ignore_patterns("__pycache__")))
        config = (home / "config.pbtxt").read_text()
        (home / "config.pbtxt").write_text(config.replace('backend: "python"', 'backend: "ray"'))
    return folder


def settings_of(tmp_path: Path, **inference) -> Settings:
    inference.setdefault("exit_timeout_s", 2.0)
    return Settings(
        home=tmp_path / "home", model_repositories=[tmp_path / "models"], inference=inference, edge={"heartbeat_s": 60}
    ).resolved()


class Standing:
    """A running replica: its edge, and ways to reach it."""

    def __init__(self, replica: EngineReplica, edge: FakeEdge) -> None:
        self.replica = replica
        self.edge = edge
        beat = replica.beat()
        http, _, port = beat.metrics_url.removesuffix("/metrics").rpartition(":")
        self.control = httpx.AsyncClient(base_url=f"{http}:{port}", headers={TOKEN_HEADER: beat.control.token})
        address = replica._ports
        self.http_address, self.grpc_address = (f"127.0.0.1:{port}" for port in address)

    async def post(self, path: str, **body):
        return await self.control.post(path, json=body)

    async def load(self, name: str, **parameters):
        return await self.post(f"/v2/repository/models/{name}/load", parameters=parameters)

    async def unload(self, name: str):
        return await self.post(f"/v2/repository/models/{name}/unload")

    async def index(self) -> dict[str, tuple[str, str]]:
        found = (await self.post("/v2/repository/index")).json()
        return {entry["name"]: (entry["state"], entry.get("reason", "")) for entry in found}


@asynccontextmanager
async def standing(settings: Settings, group: str = TENSOR_GROUP, calls=(), edge=None):
    edge = edge or FakeEdge(calls)
    replica = EngineReplica.__new__(EngineReplica)
    await replica.__init__(settings, group, edge)
    stands = Standing(replica, edge)
    await asyncio.sleep(0)
    try:
        yield stands
    finally:
        await stands.control.aclose()
        await replica.close()
