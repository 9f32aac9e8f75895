import pytest

from tests.serving.gateway.site import Site


@pytest.mark.parametrize("path", ["/", "/v1/jobs", "/nothing", "/static/reelmesh.js", "/healthz"])
async def test_every_answer_carries_the_security_headers(site: Site, path: str) -> None:
    headers = (await site.http.get(path)).headers
    assert headers["x-content-type-options"] == "nosniff"
    assert headers["x-frame-options"] == "DENY"
    assert "default-src 'none'" in headers["content-security-policy"]


async def test_another_sites_page_cannot_make_jobs_or_cancel_them(site: Site) -> None:
    job = await site.office.submit()
    for path in ("/v1/jobs", f"/v1/jobs/{job.id}/cancel", f"/jobs/{job.id}/cancel", "/v1/artifacts"):
        answer = await site.http.post(path, content=b"{}", headers={"Sec-Fetch-Site": "cross-site"})
        assert answer.status_code == 403
    assert (await site.office.store.get(job.id)).state == "queued"
    own = await site.http.post(f"/jobs/{job.id}/cancel", headers={"Sec-Fetch-Site": "same-origin"})
    assert own.status_code == 303


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        pytest.param({"Origin": "http://elsewhere.example"}, 403, id="another site"),
        pytest.param({"Origin": "null"}, 403, id="a page without a site"),
        pytest.param({}, 202, id="no browser"),
    ],
)
async def test_where_browsers_send_no_fetch_metadata_the_origin_decides(
    site: Site, headers: dict[str, str], status: int
) -> None:
    body = {"type": "film", "input": {"title": "A film"}}
    assert (await site.http.post("/v1/jobs", json=body, headers=headers)).status_code == status
    own = {"Origin": site.url}
    assert (await site.http.post("/v1/jobs", json=body, headers=own)).status_code == 202


async def test_a_crash_is_answered_counted_and_carries_the_headers(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    async def crash(*_: object, **__: object) -> None:
        raise RuntimeError("a secret of the database")

    monkeypatch.setattr(site.office.store, "page", crash)
    answer = await site.http.get("/v1/jobs")
    assert (answer.status_code, answer.json()["error"]["code"]) == (500, "engine_failed")
    assert "secret" not in answer.text
    assert answer.headers["x-frame-options"] == "DENY"
    assert 'method="GET",route="/v1/jobs",status="500"' in (await site.http.get("/metrics/own")).text


async def test_methods_that_clients_make_up_are_counted_as_one(site: Site) -> None:
    await site.http.request("PROPFIND", "/v1/jobs")
    text = (await site.http.get("/metrics/own")).text
    assert 'method="other"' in text
    assert "PROPFIND" not in text
