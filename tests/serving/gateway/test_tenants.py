"""Two keys from submission to result: what is one's own is shown, what is another's is not there, on every route."""

from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest

from serving.protocol.keys import GRANT_HEADER, KEY_HEADER
from tests.serving.gateway.site import Site

READS = ("get", "head")
NOWHERE = "http://198.51.100.7/hook"


def key(name: str) -> dict[str, str]:
    """What the edge sets for a key of the key file."""
    return {KEY_HEADER: name, GRANT_HEADER: "jobs/*"}


async def submit(site: Site, name: str) -> dict[str, Any]:
    body = {"type": "film", "input": {"title": f"{name}'s film", "clips": 1}, "webhook": {"url": NOWHERE}}
    answer = await site.http.post("/v1/jobs", json=body, headers={**key(name), "Idempotency-Key": "film-1"})
    assert answer.status_code == 202, answer.text
    job: dict[str, Any] = answer.json()
    return job


@pytest.fixture
async def jobs(site: Site, worker: object) -> AsyncIterator[tuple[dict[str, Any], dict[str, Any]]]:
    """Anna's and Ben's, both completed."""
    anna, ben = await submit(site, "anna"), await submit(site, "ben")
    for job in (anna, ben):
        await site.office.until(job["id"])
    yield anna, ben


async def routes_of_a_job(site: Site) -> list[tuple[str, str]]:
    """Method and path of every route that names a job, the page too."""
    paths = (await site.http.get("/openapi.json")).json()["paths"]
    told = [(method, path) for path, item in paths.items() if "{job_id}" in path for method in item]
    hidden = [("head", "/v1/jobs/{job_id}/artifacts/{name}"), ("get", "/jobs/{job_id}")]
    return [*told, *hidden]


async def ask(site: Site, method: str, path: str, job_id: str, name: str) -> httpx.Response:
    url = path.format(job_id=job_id, name="score", stage="clips")
    return await site.http.request(method, url, headers={**key(name), "Range": "bytes=0-3"})


async def test_one_key_of_two_tenants_is_two_jobs(site: Site, jobs: tuple[dict[str, Any], dict[str, Any]]) -> None:
    anna, ben = jobs
    assert anna["id"] != ben["id"]
    assert (anna["tenant"], ben["tenant"]) == ("anna", "ben")
    body = {"type": "film", "input": {"title": "anna's film", "clips": 1}, "webhook": {"url": NOWHERE}}
    again = await site.http.post("/v1/jobs", json=body, headers={**key("anna"), "Idempotency-Key": "film-1"})
    assert (again.status_code, again.json()["id"]) == (200, anna["id"])


async def test_anothers_job_is_none_on_every_route_and_ones_own_is_there(
    site: Site, jobs: tuple[dict[str, Any], dict[str, Any]]
) -> None:
    anna, _ = jobs
    routes = await routes_of_a_job(site)
    assert len(routes) >= 10
    for method, path in routes:
        foreign = await ask(site, method, path, anna["id"], "ben")
        assert foreign.status_code == 404, f"{method} {path}"
        assert "anna" not in foreign.text, f"{method} {path}"
    kept = (await site.http.get(anna["url"], headers=key("anna"))).json()
    assert (kept["state"], kept["last_event"]) == ("completed", (await site.office.store.get(anna["id"])).last_event)
    assert (await site.http.get("/v1/jobs", params={"parent": anna["id"]}, headers=key("anna"))).json()["data"] == []
    for method, path in routes:
        if method in READS:
            own = await ask(site, method, path, anna["id"], "anna")
            assert own.status_code == (206 if path.endswith("{name}") else 200), f"{method} {path}"


async def test_deliveries_of_anothers_job_are_none(site: Site, jobs: tuple[dict[str, Any], dict[str, Any]]) -> None:
    anna, ben = jobs
    listed = {
        name: (await site.http.get("/v1/deliveries", headers=key(name))).json()["data"] for name in ("anna", "ben")
    }
    assert {each["job_id"] for each in listed["anna"]} == {anna["id"]}
    assert {each["job_id"] for each in listed["ben"]} == {ben["id"]}
    sent = listed["anna"][0]["id"]
    assert (await site.http.get("/v1/deliveries", params={"job": anna["id"]}, headers=key("ben"))).status_code == 404
    assert (await site.http.post(f"/v1/deliveries/{sent}/resend", headers=key("ben"))).status_code == 404
    assert (await site.http.post(f"/v1/deliveries/{sent}/resend", headers=key("anna"))).status_code == 409
