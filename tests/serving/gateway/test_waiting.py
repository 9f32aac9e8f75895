import asyncio
import time

import pytest

from serving.gateway.waiting import retry_after_s, wanted_wait_s
from tests.serving.gateway.site import Site

FILM = {"type": "film", "input": {"title": "A film", "clips": 1}}


@pytest.mark.parametrize(
    ("header", "seconds"),
    [
        pytest.param(None, None, id="none"),
        pytest.param("respond-async", None, id="another preference"),
        pytest.param("wait=5", 5, id="plain"),
        pytest.param('respond-async, Wait = "7"; x=1', 7, id="quoted, among others"),
        pytest.param("wait=99999999", 30, id="bounded"),
        pytest.param("wait=-1", None, id="negative"),
        pytest.param("wait=" + "9" * 5000, None, id="no number anybody means"),
        pytest.param("wait=٣", None, id="other digits"),
    ],
)
def test_the_preference_is_read_as_rfc_7240_has_it(header: str | None, seconds: int | None) -> None:
    assert wanted_wait_s(header, 30) == seconds


@pytest.mark.usefixtures("worker")
async def test_a_submission_that_waits_is_answered_with_the_ended_job(site: Site) -> None:
    answer = await site.http.post("/v1/jobs", json=FILM, headers={"Prefer": "wait=20"})
    assert (answer.status_code, answer.json()["state"]) == (200, "completed")
    assert answer.headers["preference-applied"] == "wait=20"
    assert "retry-after" not in answer.headers
    assert set(answer.json()["artifacts"]) == {"captions", "score"}


async def test_a_submission_waits_no_longer_than_it_asked_to(site: Site) -> None:
    began = time.monotonic()
    answer = await site.http.post("/v1/jobs", json=FILM, headers={"Prefer": "wait=1"})
    assert 0.9 < time.monotonic() - began < 20
    assert (answer.status_code, answer.json()["state"]) == (202, "queued")
    assert int(answer.headers["retry-after"]) >= 1


async def test_a_cancelled_job_ends_the_wait(site: Site) -> None:
    asking = asyncio.create_task(site.http.post("/v1/jobs", json=FILM, headers={"Prefer": "wait=20"}))
    for _ in range(500):
        if jobs := (await site.office.store.page()).jobs:
            break
        await asyncio.sleep(0.02)
    await site.office.store.cancel(jobs[0].id)
    answer = await asyncio.wait_for(asking, 19)
    assert (answer.status_code, answer.json()["state"]) == (200, "cancelled")


async def test_when_to_ask_again_follows_the_estimate_within_bounds(site: Site) -> None:
    record = await site.office.submit()
    for estimate, seconds in ((None, 1), (0.2, 1), (41.2, 42), (1e9, 3600)):
        assert retry_after_s(record.model_copy(update={"estimated_wait_s": estimate})) == seconds
