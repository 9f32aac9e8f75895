"""What is done once is not done again: within a job, in other jobs, and not when it is no longer there."""

from collections.abc import Awaitable, Callable
from pathlib import Path

import sqlalchemy as sa

from serving.artifacts.keys import object_key
from serving.jobs.results import Origin, Place, Result, Results
from serving.jobs.tables import jobs, stage_results
from serving.jobs.types import JobState
from serving.jobs.worker import JobWorker
from tests.serving.jobs.office import Office

StartWorker = Callable[[], Awaitable[JobWorker]]


def made(office: Office) -> int:
    return len([line for line in office.calls() if line.startswith("end")])


async def set_cache(office: Office, job_id: str, use_cache: bool) -> None:
    changed = sa.update(jobs).where(jobs.c.id == job_id).values(use_cache=use_cache)
    await office.database.run(lambda connection: connection.execute(changed))


async def test_a_second_job_with_the_same_inputs_pays_for_nothing(office: Office, start_worker: StartWorker) -> None:
    await start_worker()
    first = await office.until((await office.submit(clips=3)).id)
    second = await office.until((await office.submit(clips=4)).id)
    assert (first.state, second.state) == (JobState.COMPLETED, JobState.COMPLETED)
    assert made(office) == 5, "three clips and a score, then the one clip that is new"
    assert [stage.parts_cached for stage in first.stages] == [0, 0, 0, 0]
    assert [stage.parts_cached for stage in second.stages] == [3, 0, 1, 0]
    assert (first.cpu_s, first.gpu_s) == (2.0, 1.0)
    assert (second.cpu_s, second.gpu_s) == (0.5, 0.25)
    clips = second.stages[0]
    assert (clips.models, clips.replicas, clips.cpu_s) == (["ray/fiddle"], ["fiddle-1"], 0.5)
    assert all(stage.started_at and stage.ended_at for stage in second.stages if stage.parts)


async def test_another_revision_of_the_model_is_another_result(office: Office, start_worker: StartWorker) -> None:
    worker = await start_worker()
    await office.until((await office.submit(clips=1)).id)
    worker._runner.revision = "2"  # type: ignore[attr-defined]
    await office.until((await office.submit(clips=1)).id)
    assert made(office) == 4


async def test_a_revision_that_moves_is_no_key_of_the_cache(office: Office, start_worker: StartWorker) -> None:
    worker = await start_worker()
    worker._runner.revision = "main"  # type: ignore[attr-defined]
    for _ in range(2):
        await office.until((await office.submit(clips=1)).id)
    assert made(office) == 4


async def test_a_result_whose_file_is_gone_is_made_again(office: Office, start_worker: StartWorker) -> None:
    await start_worker()
    first = await office.until((await office.submit(clips=1)).id)
    folder = Path(office.settings.artifacts_url.removeprefix("file://"))
    (folder / object_key(first.stages[0].artifacts[0].sha256)).unlink()
    second = await office.until((await office.submit(clips=1)).id)
    assert [stage.parts_cached for stage in second.stages] == [0, 0, 1, 0]


async def test_a_job_without_the_cache_neither_takes_nor_gives(office: Office, start_worker: StartWorker) -> None:
    await start_worker()
    for use_cache in (False, True, False):
        job_id = (await office.submit(clips=0)).id
        await set_cache(office, job_id, use_cache)
        await office.until(job_id)
    assert made(office) == 3


async def test_every_part_leaves_who_did_it_when_and_what_it_cost(office: Office, start_worker: StartWorker) -> None:
    await start_worker()
    job = await office.until((await office.submit(clips=2)).id)
    query = sa.select(stage_results).where(stage_results.c.job_id == job.id)
    rows = await office.database.run(lambda connection: connection.execute(query).all())
    assert sorted((row.stage, row.part) for row in rows) == [("captions", 0), ("clips", 0), ("clips", 1), ("score", 0)]
    clip = next(row for row in rows if row.stage == "clips")
    assert (clip.served_by, clip.replica, clip.tries, clip.origin) == ("ray/fiddle", "fiddle-1", 1, "made")
    assert (clip.cpu_s, clip.gpu_s) == (0.5, 0.25)
    assert clip.ended_at >= clip.started_at
    assert clip.value_type == "serving.protocol.tasks.sound:MusicResult"


async def test_artifacts_say_which_model_made_them_from_what(office: Office, start_worker: StartWorker) -> None:
    await start_worker()
    job = await office.until((await office.submit(clips=2)).id)
    told = await office.artifacts.provenance(job.stages[0].artifacts[1])
    assert told is not None
    assert (told.job_id, told.job_type, told.stage, told.part) == (job.id, "film", "clips", 1)
    assert told.seeds == {"seed": 1}
    assert [(used.model, used.backend, used.license) for used in told.models] == [("fiddle", "ray", "MIT")]


async def test_recording_a_part_twice_keeps_the_later(office: Office) -> None:
    results = Results(office.database, office.artifacts)
    place = Place((await office.submit()).id, "clips", 0)
    for value in ("1", "2"):
        await results.record(place, Result(value=value, key="k", started_at=1.0, ended_at=2.0))
    found = await results.at(place)
    assert found is not None
    assert (found.value, found.origin) == ("2", Origin.MADE)
    assert await results.cached("other") is None
