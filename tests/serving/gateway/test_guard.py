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
