from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from serving.artifacts.store import ArtifactStore
from serving.gateway.page_facts import (
    FILTERS,
    MAX_READ_BYTES,
    bars,
    captions_of,
    checks_of,
    facts_of,
    media_of,
    provenance_of,
    state_class,
)
from serving.gateway.views import ArtifactView, JobView
from serving.jobs.records import StageRecord
from serving.jobs.types import JobOutput, JobState, Lane


def job(**changes: Any) -> JobView:
    values: dict[str, Any] = {
        "id": "1", "type": "film", "state": JobState.RENDERING, "lane": Lane.MEDIUM, "progress": 50,
        "created_at": 100.0, "started_at": 110.0, "timeout_s": 60.0, "tries": 2, "url": "/v1/jobs/1", "page": "/jobs/1",
    }  # fmt: skip
    return JobView(**{**values, **changes})


def file(name: str, media_type: str, size: int = 1) -> ArtifactView:
    return ArtifactView(sha256="a" * 64, media_type=media_type, size_bytes=size, name=name, url="/x")


def test_bars_lie_on_the_jobs_time() -> None:
    stages = [
        StageRecord(name="a", state="done", started_at=110, ended_at=150, parts=3, parts_done=3, tries=2, models=["m"]),
        StageRecord(name="b", state="running", started_at=150, parts=4, parts_done=1),
        StageRecord(name="c"),
    ]
    wait, a, b, c = bars(job(stages=stages), now=200.0)
    assert (wait.left, wait.width, wait.seconds) == (0.0, 10.0, 10.0)
    assert (a.left, a.width, a.seconds, a.note) == (10.0, 40.0, 40.0, "m · 3 parts · 2 tries")
    assert (b.left, b.width, b.running_since, b.note) == (50.0, 50.0, 150, "1 of 4")
    assert (c.width, c.state, c.note) == (0.0, "waiting", "")


times = st.floats(min_value=0, max_value=1e6)


@given(st.lists(st.tuples(times, times), max_size=5), times, times)
def test_bars_never_leave_their_rail(spans: list[tuple[float, float]], finished: float, now: float) -> None:
    stages = [StageRecord(name=str(index), started_at=a, ended_at=b) for index, (a, b) in enumerate(spans)]
    for bar in bars(job(stages=stages, finished_at=finished, started_at=None), now):
        assert 0 <= bar.left <= 100
        assert 0 <= bar.width <= 100
        assert bar.left + bar.width <= 100.01
        assert bar.seconds >= 0


def test_the_film_is_chosen_by_its_type() -> None:
    files = {
        "a": file("mix.wav", "audio/wav"),
        "b": file("film.mp4", "video/mp4"),
        "c": file("report.json", "application/json"),
        "d": file("film.provenance.json", "application/json"),
        "e": file("film.vtt", "text/vtt"),
        "f": file("film.jpg", "image/jpeg"),
    }
    media = media_of(job(artifacts=files))
    chosen = [media.video, media.audio, media.captions, media.thumbnail, media.provenance]
    assert [found.name if found else None for found in chosen] == [
        "film.mp4", "mix.wav", "film.vtt", "film.jpg", "film.provenance.json",
    ]  # fmt: skip
    assert media_of(job()).video is None


def test_checks_and_facts_are_put_into_words() -> None:
    facts = {
        "checks": [
            {"name": "loudness", "ok": True, "measured": "-16 LUFS", "wanted": "-16"},
            {"name": "x", "ok": False},
            3,
        ],
        "duration_s": 32.3200001,
        "streams": ["h264", "aac"],
        "captions": 10,
        "silent": False,
        "by_voice": {"asha": 3},
    }
    done = job(output=JobOutput(files={}, facts=facts))
    assert [(check.name, check.ok, check.measured) for check in checks_of(done)] == [
        ("loudness", True, "-16 LUFS"),
        ("x", False, ""),
    ]
    assert facts_of(done) == [
        ("duration s", "32.32"),
        ("streams", "h264, aac"),
        ("captions", "10"),
        ("silent", "no"),
        ("by voice", '{"asha": 3}'),
    ]
    assert (checks_of(job()), facts_of(job())) == ([], [])


async def _stored(tmp_path: Path, data: bytes, media_type: str) -> tuple[ArtifactStore, ArtifactView]:
    store = ArtifactStore(f"file://{tmp_path}/store", tmp_path / "cache")
    ref = await store.put_bytes(data, media_type=media_type, name="x")
    return store, ArtifactView(**dict(ref), url="/x")


async def test_captions_are_read_with_their_times(tmp_path: Path) -> None:
    vtt = b"WEBVTT\n\n01:05.500 --> 01:07.000\n<b>Hello</b>\nthere\n"
    [cue] = await captions_of(*await _stored(tmp_path, vtt, "text/vtt"))
    assert (cue.start_s, cue.clock, cue.text) == (65.5, "1:05", "Hello there")


@pytest.mark.parametrize("data", [b"", b"not captions", b"\xff\x00", b"WEBVTT\n\nbroken --> times\nx\n"])
async def test_broken_captions_are_left_out(tmp_path: Path, data: bytes) -> None:
    assert await captions_of(*await _stored(tmp_path, data, "text/vtt")) == []


async def test_missing_and_long_files_are_left_out(tmp_path: Path) -> None:
    store = ArtifactStore(f"file://{tmp_path}/store", tmp_path / "cache")
    assert await captions_of(store, None) == []
    assert await captions_of(store, file("x.vtt", "text/vtt")) == []
    assert await provenance_of(store, file("x.json", "application/json", MAX_READ_BYTES + 1)) is None


async def test_provenance_is_indented_and_shown_as_it_is_when_it_is_no_json(tmp_path: Path) -> None:
    assert await provenance_of(*await _stored(tmp_path, b'{"a":1}', "application/json")) == '{\n  "a": 1\n}'
    assert await provenance_of(*await _stored(tmp_path, b"{broken", "application/json")) == "{broken"


@pytest.mark.parametrize("state", list(JobState))
def test_every_state_has_a_colour_and_a_tab(state: JobState) -> None:
    assert state_class(state) in {"waiting", "working", "completed", "failed", "cancelled"}
    assert sum(state in choice.states for choice in FILTERS.values()) == 1
