import re

import pytest

from tests.serving.gateway.site import Site

EVIL = '<script>alert("x")</script>'


async def test_the_empty_list_says_how_to_submit(site: Site) -> None:
    page = await site.http.get("/")
    assert page.status_code == 200
    assert "No jobs yet" in page.text
    assert "reelmesh submit podcast_video" in page.text


async def test_a_page_loads_nothing_from_elsewhere_and_runs_no_inline_script(site: Site) -> None:
    job = await site.office.submit(title=EVIL)
    for path in ("/", f"/jobs/{job.id}"):
        page = await site.http.get(path)
        policy = page.headers["content-security-policy"]
        assert "default-src 'none'" in policy
        assert "script-src 'self'" in policy
        assert "unsafe" not in policy
        assert not re.search(r"<script(?![^>]* src=\"/static/)", page.text)
        assert not re.search(r"(src|href|action)=\"https?:", page.text)
        assert not re.search(r"\s(style|on\w+)=", page.text)
        for asset in set(re.findall(r"\"(/static/[\w.]+)", page.text)):
            assert (await site.http.get(asset)).status_code == 200


@pytest.mark.usefixtures("worker")
async def test_everything_people_write_is_escaped(site: Site) -> None:
    ref = await site.office.artifacts.put_bytes(b"png", media_type="image/png", name="<img src=x>.png")
    job = await site.office.submit(title=EVIL, actors=[EVIL], poster=ref.model_dump())
    await site.office.until(job.id)
    for path in ("/", f"/jobs/{job.id}"):
        text = (await site.http.get(path)).text
        assert EVIL not in text
        assert "&lt;script&gt;" in text
        assert "<img src=x>" not in text


@pytest.mark.usefixtures("worker")
async def test_a_finished_job_shows_player_captions_timeline_files_and_facts(site: Site) -> None:
    job = await site.office.submit(title="Quiet rooms")
    await site.office.until(job.id)
    text = (await site.http.get(f"/jobs/{job.id}")).text
    assert '<audio id="film"' in text
    assert "Goodbye &amp; thanks" in text
    assert 'data-seek="1.5"' in text
    for word in ("Where the time went", "ray/<wbr>fiddle", "3 parts", "film.vtt", "skipped", "-16.02", "completed"):
        assert word in text
    assert "data-confirm" not in text


@pytest.mark.usefixtures("worker")
async def test_a_failed_job_shows_stage_cause_and_fix(site: Site) -> None:
    job = await site.office.submit(trouble="broken")
    await site.office.until(job.id)
    text = (await site.http.get(f"/jobs/{job.id}")).text
    for word in ("Failed in score", "the violin has no strings", "string it"):
        assert word in text


async def test_a_page_says_that_a_job_is_not_commercial(site: Site) -> None:
    for use, said in (("non_commercial", True), ("commercial", False)):
        job = await site.http.post("/v1/jobs", json={"type": "film", "input": {"title": "x"}, "use": use})
        assert ("not commercial" in (await site.http.get(job.json()["page"])).text) is said


async def test_the_cancel_button_works_without_script(site: Site) -> None:
    job = await site.office.submit()
    assert "Next in line" in (await site.http.get(f"/jobs/{job.id}")).text
    answer = await site.http.post(f"/jobs/{job.id}/cancel")
    assert (answer.status_code, answer.headers["location"]) == (303, f"/jobs/{job.id}")
    assert "cancelled" in (await site.http.get(f"/jobs/{job.id}")).text
    assert (await site.http.post(f"/jobs/{job.id}/cancel")).status_code == 303


async def test_the_list_can_be_filtered_and_paged(site: Site) -> None:
    jobs = [await site.office.submit(title=f"Film {index}") for index in range(3)]
    await site.office.store.cancel(jobs[0].id)
    waiting = (await site.http.get("/", params={"show": "waiting"})).text
    assert "Film 1" in waiting
    assert "Film 0" not in waiting
    older = (await site.http.get("/", params={"cursor": jobs[1].id})).text
    assert "Film 0" in older
    assert "Film 2" not in older
    assert "Nothing here" in (await site.http.get("/", params={"show": "failed"})).text


async def test_an_unknown_job_has_a_page_that_says_so(site: Site) -> None:
    page = await site.http.get(f"/jobs/{EVIL}")
    assert page.status_code == 404
    page = await site.http.get("/jobs/nope")
    assert page.status_code == 404
    assert "no job is called" in page.text
