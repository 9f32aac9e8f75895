"""A cheap job type with real steps, and a router that counts its calls in a file: what the tests of jobs run."""

import asyncio
import contextlib
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Literal

from pydantic import Field

from serving.artifacts.store import ArtifactStore
from serving.backends.call import Call
from serving.errors import BadInput, EngineFailed, Unavailable
from serving.jobs.types import JobContext, JobOutput, JobState, JobType, Lane, Stage
from serving.protocol.artifact import ArtifactRef
from serving.protocol.licences import COMMERCIAL, Use
from serving.protocol.tasks import Message, MusicRequest, MusicResult, TaskRequest, TaskResult
from serving.repository.identity import Identity

STAGES = (
    Stage("clips", JobState.PROCESSING, weight=6),
    Stage("titles", JobState.PROCESSING, weight=1),
    Stage("score", JobState.RENDERING, weight=2),
    Stage("captions", JobState.POST_PROCESSING, weight=1),
)
CAPTIONS = b"WEBVTT\n\n00:00.000 --> 00:01.500\nHello <there>\n\n00:01.500 --> 00:03.000\nGoodbye & thanks\n"


class FilmRequest(Message):
    title: str = Field(min_length=1, max_length=120)
    clips: int = Field(default=3, ge=0, le=50)
    seconds: float = Field(default=0.02, gt=0, le=60, description="How long each call takes.")
    trouble: Literal[
        "none", "broken", "busy_once", "busy", "defect", "retake", "stray_cancel", "deaf", "nan", "tells"
    ] = "none"
    poster: ArtifactRef | None = None
    actors: tuple[str, ...] = ()


async def check(request: FilmRequest, artifacts: ArtifactStore) -> None:
    if "nobody" in request.actors:
        raise BadInput("nobody cannot act", field=f"actors[{request.actors.index('nobody')}]", fix="name somebody")


async def film(job: JobContext, request: FilmRequest) -> JobOutput:
    # The pace travels in the request, since the router that counts knows nothing else of the job.
    pace = request.seconds
    clips = await job.map(
        "clips", [MusicRequest(duration_s=pace, seed=index) for index in range(request.clips)], MusicResult
    )
    model = None if request.trouble == "none" else request.trouble
    score = await job.run("score", MusicRequest(duration_s=pace, seed=1000), MusicResult, model=model)
    if request.trouble == "retake":
        score = await job.run("score", MusicRequest(duration_s=pace, seed=1001), MusicResult)
    if request.trouble == "deaf":
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.sleep(20)
        await asyncio.sleep(20)
    if request.trouble == "stray_cancel":
        raise asyncio.CancelledError

    async def captions() -> ArtifactRef:
        if request.trouble == "defect":
            raise ZeroDivisionError("a defect of the graph")
        return await job.artifacts.put_bytes(CAPTIONS, media_type="text/vtt", name="film.vtt")

    vtt = await job.step("captions", captions)
    files = {"captions": vtt, "score": score.audio}
    if request.poster is not None:
        files["poster"] = request.poster
    loudness = float("nan") if request.trouble == "nan" else -16.02
    return JobOutput(files=files, facts={"clips": len(clips), "sound": [{"loudness_lufs": loudness}]})


def film_type(**changes: object) -> JobType:
    values: dict[str, object] = {
        "name": "film",
        "request": FilmRequest,
        "graph": film,
        "stages": STAGES,
        "lane": Lane.MEDIUM,
        "timeout_s": 60.0,
        "tries": 2,
        "check": check,
        "description": "Clips, a score and captions.",
    }
    return JobType(**{**values, **changes})  # type: ignore[arg-type]


CATALOG: Mapping[str, JobType] = {"film": film_type()}


class CountingRouter:
    """Answers music requests after their duration; every call leaves ``begin`` and ``end`` lines in a file."""

    def __init__(self, artifacts: ArtifactStore, journal: Path) -> None:
        self._artifacts = artifacts
        self._journal = journal
        self._busy: set[str] = set()
        self.revision = "1"

    def identity(self, request: TaskRequest, *, model: str | None = None, use: Use = COMMERCIAL) -> Identity:
        # Trouble is not part of the identity: it stands for what happens to a model, not for which one it is.
        pinned = self.revision != "main"
        return Identity(
            "fiddle", "hf:studio/fiddle", self.revision, self.revision, "MIT", commercial_use=True, pinned=pinned
        )

    async def run(self, request: TaskRequest, call: Call, *, model: str | None = None) -> TaskResult:
        assert isinstance(request, MusicRequest)
        name = f"{call.job_id} {call.stage} {request.seed}"
        self._write(f"begin {name}")
        try:
            for quarter in range(1, 5):
                await asyncio.sleep(request.duration_s / 4)
                if model == "tells":
                    call.tell(quarter / 4)
        except asyncio.CancelledError:
            self._write(f"cancel {name}")
            raise
        call.checkpoint()
        call.cpu_s, call.gpu_s = 0.5, 0.25
        if model == "broken":
            raise EngineFailed("the violin has no strings", fix="string it")
        if model == "busy" or (model == "busy_once" and name not in self._busy):
            self._busy.add(name)
            raise Unavailable("the orchestra is on tour")
        audio = await self._artifacts.put_bytes(
            f"sound {request.seed}".encode(), media_type="audio/wav", name=f"sound-{request.seed}.wav"
        )
        self._write(f"end {name}")
        call.served_by, call.replica = "ray/fiddle", "fiddle-1"
        return MusicResult(audio=audio, duration_s=request.duration_s)

    def _write(self, line: str) -> None:
        with self._journal.open("a") as stream:
            stream.write(line + "\n")
            stream.flush()
            os.fsync(stream.fileno())
