"""Every operation of the gateway is asked with what its schema allows and what it forbids, by schemathesis."""

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis.errors import Unsatisfiable
from hypothesis.strategies import SearchStrategy
from schemathesis import Case, GenerationMode
from schemathesis.specs.openapi.checks import positive_data_acceptance

from tests.serving.gateway.site import Site, open_site

CASES = 4
"""Of each operation, both of what its schema allows and of what it forbids."""
UNCHECKED = [positive_data_acceptance]
"""A job's input is bound by its type's schema, which the document of all types cannot say."""
METHODS = {"get", "post", "put", "delete", "patch", "head", "options", "trace"}


@pytest.fixture
async def document(site: Site) -> dict[str, Any]:
    answer: dict[str, Any] = (await site.http.get("/openapi.json")).json()
    return answer


def test_every_reference_in_the_document_leads_somewhere(document: dict[str, Any]) -> None:
    text = json.dumps(document)
    names = {part.partition('"')[0] for part in text.split("#/components/schemas/")[1:]}
    assert names <= set(document["components"]["schemas"])
    assert {"JobRequest", "Edits", "ErrorBody"} <= names
    assert "HTTPValidationError" not in text


def test_every_operation_on_a_job_says_how_it_fails(document: dict[str, Any]) -> None:
    for path, item in document["paths"].items():
        for method in METHODS & set(item):
            if path.startswith("/v1/jobs/{"):
                assert "404" in item[method]["responses"], f"{method} {path}"


@pytest.fixture(params=["sqlite", "postgresql"])
async def any_site(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Site]:
    url = "" if request.param == "sqlite" else request.getfixturevalue("postgres_database")
    async with open_site(tmp_path / "home", jobs_database_url=url) as opened:
        yield opened


async def test_answers_are_as_the_document_says(any_site: Site) -> None:
    site = any_site
    job_id = (await site.office.submit()).id
    await site.office.store.cancel(job_id)
    await asyncio.to_thread(ask_everything, site.url, job_id)
    assert (await site.http.get("/healthz")).status_code == 200


async def test_no_database_chokes_on_a_character_that_it_cannot_keep(any_site: Site) -> None:
    site, asked = any_site, 0
    job_id = (await site.office.submit()).id
    document = (await site.http.get("/openapi.json")).json()
    for path, item in document["paths"].items():
        for method in METHODS & set(item):
            told = item[method].get("parameters", [])
            names = [each["name"] for each in told if each["in"] == "path"]
            queries = [each["name"] for each in told if each["in"] == "query"]
            for name in (*names, *queries):
                values = {each: "%00" if each == name or each != "job_id" else job_id for each in names}
                url = path.format(**values) + (f"?{name}=%00" if name in queries else "")
                answer = await site.http.request(method, url)
                assert answer.status_code < 500, f"{method} {url}"
                asked += 1
    assert asked > 20


def ask_everything(url: str, job_id: str) -> None:
    for found in schemathesis.openapi.from_url(f"{url}/openapi.json").get_all_operations():
        operation = found.ok()
        for mode in GenerationMode:
            with contextlib.suppress(Unsatisfiable):  # an operation without parameters forbids nothing
                ask(operation.as_strategy(generation_mode=mode), job_id)


def ask(cases: SearchStrategy[Case], job_id: str) -> None:
    """Half of the cases that name a job name one that there is."""

    @settings(
        max_examples=CASES,
        deadline=None,
        derandomize=True,
        database=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(case=cases)
    def run(case: Case) -> None:
        if len(case.path_parameters.get("job_id", "")) % 2:
            case.path_parameters["job_id"] = job_id
        case.call_and_validate(excluded_checks=UNCHECKED, timeout=60)

    run()
