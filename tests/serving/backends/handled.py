"""Run as a script: a replica of engines behind a real Serve handle, whose long work is cancelled, timed out and killed.

Prints one JSON object of how many seconds the work went on afterwards, and with which errors the calls ended. A process
of its own, since a process holds one Ray session.
"""

import asyncio
import io
import json
import logging
import os
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil

from serving.artifacts.store import ArtifactStore
from serving.backends.call import Call
from serving.backends.handle import HandleBackend
from serving.cli.sentinel import sentinel
from serving.protocol.tasks import ImageToVideoRequest
from serving.settings import Settings

ROOT = Path(__file__).resolve().parents[3]
MODEL = "image_to_video"
PATIENCE_S = 30.0


def start(settings: Settings) -> Any:
    import ray
    from ray import serve

    from serving.backends.ray.replica import EngineReplica

    ray.init(
        address="local",
        num_cpus=1,
        include_dashboard=False,
        log_to_driver=False,
        logging_level=logging.ERROR,
        object_store_memory=100 << 20,
        namespace="serve",
    )
    serve.start(proxy_location="Disabled", logging_config={"log_level": "WARNING"})
    deployment = serve.deployment(EngineReplica).options(ray_actor_options={"num_cpus": 0.1})
    return serve.run(deployment.bind(settings, "render"), route_prefix=None)


def encoders(home: str) -> list[psutil.Process]:
    """The ffmpeg processes of the replica."""
    return [each for each in psutil.process_iter() if home in _command(each) and "ffmpeg" in _command(each)]


def _command(process: psutil.Process) -> str:
    try:
        return " ".join(process.cmdline())
    except psutil.Error:
        return ""


def is_working(home: str) -> bool:
    """Whether the replica has a child, or an unfinished file."""
    return bool(encoders(home) or list(Path(home, "scratch").rglob("*.mp4")))


async def until(check: Callable[[], bool]) -> float:
    """How long it took."""
    began = time.monotonic()
    while not await asyncio.to_thread(check):
        if time.monotonic() - began > PATIENCE_S:
            raise SystemExit(f"still waiting after {PATIENCE_S:g} s")
        await asyncio.sleep(0.02)
    return time.monotonic() - began


async def outcome(task: "asyncio.Task[Any]") -> str:
    try:
        await task
    except (Exception, asyncio.CancelledError) as error:
        return type(error).__name__
    return "result"


async def main(home: str) -> dict[str, Any]:
    from PIL import Image

    settings = Settings(home=Path(home), model_repositories=[Path(home, "models")]).resolved()
    handle = await asyncio.to_thread(start, settings)
    backend = HandleBackend("render", handle, [MODEL], tells=True)
    picture = io.BytesIO()
    Image.new("RGB", (1280, 720), "teal").save(picture, "PNG")
    store = ArtifactStore(settings.artifacts_url, settings.home / "cache")
    image = await store.put_bytes(picture.getvalue(), media_type="image/png", name="still.png")
    request = ImageToVideoRequest(image=image, duration_s=600, width=1280, height=720)
    # As the gateway asks every worker for its metrics.
    answers = await handle.broadcast("record_autoscaling_stats").results_async(timeout_s=5, return_exceptions=True)
    seen: dict[str, Any] = {"replicas": len([answer for answer in answers if isinstance(answer, dict)])}

    for asks in (Call(), Call(on_progress=(told := list[float]()).append)):  # by one answer, and by a stream
        await backend.run(MODEL, request.model_copy(update={"duration_s": 2.0}), asks)
    seen["told"] = list(told)

    task = asyncio.create_task(backend.run(MODEL, request, Call(on_progress=told.append)))
    await until(lambda: is_working(home))
    task.cancel()
    seen["cancel"] = [await until(lambda: not is_working(home)), await outcome(task)]

    deadline = time.time() + 4
    task = asyncio.create_task(backend.run(MODEL, request, Call(deadline_unix_s=deadline, on_progress=told.append)))
    await until(lambda: is_working(home))
    how = await outcome(task)
    seen["deadline"] = [await until(lambda: not is_working(home)) + time.time() - deadline, how]

    task = asyncio.create_task(backend.run(MODEL, request, Call()))
    await until(lambda: bool(encoders(home)))
    os.kill(encoders(home)[0].ppid(), signal.SIGKILL)
    seen["kill"] = [await until(lambda: not encoders(home)), await outcome(task)]
    return seen


if __name__ == "__main__":
    os.environ |= {"PYTHONPATH": str(ROOT), "RAY_AUTH_MODE": "disabled"}
    with sentinel(grace_s=2):  # Ray's agents may outlive its other processes
        print(json.dumps(asyncio.run(main(sys.argv[1]))), flush=True)
        import ray

        ray.shutdown()
