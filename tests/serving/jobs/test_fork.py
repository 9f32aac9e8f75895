"""Retries, edits and early stops, on a small graph: each line is spoken, translated and put into one reel."""

from collections.abc import AsyncIterator
from functools import partial
from typing import Any

import pytest
import sqlalchemy as sa

from serving.errors import Conflict, Unprocessable
from serving.jobs.records import JobRecord
from serving.jobs.submit import JobDesk, JobRequest
from serving.jobs.tables import stage_results
from serving.jobs.types import JobContext, JobOutput, JobState, JobType, Stage
from serving.jobs.worker import JobWorker
from serving.protocol.artifact import ArtifactRef
from serving.protocol.tasks import Message, MusicRequest, MusicResult
from tests.serving.jobs.film import CountingRouter
from tests.serving.jobs.office import Office

STAGES = tuple(Stage(name, JobState.PROCESSING) for name in ("lines", "translation", "score", "reel"))


class ReelRequest(Message):
    lines: list[str]
    score: str | None = None


class Translation(Message):
    texts: dict[str, str]


async def reel(job: JobContext, request: ReelRequest) -> JobOutput:
    spoken = await job.map(
        "lines", [MusicRequest(duration_s=0.01, seed=len(line)) for line in request.lines], MusicResult
    )
    translation = await job.step("translation", partial(translate, request.lines), inputs=request.lines)
    await job.run("score", MusicRequest(duration_s=0.01, seed=99), MusicResult, model=request.score)

    async def join() -> ArtifactRef:
        data = await job.artifacts.get_bytes(spoken[0].audio) + " / ".join(translation.texts.values()).encode()
        return await job.artifacts.put_bytes(data, media_type="text/plain", name="reel.txt")

    made = await job.step("reel", join, inputs={"spoken": spoken, "translation": translation})
    return JobOutput(files={"reel.txt": made})


async def translate(lines: list[str]) -> Translation:
    return Translation(texts={str(index): line.upper() for index, line in enumerate(lines)})


CATALOG = {"reel": JobType(name="reel", request=ReelRequest, graph=reel, stages=STAGES, tries=1)}


@pytest.fixture
async def desk(office: Office) -> AsyncIterator[JobDesk]:
    router = CountingRouter(office.artifacts, office.settings.home / "calls.log")
    worker = await JobWorker.start(office.settings, CATALOG, router)
    yield JobDesk(office.store, CATALOG, office.artifacts)
    await worker.shutdown()


async def ran(office: Office, desk: JobDesk, *, stop_at: str | None = None, **wanted: Any) -> JobRecord:
    value = {"lines": ["one", "three"], **wanted}
    request = JobRequest(type="reel", input=value, stop_at=stop_at)
    return await office.until((await desk.submit(request))[0].id)


async def forked(office: Office, desk: JobDesk, parent: JobRecord, **wanted: Any) -> JobRecord:
    return await office.until((await desk.retry(parent.id, **wanted)).id)


async def origins(office: Office, job: JobRecord) -> dict[str, list[str]]:
    query = sa.select(stage_results).where(stage_results.c.job_id == job.id).order_by(stage_results.c.part)
    found: dict[str, list[str]] = {}
    for row in await office.database.run(lambda connection: connection.execute(query).all()):
        found.setdefault(row.stage, []).append(row.origin)
    return found


async def text_of(office: Office, job: JobRecord) -> str:
    assert job.output is not None, job.error
    return (await office.artifacts.get_bytes(job.output.files["reel.txt"])).decode()


def begun(office: Office, job: JobRecord) -> list[str]:
    words = [line.split() for line in office.calls() if line.startswith(f"begin {job.id}")]
    return sorted(f"{stage} {seed}" for _, _, stage, seed in words)


async def test_a_retry_from_a_stage_does_it_and_what_follows_again(office: Office, desk: JobDesk) -> None:
    first = await ran(office, desk)
    again = await forked(office, desk, first, from_stage="score")
    assert (again.state, again.parent_id, again.from_stage) == (JobState.COMPLETED, first.id, "score")
    assert begun(office, again) == ["score 99"]
    assert await origins(office, again) == {
        "lines": ["parent", "parent"],
        "translation": ["parent"],
        "score": ["made"],
        "reel": ["made"],
    }
    assert again.cpu_s == 0.5
    assert await text_of(office, again) == await text_of(office, first)
    assert (await office.store.get(first.id)).last_event == first.last_event, "the parent does not change"


async def test_a_failed_job_goes_on_at_the_stage_that_failed(office: Office, desk: JobDesk) -> None:
    failed = await ran(office, desk, score="broken")
    assert failed.state is JobState.FAILED
    again = await forked(office, desk, failed)
    assert (again.state, again.from_stage) == (JobState.FAILED, "score")
    assert begun(office, again) == ["score 99"]
    mended = await forked(office, desk, failed, edits={"input": {"score": None}})
    assert mended.state is JobState.COMPLETED
    assert begun(office, mended) == ["score 99"]


async def test_an_edited_line_is_spoken_again_and_no_other(office: Office, desk: JobDesk) -> None:
    first = await ran(office, desk)
    edited = await forked(office, desk, first, edits={"input": {"lines": ["one", "seventeen"]}})
    assert begun(office, edited) == ["lines 9"]
    assert await origins(office, edited) == {
        "lines": ["parent", "made"],
        "translation": ["made"],
        "score": ["parent"],
        "reel": ["made"],
    }
    assert (await text_of(office, edited)).endswith("ONE / SEVENTEEN")


async def test_an_edited_translation_goes_into_what_is_made_from_it(office: Office, desk: JobDesk) -> None:
    first = await ran(office, desk)
    edits = {"results": {"translation": {"0": {"texts": {"1": "trois"}}}}}
    edited = await forked(office, desk, first, edits=edits)
    assert begun(office, edited) == []
    assert await origins(office, edited) == {
        "lines": ["parent", "parent"],
        "translation": ["edited"],
        "score": ["parent"],
        "reel": ["made"],
    }
    assert (await text_of(office, edited)).endswith("ONE / trois")
    kept = await forked(office, desk, edited, from_stage="reel")
    assert (await text_of(office, kept)).endswith("ONE / trois")
    fresh = await ran(office, desk)
    assert (await text_of(office, fresh)).endswith("ONE / THREE"), "an edit is nobody else's result"


async def test_a_job_stops_after_the_stage_it_was_told_and_can_go_on_from_there(office: Office, desk: JobDesk) -> None:
    stopped = await ran(office, desk, stop_at="lines")
    assert stopped.state is JobState.COMPLETED
    assert [stage.state for stage in stopped.stages] == ["done", "skipped", "skipped", "skipped"]
    assert stopped.output is not None
    assert sorted(stopped.output.files) == ["lines.sound-3.wav", "lines.sound-5.wav"]
    assert stopped.output.facts == {"stopped_at": "lines"}
    whole = await forked(office, desk, stopped)
    assert (whole.state, whole.from_stage) == (JobState.COMPLETED, "translation")
    assert begun(office, whole) == ["score 99"]


REFUSED: list[tuple[dict[str, Any], str]] = [
    ({}, "from"),
    ({"from_stage": "encore"}, "from"),
    ({"stop_at": "encore", "from_stage": "reel"}, "stop_at"),
    ({"edits": {"inputs": {}}}, "edits.inputs"),
    ({"edits": {"input": {"lines": 3}}}, "input.lines"),
    ({"edits": {"results": {"encore": {"0": {}}}}}, "edits.results.encore"),
    ({"edits": {"results": {"lines": {"7": {}}}}}, "edits.results.lines.7"),
    ({"edits": {"results": {"lines": {"x": {}}}}}, "edits.results.lines"),
    ({"edits": {"results": {"translation": {"0": {"texts": 3}}}}}, "edits.results.translation.0.texts"),
    ({"edits": {"results": {"lines": {"0": {"duration_s": -1}}}}}, "edits.results.lines.0.duration_s"),
]


async def test_what_cannot_be_is_refused_with_its_field_before_anything_is_kept(office: Office, desk: JobDesk) -> None:
    first = await ran(office, desk)
    for wanted, field in REFUSED:  # one job is enough for all of them
        with pytest.raises(Unprocessable) as refused:
            await desk.retry(first.id, **wanted)
        assert (refused.value.field or "").startswith(field), (wanted, refused.value)
    assert len((await office.store.page()).jobs) == 1


async def test_a_job_that_still_runs_cannot_be_retried(office: Office) -> None:
    desk = JobDesk(office.store, CATALOG, office.artifacts)
    waiting, _ = await desk.submit(JobRequest(type="reel", input={"lines": ["one"]}))
    with pytest.raises(Conflict, match="is queued"):
        await desk.retry(waiting.id, from_stage="reel")
