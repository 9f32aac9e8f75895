from typing import Any

import httpx
import pytest

from serving.protocol.keys import GRANT_HEADER, KEY_HEADER
from serving.protocol.licences import COMMERCIAL, NON_COMMERCIAL, USE_HEADER
from tests.serving.gateway.site import Site


def key(name: str, calls: str = "jobs") -> dict[str, str]:
    """What the edge sets."""
    return {KEY_HEADER: name, GRANT_HEADER: f"{calls}/*"}


async def submitted(site: Site, name: str, **headers: str) -> dict[str, Any]:
    body = {"type": "film", "input": {"title": f"{name}'s film"}}
    answer = await site.http.post("/v1/jobs", json=body, headers={**key(name), **headers})
    assert answer.status_code == 202
    job: dict[str, Any] = answer.json()
    return job


async def listed(site: Site, path: str, headers: dict[str, str]) -> set[str]:
    return {job["id"] for job in (await site.http.get(path, headers=headers)).json()["data"]}


async def test_a_key_sees_its_own_jobs_and_control_sees_all(site: Site) -> None:
    anna, ben = await submitted(site, "anna"), await submitted(site, "ben")
    assert (anna["tenant"], ben["tenant"]) == ("anna", "ben")
    both = {anna["id"], ben["id"]}
    assert await listed(site, "/v1/jobs", key("anna")) == {anna["id"]}
    assert await listed(site, "/v1/jobs?tenant=ben", key("anna")) == {anna["id"]}
    assert await listed(site, "/v1/jobs", key("root", "control")) == both
    assert await listed(site, "/v1/jobs?tenant=ben", key("root", "control")) == {ben["id"]}
    assert await listed(site, "/v1/jobs", {}) == both, "a mesh without keys"


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", ""),
        ("GET", "/events"),
        ("GET", "/artifacts/score"),
        ("POST", "/cancel"),
        ("DELETE", ""),
    ],
)
async def test_another_tenants_job_is_as_none(site: Site, method: str, path: str) -> None:
    job = await submitted(site, "anna")
    answer = await site.http.request(method, job["url"] + path, headers=key("ben"))
    unknown = await site.http.request(method, "/v1/jobs/" + "0" * 21 + path, headers=key("ben"))
    assert answer.status_code == unknown.status_code == 404
    assert answer.text.replace(job["id"], "") == unknown.text.replace("0" * 21, "")
    assert (await site.http.get(job["url"], headers=key("anna"))).json()["state"] == "queued"


async def test_pages_show_each_tenant_its_own(site: Site) -> None:
    job = await submitted(site, "anna")
    assert job["id"] in (await site.http.get("/", headers=key("anna"))).text
    assert job["id"] not in (await site.http.get("/", headers=key("ben"))).text
    assert (await site.http.get(job["page"], headers=key("ben"))).status_code == 404
    await site.http.post(f"{job['page']}/cancel", headers=key("ben"))
    assert (await site.http.get(job["url"])).json()["state"] == "queued"


async def test_idempotency_keys_of_two_tenants_are_two(site: Site) -> None:
    same = {"Idempotency-Key": "k"}
    anna, ben = await submitted(site, "anna", **same), await submitted(site, "ben", **same)
    assert anna["id"] != ben["id"]
    assert (await submitted(site, "anna", **same))["id"] == anna["id"]


async def test_a_cursor_of_another_tenant_shows_nothing_of_it(site: Site) -> None:
    made = [await submitted(site, "anna") for _ in range(3)]
    await submitted(site, "ben")
    page = (await site.http.get("/v1/jobs?limit=1", headers=key("anna"))).json()
    assert page["data"][0]["id"] == made[-1]["id"]
    assert await listed(site, f"/v1/jobs?cursor={page['next_cursor']}", key("ben")) == set()


def worker_for(use: str, name: str = "anna", calls: str = "jobs") -> dict[str, str]:
    """What the edge sets for a key of that use."""
    return {**key(name, calls), **({USE_HEADER: use} if use == NON_COMMERCIAL else {})}


async def asked(site: Site, headers: dict[str, str], use: str | None = None) -> httpx.Response:
    body = {"type": "film", "input": {"title": "x"}} | ({} if use is None else {"use": use})
    return await site.http.post("/v1/jobs", json=body, headers=headers)


async def test_a_job_is_for_what_its_key_is_for_and_a_commercial_key_takes_no_other(site: Site) -> None:
    for headers, said, use in [
        (worker_for(COMMERCIAL), None, COMMERCIAL),
        (worker_for(COMMERCIAL), COMMERCIAL, COMMERCIAL),
        (worker_for(NON_COMMERCIAL), None, NON_COMMERCIAL),
        (worker_for(NON_COMMERCIAL), COMMERCIAL, COMMERCIAL),
        ({}, None, COMMERCIAL),
        ({}, NON_COMMERCIAL, NON_COMMERCIAL),
        ({USE_HEADER: NON_COMMERCIAL}, None, NON_COMMERCIAL),
    ]:
        assert (await asked(site, headers, said)).json()["use"] == use, (headers, said)
    refused = await asked(site, worker_for(COMMERCIAL), NON_COMMERCIAL)
    assert refused.status_code == 403
    told = refused.json()["error"]
    assert (told["code"], told["param"]) == ("permission_denied", "use")
    unknown = await asked(site, {}, "personal")
    assert (unknown.status_code, unknown.json()["error"]["param"]) == (422, "use")


@pytest.mark.parametrize("way", ["retry?from=score", "redrive"])
async def test_a_key_that_became_commercial_goes_on_with_no_job_that_was_not(site: Site, way: str) -> None:
    job = (await asked(site, worker_for(NON_COMMERCIAL))).json()
    refused = await site.http.post(f"{job['url']}/{way}", headers=worker_for(COMMERCIAL))
    assert refused.status_code == 403
    for headers in (worker_for(NON_COMMERCIAL), worker_for(COMMERCIAL, "root", "control")):
        answer = await site.http.post(f"{job['url']}/{way}", headers=headers)
        assert answer.status_code == 409, "it has not ended, which is the only thing in the way"
