"""Expired files are removed on the command line."""

import asyncio
import json
import time
from pathlib import Path

import pytest
import sqlalchemy as sa

from serving.artifacts.provenance import Provenance
from serving.cli.main import run
from serving.jobs.tables import jobs
from serving.jobs.types import JobState
from serving.protocol.artifact import ArtifactRef
from tests.serving.jobs.office import open_office


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("REELMESH_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("REELMESH_RETENTION__GRACE_S", "0.01")
    return tmp_path / "home"


async def fill(home: Path) -> tuple[str, ArtifactRef]:
    """A home with a job that ended a year ago, and its file."""
    async with open_office(home) as office:
        ref = await office.artifacts.put_bytes(b"0" * 2_000_000, media_type="image/png", name="a.png")
        await office.artifacts.put_provenance(ref, Provenance.of_upload(ref))
        job = await office.submit(poster=ref.model_dump())
        ended = {"state": JobState.COMPLETED, "finished_at": time.time() - 365 * 86_400}
        statement = sa.update(jobs).where(jobs.c.id == job.id).values(**ended)
        await office.database.run(lambda connection: connection.execute(statement))
    return job.id, ref


def test_a_dry_run_tells_what_goes_and_then_it_goes(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    job_id, ref = asyncio.run(fill(home))
    assert run(["artifacts", "gc", "--dry-run", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert (told["dry_run"], told["jobs_by_age"], told["unneeded"]) == (True, [job_id], [ref.sha256])
    assert run(["artifacts", "gc"]) == 0
    assert "removed 1 jobs and 0 files" in capsys.readouterr().out
    assert run(["artifacts", "gc"]) == 0
    assert "removed 0 jobs and 1 files (2.0 MB)" in capsys.readouterr().out
    assert not list((home / "artifacts").rglob("??/*"))


def test_what_made_a_file_is_shown(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    _, ref = asyncio.run(fill(home))
    assert run(["artifacts", "provenance", ref.sha256]) == 0
    assert json.loads(capsys.readouterr().out)["source"] == "upload"
    assert run(["artifacts", "provenance", "0" * 64]) == 2
    assert run(["artifacts", "provenance", "../etc"]) == 2
    assert "64 hex digits" in capsys.readouterr().err


def test_a_home_that_was_never_used_is_not_made(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["artifacts", "gc"]) == 2
    assert "REELMESH_HOME" in capsys.readouterr().err
    assert not home.exists()
