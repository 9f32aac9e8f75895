"""The pages of a mesh whose artifacts lie in S3 (moto's server, over HTTP)."""

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from serving.errors import EngineFailed
from tests.serving.gateway.site import Site, open_site, open_worker


@pytest.fixture
async def in_s3(bucket: Any, tmp_path: Path) -> AsyncIterator[Site]:
    async with open_site(tmp_path / "home", artifacts_url="s3://studio/films") as opened:
        yield opened


def sources(policy: str, kind: str) -> list[str]:
    return next(part.split()[1:] for part in policy.split("; ") if part.startswith(kind))


async def test_the_player_may_follow_to_the_store_and_nothing_else_may(in_s3: Site, s3_url: str) -> None:
    async with open_worker(in_s3.office):
        job = await in_s3.office.until((await in_s3.office.submit(clips=1)).id)
    for path in ("/", f"/jobs/{job.id}"):
        policy = (await in_s3.http.get(path)).headers["content-security-policy"]
        assert sources(policy, "media-src") == ["'self'", s3_url]
        assert sources(policy, "img-src") == ["'self'", "data:", s3_url]
        assert policy.count(s3_url) == 2
    answer = await in_s3.http.get(f"/v1/jobs/{job.id}/artifacts/score")
    assert answer.status_code == 307
    assert answer.headers["location"].startswith(f"{s3_url}/")
    assert s3_url not in answer.headers["content-security-policy"]


async def test_captions_come_from_the_mesh_itself_since_players_take_them_from_nowhere_else(in_s3: Site) -> None:
    async with open_worker(in_s3.office):
        job = await in_s3.office.until((await in_s3.office.submit(clips=1)).id)
    answer = await in_s3.http.get(f"/v1/jobs/{job.id}/artifacts/captions")
    assert (answer.status_code, answer.headers["content-type"]) == (200, "text/vtt; charset=utf-8")
    assert answer.text.startswith("WEBVTT")


async def test_a_store_that_is_away_takes_no_page_with_it(in_s3: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    async def fail(*_: object, **__: object) -> None:
        raise EngineFailed("the artifact store failed")

    monkeypatch.setattr(in_s3.office.artifacts, "presign", fail)
    answer = await in_s3.http.get("/")
    assert (answer.status_code, sources(answer.headers["content-security-policy"], "media-src")) == (200, ["'self'"])
