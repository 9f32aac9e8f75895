import time
from typing import Any

import pytest

from serving.jobs.tables import jobs
from serving.protocol.keys import GRANT_HEADER, KEY_HEADER
from tests.serving.gateway.site import Site

BEN = {KEY_HEADER: "ben", GRANT_HEADER: "jobs/*"}


@pytest.mark.usefixtures("worker")
async def test_a_retry_is_a_new_job_with_the_edits_of_the_body(site: Site) -> None:
    old = (await site.office.submit(clips=1)).id
    await site.office.until(old)
    edits = {"input": {"title": "Another film"}}
    answer = await site.http.post(f"/v1/jobs/{old}/retry", json=edits)
    assert answer.status_code == 202
    new = answer.json()
    assert answer.headers["location"] == f"/v1/jobs/{new['id']}"
    assert int(answer.headers["retry-after"]) >= 1
    assert (new["parent_id"], new["from_stage"], new["title"]) == (old, None, "Another film")
    assert (await site.office.until(new["id"])).state == "completed"
    assert new["edits"] == edits
    [fork] = (await site.http.get("/v1/jobs", params={"parent": old})).json()["data"]
    assert (fork["id"], fork["edits"], fork["input"]) == (new["id"], None, {}), "what may be long is left out"


@pytest.mark.parametrize(
    ("query", "body", "status", "param"),
    [
        pytest.param("?from=scroe", b"", 422, "from", id="no such stage"),
        pytest.param("?stop_at=scroe&from=score", b"", 422, "stop_at", id="no such last stage"),
        pytest.param("?from=score", b'{"input": {"title": "x"}}', 422, "from", id="a stage and edits"),
        pytest.param("", b"{", 400, "body", id="no JSON"),
        pytest.param("", b"[]", 400, "body", id="a list"),
        pytest.param("", b'{"inptu": {}}', 422, "edits.inptu", id="unknown field"),
        pytest.param("", b'{"input": {"clips": "many"}}', 422, "input.clips", id="wrong type"),
        pytest.param("", b" " * 5000, 413, None, id="long body"),
    ],
)
async def test_bad_retries_make_no_job(site: Site, query: str, body: bytes, status: int, param: str | None) -> None:
    old = (await site.office.submit()).id
    await site.office.store.cancel(old)
    answer = await site.http.post(f"/v1/jobs/{old}/retry{query}", content=body)
    assert (answer.status_code, answer.json()["error"]["param"]) == (status, param)
    assert len((await site.office.store.page()).jobs) == 1


async def test_only_ended_jobs_of_ones_own_can_be_retried(site: Site) -> None:
    job_id = (await site.office.submit()).id
    assert (await site.http.post(f"/v1/jobs/{job_id}/retry")).status_code == 409
    await site.office.store.cancel(job_id)
    for action in ("retry", "redrive"):
        assert (await site.http.post(f"/v1/jobs/{job_id}/{action}", headers=BEN)).status_code == 404


async def test_a_dead_letter_is_listed_until_it_is_re_driven(site: Site) -> None:
    job_id = (await site.office.submit()).id
    not_dead = await site.http.post(f"/v1/jobs/{job_id}/redrive")
    assert (not_dead.status_code, not_dead.json()["error"]["code"]) == (409, "conflict")
    ended: dict[str, Any] = {"state": "failed", "dead_at": time.time(), "finished_at": time.time()}
    await site.office.database.run(lambda connection: connection.execute(jobs.update().values(**ended)))

    async def dead() -> list[str]:
        return [job["id"] for job in (await site.http.get("/v1/jobs?dead=true")).json()["data"]]

    assert await dead() == [job_id]
    answer = await site.http.post(f"/v1/jobs/{job_id}/redrive")
    assert (answer.status_code, answer.json()["parent_id"]) == (202, job_id)
    assert await dead() == []
