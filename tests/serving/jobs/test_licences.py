"""What a job is for goes with it to every call, into its records, and keeps what is not for it out of it."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from tritonclient.grpc.model_config_pb2 import ModelConfig

from serving.backends.call import Call
from serving.errors import Forbidden, LicenceForbids, Unavailable
from serving.jobs.records import JobRecord
from serving.jobs.submit import ANY_USE, JobDesk, JobRequest, UseBounds
from serving.jobs.types import JobState
from serving.jobs.worker import JobWorker
from serving.protocol.licences import COMMERCIAL, NON_COMMERCIAL, Use
from serving.protocol.tasks import TaskRequest, TaskResult
from serving.repository.load import Repository
from serving.repository.model import License, Model, ModelCard, Source
from serving.router import Router
from serving.settings import LicenceSettings
from tests.serving.jobs.film import CATALOG, CountingRouter, film_type
from tests.serving.jobs.office import Office

FREE = License(name="MIT", commercial_use=True)
RESEARCH = License(name="CC-BY-NC-4.0", commercial_use=False)
REVENUE = License(name="Community", commercial_use="conditional", condition="small studios")


def model(name: str, terms: License, *, fallback: tuple[str, ...] = (), default: bool = False) -> Model:
    card = ModelCard(
        description="for tests", task="music", backend="ray", engine="x", license=terms,
        source=Source(uri="hf:studio/x", revision="a" * 40), fallback=list(fallback), default=default,
    )  # fmt: skip
    return Model(name, Path("/") / name, card, ModelConfig(name=name), ())


class Orchestra:
    """A backend that makes music, and writes down with which model for what; models in ``away`` are too busy."""

    name = "orchestra"

    def __init__(self, office: Office) -> None:
        self._music = CountingRouter(office.artifacts, office.settings.home / "calls.log")
        self.played: list[tuple[str, Use]] = []
        self.away: set[str] = set()

    def serves(self, model: str) -> bool:
        return True

    async def run(self, model: str, request: TaskRequest, call: Call) -> TaskResult:
        if model in self.away:
            raise Unavailable("on tour")
        self.played.append((model, call.use))
        return await self._music.run(request, call)


@asynccontextmanager
async def working(
    office: Office, orchestra: Orchestra, *models: Model, licences: LicenceSettings | None = None
) -> AsyncIterator[JobWorker]:
    router = Router(Repository({each.name: each for each in models}), [orchestra], licences)
    worker = await JobWorker.start(office.settings, CATALOG, router)
    yield worker
    await worker.shutdown()


async def ended(office: Office, use: Use | None) -> JobRecord:
    record, _ = await office.desk.submit(JobRequest(type="film", input={"title": "x", "clips": 1}, use=use))
    return await office.until(record.id)


async def test_a_commercial_job_takes_no_result_that_non_commercial_weights_made(office: Office) -> None:
    orchestra = Orchestra(office)
    async with working(office, orchestra, model("fiddle", RESEARCH)):
        free = await ended(office, NON_COMMERCIAL)
        assert (free.state, free.use) == (JobState.COMPLETED, NON_COMMERCIAL)
        assert orchestra.played == [("fiddle", NON_COMMERCIAL)] * 2
        paid = await ended(office, None)
        assert (paid.state, paid.use) == (JobState.FAILED, COMMERCIAL)
        assert paid.error is not None
        assert (paid.error.code, paid.dead_at) == ("licence", None)
        assert "'fiddle' are under CC-BY-NC-4.0, which allows no commercial use" in paid.error.message
        again = await ended(office, NON_COMMERCIAL)
    assert [stage.parts_cached for stage in again.stages[:3]] == [1, 0, 1]
    assert len(orchestra.played) == 2, "the cache served the third job and not the second"


async def test_what_a_forbidden_fallback_made_is_not_taken_for_the_first_models(office: Office) -> None:
    orchestra = Orchestra(office)
    models = (model("organ", FREE, fallback=("fiddle",), default=True), model("fiddle", RESEARCH))
    async with working(office, orchestra, *models):
        orchestra.away.add("organ")
        free = await ended(office, NON_COMMERCIAL)
        assert free.stages[0].models == ["ray/fiddle"]
        orchestra.away.clear()
        paid = await ended(office, COMMERCIAL)
    assert (paid.state, paid.stages[0].parts_cached) == (JobState.COMPLETED, 0)
    assert orchestra.played[2:] == [("organ", COMMERCIAL)] * 2


async def test_the_records_say_what_it_was_for_and_which_condition_was_accepted(office: Office) -> None:
    accepted = LicenceSettings(accepted=["fiddle"])
    async with working(office, Orchestra(office), model("fiddle", REVENUE), licences=accepted):
        job = await ended(office, None)
    told = await office.artifacts.provenance(job.stages[0].artifacts[0])
    assert told is not None
    assert told.use == COMMERCIAL
    (used,) = told.models
    assert (used.license, used.commercial_use, used.condition) == ("Community", "conditional", "small studios")


async def test_a_fork_is_for_what_its_parent_was(office: Office) -> None:
    async with working(office, Orchestra(office), model("fiddle", RESEARCH)):
        job = await ended(office, NON_COMMERCIAL)
        fork = await office.until((await office.desk.retry(job.id, from_stage="score")).id)
    assert (fork.use, fork.state) == (NON_COMMERCIAL, JobState.COMPLETED)


async def test_a_job_whose_models_are_forbidden_is_refused_before_it_has_a_row(office: Office) -> None:
    repository = Repository(
        {each.name: each for each in (model("fiddle", RESEARCH, default=True), model("organ", FREE))}
    )
    catalog = {"film": film_type(models=lambda _request: {"music": None, "image": None})}
    desk = JobDesk(office.store, catalog, office.artifacts, permit=Router(repository, ()))
    wanted = JobRequest(type="film", input={"title": "x"})
    with pytest.raises(LicenceForbids, match="use 'organ'"):
        await desk.submit(wanted)
    assert (await office.store.page(limit=10)).jobs == []
    record, _ = await desk.submit(wanted.model_copy(update={"use": NON_COMMERCIAL}))
    assert record.use == NON_COMMERCIAL
    named = {"film": film_type(models=lambda _request: {"music": "organ"})}
    await JobDesk(office.store, named, office.artifacts, permit=Router(repository, ())).submit(wanted)


@pytest.mark.parametrize(
    ("bounds", "asked", "use"),
    [
        pytest.param(ANY_USE, None, COMMERCIAL, id="nothing said anywhere"),
        pytest.param(ANY_USE, NON_COMMERCIAL, NON_COMMERCIAL, id="no keys"),
        pytest.param(UseBounds(NON_COMMERCIAL), None, NON_COMMERCIAL, id="the key's"),
        pytest.param(UseBounds(NON_COMMERCIAL), COMMERCIAL, COMMERCIAL, id="stricter than the key"),
        pytest.param(UseBounds(COMMERCIAL, bound=True), COMMERCIAL, COMMERCIAL, id="the same"),
        pytest.param(UseBounds(COMMERCIAL, bound=True), NON_COMMERCIAL, None, id="looser than the key"),
    ],
)
def test_a_key_for_commercial_work_takes_no_other(bounds: UseBounds, asked: Use | None, use: Use | None) -> None:
    if use is not None:
        assert bounds.use_of(asked) == use
        return
    with pytest.raises(Forbidden, match="use: the key is for commercial work alone"):
        bounds.use_of(asked)


async def test_an_unknown_use_is_refused_with_those_there_are(office: Office) -> None:
    with pytest.raises(ValueError, match="'commercial' or 'non_commercial'"):
        JobRequest.model_validate({"type": "film", "input": {}, "use": "personal"})
