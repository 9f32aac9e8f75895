"""New jobs that go on where old ones ended, by the command line against a real gateway and worker."""

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import sqlalchemy as sa

from serving.cli.main import run
from serving.jobs.records import JobRecord
from serving.jobs.tables import jobs
from tests.serving.gateway.site import Site, open_site, open_worker


@pytest.fixture
async def site(tmp_path: Path) -> AsyncIterator[Site]:
    async with open_site(tmp_path / "home") as opened:
        yield opened


@pytest.fixture
async def working(site: Site) -> AsyncIterator[Site]:
    async with open_worker(site.office):
        yield site


async def reelmesh(*arguments: object) -> int:
    return await asyncio.to_thread(run, [str(argument) for argument in arguments])


async def ended(site: Site, **wanted: object) -> JobRecord:
    job = await site.office.submit(**wanted)
    return await site.office.until(job.id)


async def test_retry_makes_a_new_job_from_a_stage_and_sees_it_through(
    working: Site, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    job = await ended(working)
    arguments = ("--from", "score", "--host", working.url, "--out", tmp_path / "out")
    assert await reelmesh("jobs", "retry", job.id, *arguments) == 0
    assert str(tmp_path / "out" / "film.vtt") in capsys.readouterr().out
    fork = (await working.office.store.page()).jobs[0]
    assert (fork.parent_id, fork.from_stage, fork.state) == (job.id, "score", "completed")
    made = [line.split()[1:3] for line in working.office.calls() if line.startswith("begin")]
    assert [stage for owner, stage in made if owner == fork.id] == ["score"]


async def test_retry_tells_what_cannot_be_with_two_for_a_stage_and_one_for_a_running_job(
    working: Site, capsys: pytest.CaptureFixture[str]
) -> None:
    job = await ended(working)
    assert await reelmesh("jobs", "retry", job.id, "--from", "scoer", "--host", working.url) == 2
    assert "scoer" in capsys.readouterr().err
    running = await working.office.submit(seconds=30)
    assert await reelmesh("jobs", "retry", running.id, "--from", "score", "--host", working.url) == 1
    await working.office.store.cancel(running.id)
    assert await reelmesh("jobs", "retry", "0123", "--host", working.url) == 2


async def test_edit_changes_the_input_and_runs_what_the_change_concerns(
    working: Site, capsys: pytest.CaptureFixture[str]
) -> None:
    job = await ended(working)
    arguments = ("jobs", "edit", job.id, "--host", working.url, "--no-wait", "--json")
    assert await reelmesh(*arguments, "--set", "input.title=A play", "--set", "input.clips=2") == 0
    made = json.loads(capsys.readouterr().out)
    fork = await working.office.until(made["id"])
    assert (fork.parent_id, fork.title, fork.input["clips"], fork.state) == (job.id, "A play", 2, "completed")


async def test_an_edit_of_nothing_makes_nothing(
    working: Site, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    job = await ended(working)
    monkeypatch.delenv("VISUAL", raising=False)
    monkeypatch.setenv("EDITOR", "true")
    assert await reelmesh("jobs", "edit", job.id, "--host", working.url) == 0
    assert "nothing was changed" in capsys.readouterr().err
    both = ("--set", "input.title=x", "--file", tmp_path / "edits.yaml")
    assert await reelmesh("jobs", "edit", job.id, *both, "--host", working.url) == 2
    assert len((await working.office.store.page()).jobs) == 1


async def test_dead_letters_are_listed_and_redriven(working: Site, capsys: pytest.CaptureFixture[str]) -> None:
    host = ("--host", working.url)
    assert await reelmesh("jobs", "dead", *host) == 0
    assert "no dead letters" in capsys.readouterr().err
    job = await ended(working, trouble="broken")
    dead = sa.update(jobs).where(jobs.c.id == job.id).values(dead_at=job.finished_at)
    await working.office.database.run(lambda connection: connection.execute(dead))
    assert await reelmesh("jobs", "dead", *host) == 0
    listed = capsys.readouterr().out
    assert job.id in listed
    assert "the violin has no strings" in listed
    assert await reelmesh("jobs", "dead", "redrive", "--all", *host) == 0
    [made] = capsys.readouterr().out.split()
    fork = await working.office.until(made)
    assert (fork.parent_id, fork.from_stage) == (job.id, "titles")
    assert await reelmesh("jobs", "dead", "--json", *host) == 0
    assert json.loads(capsys.readouterr().out)["data"] == []


@pytest.mark.parametrize("as_json", [False, True], ids=["lines", "json"])
async def test_what_was_redriven_is_told_though_a_later_one_fails(
    site: Site, capsys: pytest.CaptureFixture[str], as_json: bool
) -> None:
    job = await site.office.submit()
    ended = {"state": "failed", "finished_at": job.created_at, "dead_at": job.created_at}
    await site.office.database.run(lambda connection: connection.execute(sa.update(jobs).values(**ended)))
    options = ("--host", site.url, *(["--json"] if as_json else []))
    assert await reelmesh("jobs", "dead", "redrive", job.id, job.id, *options) == 1
    told = capsys.readouterr()
    [made] = [each["id"] for each in json.loads(told.out)] if as_json else told.out.split()
    assert (await site.office.store.get(made)).parent_id == job.id
    assert f"the job {made} goes on with it already" in told.err


async def test_redrive_wants_jobs_or_all(site: Site, capsys: pytest.CaptureFixture[str]) -> None:
    assert await reelmesh("jobs", "dead", "redrive", "--host", site.url) == 2
    assert "--all" in capsys.readouterr().err


async def test_submit_says_what_a_job_is_for_and_show_tells_it(
    site: Site, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    spec = tmp_path / "film.yaml"
    spec.write_text("title: A film\n")
    wanted = ("jobs", "submit", "film", spec, "--no-wait", "--host", site.url)
    assert await reelmesh(*wanted, "--use", "non_commercial") == 0
    job_id = capsys.readouterr().out.strip()
    assert (await site.office.store.get(job_id)).use == "non_commercial"
    assert await reelmesh("jobs", "show", job_id, "--host", site.url) == 0
    assert "for work that is not commercial" in capsys.readouterr().out
    assert await reelmesh(*wanted, "--use", "personal") == 2
    assert "use" in capsys.readouterr().err


async def test_submit_takes_deadline_last_stage_cache_and_webhook(
    site: Site, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    spec = tmp_path / "film.yaml"
    spec.write_text("title: A film\n")
    options = ("--deadline", "60", "--stop-at", "score", "--no-cache", "--no-wait", "--host", site.url)
    hook = ("--webhook", "https://8.8.8.8/hook", "--event", "job.completed")
    assert await reelmesh("jobs", "submit", "film", spec, *options, *hook) == 0
    job = await site.office.store.get(capsys.readouterr().out.strip())
    assert (job.stop_at, job.use_cache) == ("score", False)
    assert 50 < (job.deadline_at or 0) - job.created_at <= 61
    kept = sa.select(jobs.c.webhook).where(jobs.c.id == job.id)
    webhook = await site.office.database.run(lambda connection: connection.scalar(kept))
    assert webhook == {"url": "https://8.8.8.8/hook", "events": ["job.completed"]}
    assert await reelmesh("jobs", "submit", "film", spec, "--event", "job.failed", "--host", site.url) == 2
    assert "--webhook" in capsys.readouterr().err


@pytest.mark.parametrize("way", ["set", "stage"])
async def test_what_a_stage_made_is_edited_by_name_or_in_the_editor(
    working: Site, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, way: str
) -> None:
    job = await ended(working)
    monkeypatch.delenv("VISUAL", raising=False)
    monkeypatch.setenv("EDITOR", "sed -i 's/duration_s: .*/duration_s: 7.5/'")
    how = ("--set", "results.score.0.duration_s=7.5") if way == "set" else ("--stage", "score")
    assert await reelmesh("jobs", "edit", job.id, *how, "--no-wait", "--host", working.url) == 0
    fork = await working.office.until(capsys.readouterr().out.strip())
    assert (fork.parent_id, fork.state) == (job.id, "completed")
    assert fork.edits == {"results": {"score": {"0": {"duration_s": 7.5}}}}
    assert not [line for line in working.office.calls() if line.startswith(f"begin {fork.id} score")]
