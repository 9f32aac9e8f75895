"""The pages of a mesh whose artifacts lie in S3 (moto's server, over HTTP)."""

from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import boto3
import pytest
from moto.server import ThreadedMotoServer

from serving.errors import EngineFailed
from tests.serving.gateway.site import Site, open_site, open_worker


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    running = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    running.start()
    host, port = running.get_host_and_port()
    yield f"http://{host}:{port}"
    running.stop()


@pytest.fixture
async def in_s3(server: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Site]:
    told = {"AWS_ACCESS_KEY_ID": "test", "AWS_SECRET_ACCESS_KEY": "test", "AWS_DEFAULT_REGION": "us-east-1"}
    for name, value in {**told, "AWS_ENDPOINT_URL": server, "AWS_ALLOW_HTTP": "true"}.items():
        monkeypatch.setenv(name, value)
    client = boto3.client("s3")
    client.create_bucket(Bucket="studio")
    client.close()
    async with open_site(tmp_path / "home", artifacts_url="s3://studio/films") as opened:
        yield opened


def sources(policy: str, kind: str) -> list[str]:
    return next(part.split()[1:] for part in policy.split("; ") if part.startswith(kind))


async def test_the_player_may_follow_to_the_store_and_nothing_else_may(in_s3: Site, server: str) -> None:
    async with open_worker(in_s3.office):
        job = await in_s3.office.until((await in_s3.office.submit(clips=1)).id)
    for path in ("/", f"/jobs/{job.id}"):
        policy = (await in_s3.http.get(path)).headers["content-security-policy"]
        assert sources(policy, "media-src") == ["'self'", server]
        assert sources(policy, "img-src") == ["'self'", "data:", server]
        assert policy.count(server) == 2
    answer = await in_s3.http.get(f"/v1/jobs/{job.id}/artifacts/score")
    assert answer.status_code == 307
    assert answer.headers["location"].startswith(f"{server}/")
    assert server not in answer.headers["content-security-policy"]


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
