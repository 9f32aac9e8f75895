import json
from typing import Any

import pytest

from serving.jobs.worker import JobWorker
from tests.serving.gateway.site import Site

DEEP = b'{"type": "film", "input": ' + b"[" * 1000 + b"]" * 1000 + b"}"


async def test_a_submitted_job_is_accepted_with_its_address(site: Site) -> None:
    answer = await site.http.post("/v1/jobs", json={"type": "film", "input": {"title": "A film"}, "lane": "high"})
    assert answer.status_code == 202
    job = answer.json()
    assert answer.headers["location"] == job["url"] == f"/v1/jobs/{job['id']}"
    assert (job["object"], job["state"], job["lane"], job["queue_position"]) == ("job", "queued", "high", 1)
    assert (await site.http.get(job["url"])).json() == job


@pytest.mark.parametrize(
    ("body", "status", "param", "words"),
    [
        pytest.param(b"", 400, None, "body is empty", id="nothing"),
        pytest.param(b"{", 400, "body", "not valid JSON", id="broken JSON"),
        pytest.param(b"[]", 400, "body", "must be a JSON object", id="a list"),
        pytest.param(b"\xff\xfe", 400, "body", "not valid JSON", id="no text"),
        pytest.param(DEEP, 400, "body", "nested more than", id="deep JSON"),
        pytest.param(b'{"type": "film", "input": {"title": "x", "title": ""}}', 422, "input.title", "", id="twice"),
        pytest.param(b"{}", 422, "type", "field required", id="no type"),
        pytest.param(b'{"type": "film", "input": [1]}', 422, "input", "valid dictionary", id="input is no object"),
        pytest.param(b'{"type": "film", "input": {}, "x": 1}', 422, "x", "remove the field", id="unknown field"),
        pytest.param(b'{"type": "film", "input": {}, "lane": "now"}', 422, "lane", "'critical'", id="unknown lane"),
        pytest.param(
            b'{"type": "film", "input": {}, "timeout_s": 0}', 422, "timeout_s", "greater than 0", id="no time"
        ),
        pytest.param(b'{"type": "film", "input": {}, "timeout_s": 1e9}', 422, "timeout_s", "86400", id="too much time"),
        pytest.param(b'{"type": "flim", "input": {}}', 422, "type", "one of film", id="unknown type"),
        pytest.param(b'{"type": "film", "input": {"clips": 3}}', 422, "input.title", "add the field", id="no title"),
        pytest.param(b" " * 5000, 413, None, "at most 4,096 bytes", id="long body"),
    ],
)
async def test_bad_requests_name_field_and_fix_in_openais_shape_and_store_nothing(
    site: Site, body: bytes, status: int, param: str | None, words: str
) -> None:
    answer = await site.http.post("/v1/jobs", content=body)
    assert answer.status_code == status
    error = answer.json()["error"]
    assert set(error) == {"message", "type", "param", "code"}
    assert (error["type"], error["param"]) == ("invalid_request_error", param)
    assert words in error["message"]
    assert (await site.http.get("/v1/jobs")).json()["data"] == []


async def test_an_artifact_that_was_not_uploaded_is_refused(site: Site) -> None:
    poster = {"sha256": "1" * 64, "size_bytes": 5, "media_type": "image/png", "name": "poster.png"}
    answer = await site.http.post("/v1/jobs", json={"type": "film", "input": {"title": "x", "poster": poster}})
    assert answer.status_code == 422
    assert answer.json()["error"]["param"] == "input.poster"
    assert "POST /v1/artifacts" in answer.json()["error"]["message"]


async def test_the_same_idempotency_key_gives_the_same_job_and_another_body_is_refused(site: Site) -> None:
    body: dict[str, Any] = {"type": "film", "input": {"title": "A film"}}
    first = await site.http.post("/v1/jobs", json=body, headers={"Idempotency-Key": "k"})
    again = await site.http.post("/v1/jobs", json=body, headers={"Idempotency-Key": "k"})
    assert (first.status_code, again.status_code) == (202, 202)
    assert again.headers["idempotent-replayed"] == "true"
    assert again.json()["id"] == first.json()["id"]
    body["input"]["title"] = "Another"
    other = await site.http.post("/v1/jobs", json=body, headers={"Idempotency-Key": "k"})
    assert other.status_code == 422
    assert other.json()["error"]["param"] == "Idempotency-Key"


async def test_a_full_queue_says_when_to_come_again(site: Site) -> None:
    for _ in range(20):
        await site.office.submit()
    answer = await site.http.post("/v1/jobs", json={"type": "film", "input": {"title": "one more"}})
    assert answer.status_code == 429
    assert int(answer.headers["retry-after"]) > 0
    assert answer.json()["error"]["code"] == "too_many"


async def test_listings_are_paged_and_filtered(site: Site) -> None:
    made = [(await site.office.submit(title=f"Film {index}")).id for index in range(7)]
    await site.office.store.cancel(made[0])
    first = (await site.http.get("/v1/jobs", params={"limit": 100})).json()
    assert (len(first["data"]), first["has_more"]) == (5, True), "the bound of the settings holds"
    rest = (await site.http.get("/v1/jobs", params={"cursor": first["next_cursor"]})).json()
    assert [job["id"] for job in first["data"] + rest["data"]] == made[::-1]
    assert rest["next_cursor"] is None
    some = (await site.http.get("/v1/jobs", params={"state": ["cancelled", "failed"]})).json()
    assert [job["id"] for job in some["data"]] == [made[0]]
    assert (await site.http.get("/v1/jobs", params={"lane": "low"})).json()["data"] == []


@pytest.mark.parametrize(
    ("path", "status", "param"),
    [
        pytest.param("/v1/jobs?limit=0", 422, "limit", id="limit"),
        pytest.param("/v1/jobs?state=gone", 422, "state.0", id="state"),
        pytest.param("/v1/jobs?cursor=" + "x" * 65, 422, "cursor", id="cursor"),
        pytest.param("/v1/jobs/nope", 404, None, id="job"),
        pytest.param("/v1/jobs/nope/events", 404, None, id="events"),
        pytest.param("/v1/jobs/nope/artifacts/x", 404, None, id="file"),
        pytest.param("/v1/nothing", 404, None, id="route"),
    ],
)
async def test_wrong_reads_are_told_in_the_same_shape(site: Site, path: str, status: int, param: str | None) -> None:
    answer = await site.http.get(path)
    assert answer.status_code == status
    assert answer.json()["error"]["param"] == param


async def test_job_types_tell_stages_and_the_schema_with_its_files(site: Site) -> None:
    [film] = (await site.http.get("/v1/job-types")).json()["data"]
    assert film["name"] == "film"
    assert [stage["name"] for stage in film["stages"]] == ["clips", "titles", "score", "captions"]
    assert film["input_schema"]["$defs"]["ArtifactRef"]["format"] == "artifact"


async def test_the_openapi_document_describes_every_route(site: Site) -> None:
    paths = (await site.http.get("/openapi.json")).json()["paths"]
    assert "JobRequest" in json.dumps(paths["/v1/jobs"]["post"]) or "input" in json.dumps(paths["/v1/jobs"]["post"])
    assert {"/v1/jobs", "/v1/jobs/{job_id}/events", "/v1/artifacts", "/healthz", "/metrics"} <= set(paths)


async def test_cancel_is_answered_at_once_and_only_once(site: Site) -> None:
    job_id = (await site.office.submit()).id
    answer = await site.http.post(f"/v1/jobs/{job_id}/cancel")
    assert (answer.status_code, answer.json()["state"]) == (202, "cancelled")
    again = await site.http.post(f"/v1/jobs/{job_id}/cancel")
    assert (again.status_code, again.json()["error"]["code"]) == (409, "conflict")


@pytest.mark.usefixtures("worker")
async def test_result_files_answer_range_requests(site: Site) -> None:
    job_id = (await site.office.submit(clips=1)).id
    await site.office.until(job_id)
    files = (await site.http.get(f"/v1/jobs/{job_id}")).json()["artifacts"]
    assert set(files) == {"captions", "score"}
    whole = await site.http.get(files["score"]["url"])
    assert (whole.status_code, whole.content) == (200, b"sound 1000")
    assert whole.headers["content-type"] == "audio/wav"
    assert whole.headers["accept-ranges"] == "bytes"
    part = await site.http.get(files["score"]["url"], headers={"Range": "bytes=6-7"})
    assert (part.status_code, part.content, part.headers["content-range"]) == (206, b"10", "bytes 6-7/10")
    tail = await site.http.get(files["score"]["url"], headers={"Range": "bytes=-4"})
    assert (tail.status_code, tail.content) == (206, b"1000")
    beyond = await site.http.get(files["score"]["url"], headers={"Range": "bytes=50-"})
    assert beyond.status_code == 416
    head = await site.http.head(files["score"]["url"])
    assert (head.status_code, head.headers["content-length"]) == (200, "10")
    known = await site.http.get(files["score"]["url"], headers={"If-None-Match": whole.headers["etag"]})
    assert known.status_code in {200, 304}
    saved = await site.http.get(files["captions"]["url"], params={"download": True})
    assert saved.headers["content-disposition"] == 'attachment; filename="film.vtt"'
    missing = await site.http.get(f"/v1/jobs/{job_id}/artifacts/nope")
    assert missing.status_code == 404
    assert "captions, score" in missing.json()["error"]["message"]


async def test_a_job_without_results_has_no_files_yet(site: Site) -> None:
    job_id = (await site.office.submit()).id
    answer = await site.http.get(f"/v1/jobs/{job_id}/artifacts/score")
    assert answer.status_code == 404
    assert "the job is queued" in answer.json()["error"]["message"]


async def test_a_worker_tells_its_metrics(site: Site, worker: JobWorker) -> None:
    await site.office.until((await site.office.submit(clips=1)).id)
    name, text = await worker.metrics()
    assert name == worker.id
    assert 'reelmesh_jobs_finished_total{state="completed",type="film"}' in text
    assert 'reelmesh_stage_seconds_count{stage="clips",type="film"}' in text


async def test_delete_cancels_as_cancel_does(site: Site) -> None:
    job_id = (await site.office.submit()).id
    answer = await site.http.delete(f"/v1/jobs/{job_id}")
    assert (answer.status_code, answer.json()["state"]) == (202, "cancelled")
    assert (await site.http.delete(f"/v1/jobs/{job_id}")).status_code == 409


async def test_a_job_tells_percent_place_costs_and_when_to_ask_again(site: Site) -> None:
    answer = await site.http.post("/v1/jobs", json={"type": "film", "input": {"title": "x"}, "stop_at": "score"})
    job = answer.json()
    assert (job["progress"], job["queue_position"], job["cpu_s"], job["gpu_s"]) == (0, 1, 0, 0)
    assert (job["stop_at"], job["use_cache"], job["deadline_at"], job["artifacts"]) == ("score", True, None, {})
    assert {"cpu_s", "gpu_s", "replicas", "artifacts"} <= set(job["stages"][0])
    assert 1 <= int(answer.headers["retry-after"]) <= 3600


@pytest.mark.usefixtures("worker")
async def test_an_ended_job_is_at_100_percent_and_is_answered_again_with_200(site: Site) -> None:
    body = {"type": "film", "input": {"title": "x", "clips": 1}}
    job_id = (await site.http.post("/v1/jobs", json=body, headers={"Idempotency-Key": "k"})).json()["id"]
    await site.office.until(job_id)
    again = await site.http.post("/v1/jobs", json=body, headers={"Idempotency-Key": "k"})
    assert (again.status_code, again.json()["id"], again.json()["progress"]) == (200, job_id, 100)
    assert "retry-after" not in again.headers


@pytest.mark.parametrize(
    ("body", "status", "param"),
    [
        pytest.param(b'{"type": "film", "input": {"title": "a\\u0000b"}}', 422, "input.title", id="NUL"),
        pytest.param(b'{"type": "film", "input": {"title": "\\ud800"}}', 400, "body", id="half a surrogate pair"),
        pytest.param(b'{"type": "film\\u0000", "input": {}}', 422, "type", id="NUL in the type"),
        pytest.param(
            b'{"type": "film", "input": {"title": "x", "clips": 1' + b"0" * 3000 + b"}}", 422, "input.clips", id="huge"
        ),
        pytest.param(
            b'{"type": "film", "input": {"title": "x", "seconds": 1e999}}', 422, "input.seconds", id="infinite"
        ),
        pytest.param(b'{"type": "film", "input": {"title": "x", "seconds": NaN}}', None, None, id="no number"),
        pytest.param(b'{"type": null, "input": null}', 422, "type", id="nulls"),
        pytest.param(b'{"type": "film", "input": {"title": null}}', 422, "input.title", id="null within"),
        pytest.param(b'{"type": "film", "input": {"title": "x"}, "deadline_s": -1}', 422, "deadline_s", id="deadline"),
        pytest.param(b'{"type": "film", "input": {"title": "x"}, "deadline_s": "1"}', 422, "deadline_s", id="a text"),
        pytest.param(b'{"type": "film", "input": {"title": "x"}, "use_cache": 1}', 422, "use_cache", id="a number"),
        pytest.param(b'{"type": "film", "input": {"title": "x"}, "stop_at": "end"}', 422, "stop_at", id="no stage"),
        pytest.param(b'{"type": "film", "input": {"title": "x"}, "tenant": "root"}', 422, "tenant", id="tenant"),
    ],
)
async def test_hostile_bodies_are_refused_and_store_nothing(
    site: Site, body: bytes, status: int | None, param: str | None
) -> None:
    answer = await site.http.post("/v1/jobs", content=body)
    assert answer.status_code in ({status} if status else {400, 422})
    if param:
        assert answer.json()["error"]["param"] == param
    assert (await site.office.store.page()).jobs == []


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/v1/jobs/%00", 404),
        ("GET", "/v1/jobs/%ff%fe", 404),
        ("GET", "/v1/jobs/" + "a" * 3000, 404),
        ("GET", "/v1/jobs/0/artifacts/%00", 404),
        ("GET", "/v1/jobs/..%2f..%2fetc", 404),
        ("GET", "/v1/jobs?type=%00", 422),
        ("GET", "/v1/jobs?cursor=%00", 422),
        ("GET", "/v1/jobs?tenant=%00", 422),
        ("GET", "/v1/jobs?limit=" + "9" * 500, 422),
        ("GET", "/v1/jobs?dead=maybe", 422),
        ("PUT", "/v1/jobs", 405),
        ("PATCH", "/v1/jobs/0", 405),
        ("DELETE", "/v1/jobs/%00", 404),
    ],
)
async def test_hostile_addresses_are_answered_in_the_same_shape(
    site: Site, method: str, path: str, status: int
) -> None:
    answer = await site.http.request(method, path)
    assert answer.status_code == status
    assert set(answer.json()["error"]) == {"message", "type", "param", "code"}


@pytest.mark.parametrize("key", ["k" * 191, ""])
async def test_an_idempotency_key_of_the_wrong_length_is_refused(site: Site, key: str) -> None:
    body = {"type": "film", "input": {"title": "x"}}
    answer = await site.http.post("/v1/jobs", json=body, headers={"Idempotency-Key": key})
    assert (answer.status_code, answer.json()["error"]["param"]) == (422, "Idempotency-Key")
