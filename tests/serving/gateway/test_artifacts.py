import asyncio
import hashlib
import os
import time
from collections.abc import AsyncIterator

import pytest

from serving.gateway.artifacts import ABANDONED_S
from tests.serving.gateway.site import Site

PNG = b"\x89PNG\r\n\x1a\n" + b"0" * 100


async def test_an_upload_is_kept_by_its_content(site: Site) -> None:
    answer = await site.http.post("/v1/artifacts", params={"name": "poster.png"}, content=PNG)
    assert answer.status_code == 201
    assert answer.json() == {
        "sha256": hashlib.sha256(PNG).hexdigest(),
        "media_type": "image/png",
        "size_bytes": len(PNG),
        "name": "poster.png",
    }
    again = await site.http.post("/v1/artifacts", params={"name": "other.bin"}, content=PNG)
    assert again.json()["sha256"] == answer.json()["sha256"]
    job = await site.http.post("/v1/jobs", json={"type": "film", "input": {"title": "x", "poster": answer.json()}})
    assert job.status_code == 202


async def test_what_a_killed_gateway_left_of_uploads_goes_and_what_others_write_stays(site: Site) -> None:
    folder = site.office.settings.home / "uploads"
    folder.mkdir(parents=True)
    for name, age_s in (("tmpleft", ABANDONED_S + 60), ("tmpnow", 60)):
        (folder / name).write_bytes(PNG)
        os.utime(folder / name, times=(time.time(), time.time() - age_s))
    assert (await site.http.post("/v1/artifacts", content=PNG)).status_code == 201
    assert [path.name for path in folder.iterdir()] == ["tmpnow"]


@pytest.mark.parametrize(
    ("header", "name", "expected"),
    [
        pytest.param("image/webp", "a.png", "image/webp", id="the header wins"),
        pytest.param("image/png; charset=x", "a", "image/png", id="without parameters"),
        pytest.param("application/x-www-form-urlencoded", "a.mp4", "video/mp4", id="curl's default"),
        pytest.param("application/octet-stream", "a.jpg", "image/jpeg", id="by name"),
        pytest.param("<script>", "a", "application/octet-stream", id="nonsense"),
    ],
)
async def test_the_media_type_comes_from_the_header_or_the_name(
    site: Site, header: str, name: str, expected: str
) -> None:
    headers = {"Content-Type": header}
    answer = await site.http.post("/v1/artifacts", params={"name": name}, content=PNG, headers=headers)
    assert answer.json()["media_type"] == expected


async def test_artifacts_can_be_asked_for_and_fetched(site: Site) -> None:
    sha = (await site.http.post("/v1/artifacts", content=PNG)).json()["sha256"]
    head = await site.http.head(f"/v1/artifacts/{sha}")
    assert (head.status_code, head.headers["content-length"]) == (200, str(len(PNG)))
    whole = await site.http.get(f"/v1/artifacts/{sha}")
    assert whole.content == PNG
    assert whole.headers["content-type"] == "application/octet-stream"
    assert whole.headers["content-disposition"].startswith("attachment")
    assert (await site.http.head(f"/v1/artifacts/{'0' * 64}")).status_code == 404
    assert (await site.http.get("/v1/artifacts/../../etc/passwd")).status_code == 404
    assert (await site.http.get("/v1/artifacts/xyz")).json()["error"]["param"] == "sha256"


@pytest.mark.parametrize("name", ["a/b.png", "a\\b", "x" * 256, "", "a\nb"])
async def test_names_that_are_paths_are_refused(site: Site, name: str) -> None:
    answer = await site.http.post("/v1/artifacts", params={"name": name}, content=PNG)
    assert answer.status_code == 422
    assert answer.json()["error"]["param"] == "name"


async def test_an_empty_upload_is_refused(site: Site) -> None:
    answer = await site.http.post("/v1/artifacts", content=b"")
    assert (answer.status_code, "empty" in answer.text) == (400, True)


async def test_an_upload_over_the_bound_is_refused_and_leaves_nothing(site: Site) -> None:
    async def endless() -> AsyncIterator[bytes]:
        for _ in range(100):
            yield os.urandom(1 << 16)

    told = await site.http.post("/v1/artifacts", content=b"0" * ((1 << 20) + 1))
    untold = await site.http.post("/v1/artifacts", content=endless())
    for answer in (told, untold):
        assert answer.status_code == 413
        assert "1,048,576 bytes" in answer.json()["error"]["message"]
    assert list((site.office.settings.home / "uploads").iterdir()) == []


async def test_an_upload_that_breaks_off_leaves_nothing(site: Site) -> None:
    host, port = site.url.removeprefix("http://").split(":")
    _, writer = await asyncio.open_connection(host, int(port))
    writer.write(b"POST /v1/artifacts HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n\r\nhalf")
    await writer.drain()
    folder = site.office.settings.home / "uploads"
    await asyncio.sleep(0.2)
    writer.close()
    for _ in range(50):
        if folder.exists() and not list(folder.iterdir()):
            break
        await asyncio.sleep(0.05)
    assert list(folder.iterdir()) == []


async def test_files_that_could_carry_script_are_never_shown_in_place(site: Site) -> None:
    html = await site.http.post("/v1/artifacts", params={"name": "x.html"}, content=b"<script>alert(1)</script>")
    answer = await site.http.get(f"/v1/artifacts/{html.json()['sha256']}")
    assert answer.headers["content-type"] == "application/octet-stream"
    assert answer.headers["content-disposition"].startswith("attachment")
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert "sandbox" in answer.headers["content-security-policy"]


async def test_provenance_can_be_asked_for(site: Site) -> None:
    sha = (await site.http.post("/v1/artifacts", params={"name": "poster.png"}, content=PNG)).json()["sha256"]
    told = (await site.http.get(f"/v1/artifacts/{sha}/provenance")).json()
    assert (told["schema"], told["source"], told["name"]) == ("reelmesh.artifact/1", "upload", "poster.png")
    assert (told["sha256"], told["size_bytes"], told["job_id"]) == (sha, len(PNG), None)
    assert (await site.http.get(f"/v1/artifacts/{'0' * 64}/provenance")).status_code == 404
    assert (await site.http.get("/v1/artifacts/xyz/provenance")).status_code in {400, 422}
