"""What happens in a replica when its caller at the other end of a Serve handle goes away."""

import asyncio
import json
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from serving.backends.call import Call
from serving.backends.handle import HandleBackend
from serving.backends.meter import Served
from serving.errors import Unavailable
from serving.protocol.artifact import ArtifactRef
from serving.protocol.tasks import MusicRequest, MusicResult

ROOT = Path(__file__).parents[3]


async def test_work_ends_within_two_seconds_of_a_cancel_a_deadline_and_a_kill(tmp_path: Path) -> None:
    models = tmp_path / "models"
    models.mkdir()
    (models / "image_to_video").symlink_to(ROOT / "model_repository/image_to_video")
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "tests.serving.backends.handled", str(tmp_path), cwd=ROOT, stdout=asyncio.subprocess.PIPE
    )
    out, _ = await process.communicate()
    assert process.returncode == 0
    seen = json.loads(out.splitlines()[-1])
    assert seen.pop("replicas") == 1
    told = seen.pop("told")
    assert len(told) > 1
    assert told == sorted(told)
    assert 0 < told[0] < told[-1] <= 1
    assert {name: how for name, (_, how) in seen.items()} == {
        "cancel": "CancelledError",
        "deadline": "DeadlineExceeded",
        "kill": "Unavailable",
    }
    assert all(seconds < 2 for seconds, _ in seen.values()), seen


async def test_what_every_try_cost_is_added_to_the_call() -> None:
    music = MusicResult(audio=ArtifactRef(sha256="0" * 64, size_bytes=1), duration_s=1.0)
    answers = [Served(Unavailable("full"), "r-1", 1.0, 0.5), Served(music, "r-2", 2.0, 1.0)]

    async def answer(*_: object) -> Served:
        return answers.pop(0)

    handle: Any = SimpleNamespace(serve=SimpleNamespace(remote=answer))
    backend, call = HandleBackend("render", handle, ["bed"]), Call()
    with pytest.raises(Unavailable, match="full"):
        await backend.run("bed", MusicRequest(duration_s=1.0), call)
    assert await backend.run("bed", MusicRequest(duration_s=1.0), call) == music
    assert (call.replica, call.cpu_s, call.gpu_s) == ("r-2", 3.0, 1.5)
