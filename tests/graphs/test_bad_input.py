"""What is wrong with a pipeline's job is told by HTTP before anything is kept: field and fix, by a real pipeline."""

import struct
import zlib
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import httpx
import pytest

from graphs import lipsync, music, podcast, voice
from graphs.inputs import MAX_SCRIPT_CHARS, Studio
from serving.gateway.jobs_part import JobsPart
from serving.settings import Settings
from serving.telemetry import Exposition

STUDIO = Studio(voices={"asha": "", "ravi": ""}, languages={"speech": ("en",)}, models={})


def png(width: int, height: int) -> bytes:
    """A grey picture; a large one is a bomb, since nothing compresses better."""
    rows = zlib.compressobj(9)
    line = bytes(1 + (width + 7) // 8)
    packed = b"".join(rows.compress(line) for _ in range(min(height, 2000))) + rows.flush()

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 1, 0, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", packed) + chunk(b"IEND", b"")


@pytest.fixture
async def http(tmp_path: Path) -> AsyncIterator[httpx.AsyncClient]:
    async def parts() -> list[Exposition]:
        return []

    types = {kind.name: kind for kind in (module.job_type(STUDIO) for module in (podcast, voice, lipsync, music))}
    part = JobsPart(Settings(home=tmp_path).resolved(), types)
    await part.open()
    transport = httpx.ASGITransport(part.app((), parts))
    async with httpx.AsyncClient(transport=transport, base_url="http://mesh", timeout=20) as client:
        yield client
    await part.end_watches()
    await part.close()


async def body_with(http: httpx.AsyncClient, change: Callable[[dict[str, Any]], None], portrait: bytes) -> Any:
    ref = (await http.post("/v1/artifacts", params={"name": "face.png"}, content=portrait)).json()
    speakers = [{"name": name.title(), "portrait": dict(ref), "voice": name} for name in ("asha", "ravi")]
    script = "Asha: Hello there.\nRavi: Hello to you."
    body: dict[str, Any] = {
        "type": "podcast_video",
        "input": {"title": "A talk", "speakers": speakers, "script": script},
    }
    change(body)
    return body


def at(*path: str | int, value: object) -> Callable[[dict[str, Any]], None]:
    def change(body: Any) -> None:
        for step in path[:-1]:
            body = body[step]
        body[path[-1]] = value

    return change


FACE = png(256, 256)
VOICE = ("input", "speakers", 1, "voice")
PORTRAIT = ("input", "speakers", 0, "portrait")


@pytest.mark.parametrize(
    ("change", "portrait", "param", "fix"),
    [
        pytest.param(
            at("type", value="podcast"),
            FACE,
            "type",
            "one of lipsync_animation, music_generation, podcast_video",
            id="unknown pipeline",
        ),
        pytest.param(at("input", "titel", value=""), FACE, "input.titel", "did you mean 'title'?", id="unknown field"),
        pytest.param(at("input", "seed", value="x"), FACE, "input.seed", "whole number", id="wrong type"),
        pytest.param(
            at("input", "script", value="x" * (MAX_SCRIPT_CHARS + 1)),
            FACE,
            "input.script",
            "shorten it",
            id="long text",
        ),
        pytest.param(at(*VOICE, value="ravy"), FACE, "input.speakers[1].voice", "did you mean 'ravi'?", id="voice"),
        pytest.param(at("seed", value=1), b"no picture", "seed", "remove the field", id="field beside the input"),
        pytest.param(at("lane", value=None), b"no picture", "input.speakers[0].portrait", "give a PNG", id="no image"),
        pytest.param(at("lane", value=None), png(50_000, 50_000), "input.speakers[0].portrait", "each side", id="bomb"),
        pytest.param(
            at("lane", value=None), png(10_000, 10_000), "input.speakers[0].portrait", "each side", id="large image"
        ),
        pytest.param(at(*PORTRAIT, value="/etc/passwd"), FACE, "input.speakers[0].portrait", "upload", id="a path"),
        pytest.param(
            at(*PORTRAIT, "name", value="../../etc/passwd"),
            FACE,
            "input.speakers[0].portrait.name",
            "",
            id="a path in it",
        ),
        pytest.param(
            at("webhook", value={"url": "http://127.0.0.1:9/"}), FACE, "webhook.url", "public host", id="own machine"
        ),
        pytest.param(
            at("webhook", value={"url": "http://169.254.169.254/latest"}), FACE, "webhook.url", "public", id="metadata"
        ),
        pytest.param(at("webhook", value={"url": "file:///etc"}), FACE, "webhook.url", "http", id="no http"),
    ],
)
async def test_what_is_wrong_is_422_with_field_and_fix_and_nothing_is_kept(
    http: httpx.AsyncClient, change: Callable[[dict[str, Any]], None], portrait: bytes, param: str, fix: str
) -> None:
    answer = await http.post("/v1/jobs", json=await body_with(http, change, portrait))
    error = answer.json()["error"]
    assert (answer.status_code, error["param"], error["code"]) == (422, param, "unprocessable")
    assert fix in error["message"]
    assert (await http.get("/v1/jobs")).json()["data"] == []


async def test_the_same_job_without_a_mistake_is_taken(http: httpx.AsyncClient) -> None:
    body = await body_with(http, at("lane", value="high"), FACE)
    assert (await http.post("/v1/jobs", json=body)).status_code == 202


PICTURE = {"portrait": None}
"""Stands for the uploaded file."""


@pytest.mark.parametrize(
    ("kind", "wanted", "portrait", "param", "fix"),
    [
        pytest.param("voice_synthesis", {}, FACE, "input.text", "give either text or lines", id="nothing to say"),
        pytest.param("voice_synthesis", {"text": "A.", "tempo": 2}, FACE, "input.tempo", "remove", id="unknown field"),
        pytest.param("voice_synthesis", {"text": "x" * 10_001}, FACE, "input.text", "shorten it", id="long text"),
        pytest.param("voice_synthesis", {"text": "A.", "speed": 9}, FACE, "input.speed", "2", id="speed"),
        pytest.param(
            "voice_synthesis",
            {"lines": [{"text": "A."}, {"text": "B.", "voice": "ravy"}], "voice": "asha"},
            FACE,
            "input.lines[1].voice",
            "did you mean 'ravi'?",
            id="voice of a line",
        ),
        pytest.param("lipsync_animation", PICTURE, FACE, "input.text", "give a text or audio", id="nobody speaks"),
        pytest.param(
            "lipsync_animation",
            {**PICTURE, "text": "Hi.", "voice": "asha"},
            b"no picture",
            "input.portrait",
            "give a PNG",
            id="no image",
        ),
        pytest.param(
            "lipsync_animation",
            {**PICTURE, "text": "Hi.", "voice": "asha"},
            png(50_000, 50_000),
            "input.portrait",
            "each side",
            id="bomb",
        ),
        pytest.param(
            "lipsync_animation",
            {**PICTURE, "text": "Hi.", "audio": "/etc/passwd"},
            FACE,
            "input.audio",
            "upload",
            id="a path as sound",
        ),
        pytest.param("music_generation", {}, FACE, "input.duration_s", "", id="no length"),
        pytest.param("music_generation", {"duration_s": 1e9}, FACE, "input.duration_s", "1200", id="endless"),
        pytest.param(
            "music_generation", {"duration_s": 9, "mood": "angry"}, FACE, "input.mood", "'calm'", id="unknown mood"
        ),
        pytest.param(
            "music_generation", {"duration_s": 9, "prompt": "?"}, FACE, "input.prompt", "say what", id="empty prompt"
        ),
    ],
)
async def test_so_it_is_for_voices_portraits_and_music(
    http: httpx.AsyncClient, kind: str, wanted: dict[str, Any], portrait: bytes, param: str, fix: str
) -> None:
    ref = (await http.post("/v1/artifacts", params={"name": "face.png"}, content=portrait)).json()
    given = {name: ref if value is None else value for name, value in wanted.items()}
    answer = await http.post("/v1/jobs", json={"type": kind, "input": given})
    error = answer.json()["error"]
    assert (answer.status_code, error["param"], error["code"]) == (422, param, "unprocessable"), error
    assert fix in error["message"]
    assert (await http.get("/v1/jobs")).json()["data"] == []
