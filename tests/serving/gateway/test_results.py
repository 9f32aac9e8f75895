import pytest

from tests.serving.gateway.site import Site


@pytest.mark.usefixtures("worker")
async def test_what_a_stage_recorded_is_shown_in_pages(site: Site) -> None:
    job_id = (await site.office.submit(clips=3)).id
    await site.office.until(job_id)
    url = f"/v1/jobs/{job_id}/stages/clips/results"
    first = (await site.http.get(url, params={"limit": 2})).json()
    assert [result["part"] for result in first["data"]] == [0, 1]
    assert first["data"][0]["value"]["audio"]["name"] == "sound-0.wav"
    assert (first["data"][0]["origin"], first["data"][0]["served_by"]) == ("made", "ray/fiddle")
    last = (await site.http.get(url, params={"after": first["next_after"]})).json()
    assert [result["part"] for result in last["data"]] == [2]
    assert last["next_after"] is None
    assert (await site.http.get(f"/v1/jobs/{job_id}/stages/encore/results")).json()["data"] == []
    assert (await site.http.get("/v1/jobs/0a/stages/clips/results")).status_code == 404
