import asyncio
from typing import Any

import pytest
import sqlalchemy as sa

from serving.errors import BadInput, TooMany, Unprocessable
from serving.jobs.submit import JobDesk, JobRequest, request_digest
from serving.jobs.tables import jobs
from serving.jobs.types import JobState, Lane
from tests.serving.jobs.film import film_type
from tests.serving.jobs.office import Office

NOWHERE = {"sha256": "0" * 64, "size_bytes": 3, "name": "poster.png", "media_type": "image/png"}


@pytest.mark.parametrize(
    ("body", "field", "words"),
    [
        pytest.param({"type": "flim", "input": {}}, "type", "one of film", id="unknown type"),
        pytest.param({"input": {}}, "input.title", "field required: add the field", id="missing field"),
        pytest.param({"input": {"title": ""}}, "input.title", "at least 1 character", id="empty text"),
        pytest.param({"input": {"title": "x" * 121}}, "input.title", "at most 120 characters", id="long text"),
        pytest.param({"input": {"title": "x", "clisp": 3}}, "input.clisp", "did you mean 'clips'?", id="unknown field"),
        pytest.param({"input": {"title": "x", "clips": "many"}}, "input.clips", "valid integer", id="wrong type"),
        pytest.param({"input": {"title": "x", "seconds": 0}}, "input.seconds", "greater than 0", id="zero duration"),
        pytest.param({"input": {"title": "x", "seconds": -1}}, "input.seconds", "greater than 0", id="negative"),
        pytest.param({"input": {"title": "x", "poster": "a.png"}}, "input.poster", "ArtifactRef", id="a path"),
        pytest.param({"input": {"title": "x", "poster": NOWHERE}}, "input.poster", "upload it", id="no such artifact"),
        pytest.param({"input": {"title": "x\0"}}, "input.title", "NUL", id="NUL"),
        pytest.param({"input": {"title": "x", "a\0": 1}}, "input", "NUL", id="NUL in a name"),
        pytest.param({"input": {"title": "x", "clips": 10**4000}}, "input.clips", "50 or less", id="huge number"),
        pytest.param({"input": {"title": "x"}, "stop_at": "scroe"}, "stop_at", "did you mean 'score'?", id="no stage"),
        pytest.param(
            {"input": {"title": "x", "actors": ["nobody"]}},
            "input.actors[0]",
            "name somebody",
            id="the type's own check",
        ),
    ],
)
async def test_bad_input_names_field_and_fix_and_stores_nothing(
    office: Office, body: dict[str, Any], field: str, words: str
) -> None:
    with pytest.raises(Unprocessable) as caught:
        await office.desk.submit(JobRequest.model_validate({"type": "film", **body}))
    assert caught.value.field == field
    assert words in str(caught.value)
    assert (await office.store.page()).jobs == []


async def test_several_problems_are_told_at_once(office: Office) -> None:
    with pytest.raises(Unprocessable, match=r"input\.title.*input\.clips.*input\.seconds"):
        await office.desk.submit(JobRequest(type="film", input={"title": 1, "clips": "x", "seconds": []}))


async def test_every_problem_is_complete_by_itself(office: Office) -> None:
    with pytest.raises(Unprocessable) as caught:
        await office.desk.submit(JobRequest(type="film", input={"title": "", "seconds": 99, "trouble": "rain"}))
    told = str(caught.value).split("; ")
    assert told == [
        "input.title: it is empty, and needs at least 1 character: write some text",
        "input.seconds: input should be less than or equal to 60: write 60 or less",
        told[2],
    ]
    assert told[2].startswith("input.trouble: input should be 'none', 'broken'")


async def test_a_misspelt_field_is_one_problem_not_two(office: Office) -> None:
    with pytest.raises(Unprocessable) as caught:
        await office.desk.submit(JobRequest(type="film", input={"titel": "A film"}))
    assert str(caught.value) == "input.titel: there is no such field: did you mean 'title'?"


async def test_a_reference_with_the_wrong_size_is_refused(office: Office) -> None:
    ref = await office.artifacts.put_bytes(b"png", media_type="image/png", name="poster.png")
    with pytest.raises(Unprocessable, match="has 3 bytes, not 4") as caught:
        await office.submit(poster={**ref.model_dump(), "size_bytes": 4})
    assert caught.value.field == "input.poster.size_bytes"


async def test_an_accepted_job_waits_in_its_types_lane(office: Office) -> None:
    record = await office.submit(clips=2)
    assert (record.state, record.lane, record.queue_position) == (JobState.QUEUED, Lane.MEDIUM, 1)
    assert (record.timeout_s, record.tries) == (60, 2)
    assert record.title == "A film"
    assert record.input["seconds"] == 0.02
    assert [stage.name for stage in record.stages] == ["clips", "titles", "score", "captions"]


async def test_the_same_key_and_request_give_the_same_job(office: Office) -> None:
    records = await asyncio.gather(*[office.submit(key="k", clips=2) for _ in range(8)])
    assert len({record.id for record in records}) == 1
    assert len((await office.store.page()).jobs) == 1


async def test_the_same_key_for_another_request_is_refused(office: Office) -> None:
    await office.submit(key="k", clips=2)
    with pytest.raises(Unprocessable, match="use a new key"):
        await office.submit(key="k", clips=3)


async def refuse(*_: object) -> None:
    raise BadInput("there is no host studio.example", field="webhook.url", fix="check its spelling")


@pytest.mark.parametrize("names", [{"key": "k"}, {"source": "redis:films", "message_id": "7"}], ids=["key", "message"])
async def test_what_is_known_is_answered_whatever_its_check_would_say_now(
    office: Office, names: dict[str, str]
) -> None:
    poster = await office.artifacts.put_bytes(b"png", media_type="image/png", name="poster.png")
    values = {
        "type": "film",
        "input": {"title": "x", "poster": poster.model_dump()},
        "webhook": {"url": "https://a.example"},
    }
    request = JobRequest.model_validate(values)
    first, _ = await office.desk.submit(request, **names)
    changed = JobDesk(office.store, {"film": film_type(check=refuse)}, office.artifacts, refuse)
    again, created = await changed.submit(request, **names)
    assert (again.id, again.queue_position, created) == (first.id, 1, False)
    with pytest.raises(Unprocessable, match=r"studio\.example"):
        await changed.submit(request, key="another")


@pytest.mark.parametrize(("age_s", "is_new"), [(24 * 3600 - 60, False), (24 * 3600 + 1, True)], ids=["in time", "late"])
async def test_a_key_names_its_job_for_a_day(office: Office, age_s: float, is_new: bool) -> None:
    first = await office.submit(key="k")
    old = sa.update(jobs).where(jobs.c.id == first.id).values(created_at=first.created_at - age_s)
    await office.database.run(lambda connection: connection.execute(old))
    again = await office.submit(key="k")
    assert (again.id != first.id) is is_new
    assert (await office.submit(key="k")).id == again.id


async def test_keys_are_each_tenants_own(office: Office) -> None:
    request = JobRequest(type="film", input={"title": "x"})
    anna, _ = await office.desk.submit(request, key="k", tenant="anna")
    ben, made = await office.desk.submit(request, key="k", tenant="ben")
    assert made
    assert anna.id != ben.id


async def test_a_message_is_one_job_however_often_it_comes(office: Office) -> None:
    request = JobRequest(type="film", input={"title": "x"})
    first, made = await office.desk.submit(request, source="studio", message_id="m-1")
    again, made_again = await office.desk.submit(request, source="studio", message_id="m-1")
    assert (made, made_again) == (True, False)
    assert first.id == again.id
    other, made = await office.desk.submit(request, source="other", message_id="m-1")
    assert made
    assert other.id != first.id


async def test_what_a_job_asks_for_is_kept_with_it(office: Office) -> None:
    wanted = JobRequest(type="film", input={"title": "x"}, deadline_s=60, stop_at="score", use_cache=False)
    record, _ = await office.desk.submit(wanted, tenant="anna")
    query = sa.select(jobs).where(jobs.c.id == record.id)
    row = await office.database.run(lambda connection: connection.execute(query).one())
    assert (row.tenant, row.stop_at, row.use_cache, row.source) == ("anna", "score", False, "http")
    assert row.deadline_at == pytest.approx(row.created_at + 60, abs=5)


async def test_an_overlong_key_is_refused(office: Office) -> None:
    with pytest.raises(Unprocessable, match="1 to 190 characters"):
        await office.submit(key="k" * 191)


async def test_a_full_queue_refuses_for_now(office: Office) -> None:
    for _ in range(20):
        await office.submit()
    with pytest.raises(TooMany, match="20 jobs are waiting"):
        await office.submit()


def test_the_digest_does_not_depend_on_the_order_of_keys() -> None:
    one = JobRequest(type="film", input={"a": 1, "b": {"c": 2, "d": 3}})
    two = JobRequest(type="film", input={"b": {"d": 3, "c": 2}, "a": 1})
    assert request_digest(one) == request_digest(two)
    assert request_digest(one) != request_digest(JobRequest(type="film", input={"a": 2, "b": {"c": 2, "d": 3}}))


async def test_a_job_type_may_predict_what_a_request_costs(office: Office) -> None:
    clips_cost = film_type(predict=lambda request: 3.0 * request.clips)
    desk = JobDesk(office.store, {"film": clips_cost}, office.artifacts)
    request = JobRequest.model_validate({"type": "film", "input": {"title": "A film", "clips": 4}})
    record, _ = await desk.submit(request, key=None)
    query = sa.select(jobs.c.predicted_s).where(jobs.c.id == record.id)
    assert await office.database.run(lambda connection: connection.scalar(query)) == 12.0
