from prometheus_client.parser import text_string_to_metric_families

from tests.serving.gateway.site import Site


async def test_health_tells_that_jobs_can_be_taken(site: Site) -> None:
    answer = await site.http.get("/healthz")
    assert (answer.status_code, answer.json()) == (200, {"status": "ok", "job_types": ["film"]})


async def test_metrics_count_jobs_requests_and_what_waits(site: Site) -> None:
    await site.office.submit(lane="low")
    await site.http.get("/v1/jobs/nope")
    for path in ("/metrics", "/metrics/own"):
        families = {family.name: family for family in text_string_to_metric_families((await site.http.get(path)).text)}
        jobs = [sample for sample in families["reelmesh_jobs"].samples if sample.value]
        assert [(sample.labels["type"], sample.labels["state"], sample.value) for sample in jobs] == [
            ("film", "queued", 1)
        ]
        depth = {sample.labels["queue"]: sample.value for sample in families["reelmesh_queue_depth"].samples}
        assert depth["lane:low"] == 1
        assert depth["lane:high"] == 0
        routes = {sample.labels["route"] for sample in families["reelmesh_http_requests"].samples}
        assert "/v1/jobs/{job_id}" in routes
        assert not any("nope" in route for route in routes)
