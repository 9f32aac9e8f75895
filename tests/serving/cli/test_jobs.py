"""The command line against a real gateway and worker."""

import asyncio
import json
import os
import select
import signal
import sys
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from serving.cli.jobs import mesh_url
from serving.cli.main import run
from tests.serving.gateway.site import Site, open_site, open_worker


@pytest.fixture
async def site(tmp_path: Path) -> AsyncIterator[Site]:
    async with open_site(tmp_path / "home") as opened:
        yield opened


@pytest.fixture
async def working(site: Site) -> AsyncIterator[Site]:
    async with open_worker(site.office):
        yield site


@pytest.fixture
def spec(tmp_path: Path) -> Path:
    (tmp_path / "poster.png").write_bytes(b"\x89PNG\r\n\x1a\n" + b"0" * 100)
    path = tmp_path / "film.yaml"
    path.write_text("title: A film\nclips: 2\nposter: poster.png\n")
    return path


def write(path: Path, text: str) -> None:
    path.write_text(text)


async def reelmesh(*arguments: object) -> int:
    return await asyncio.to_thread(run, [str(argument) for argument in arguments])


async def test_submit_follows_the_job_and_prints_where_its_files_are(
    working: Site, spec: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    assert await reelmesh("submit", "film", spec, "--host", working.url, "--out", out) == 0
    told = capsys.readouterr()
    assert told.out.splitlines() == [str(out / name) for name in ("film.vtt", "sound-1000.wav", "poster.png")]
    assert (out / "poster.png").read_bytes() == (tmp_path / "poster.png").read_bytes()
    for word in ("sending poster.png", "clips", "2 parts", "completed"):
        assert word in told.err


async def test_submit_without_waiting_prints_the_id(site: Site, spec: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert await reelmesh("submit", "film", spec, "--host", site.url, "--no-wait", "--lane", "low") == 0
    job = await site.office.store.get(capsys.readouterr().out.strip())
    assert (job.lane, job.state) == ("low", "queued")


async def test_json_is_all_that_stdout_gets(
    working: Site, spec: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ("submit", "film", spec, "--host", working.url, "--json", "--out", tmp_path / "out")
    assert await reelmesh(*arguments) == 0
    told = capsys.readouterr()
    job = json.loads(told.out)
    assert job["state"] == "completed"
    assert job["paths"]["captions"] == str(tmp_path / "out" / "film.vtt")


async def test_a_failed_job_ends_the_command_with_one_and_the_cause(
    working: Site, spec: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write(spec, "title: A film\ntrouble: broken\n")
    assert await reelmesh("submit", "film", spec, "--host", working.url) == 1
    told = capsys.readouterr().err
    assert "failed: score: the violin has no strings: string it" in told
    assert told.count("the violin has no strings") == 1


@pytest.mark.parametrize(
    ("text", "words"),
    [
        pytest.param("title: x\nposter: none.png\n", "film.yaml:2: poster: none.png: there is no such file", id="file"),
        pytest.param("title: x\nclisp: 3\n", "film.yaml:2: clisp: ", id="field"),
        pytest.param("title: x\nactors: [a, nobody]\n", "film.yaml:2: actors[1]: nobody cannot act", id="check"),
        pytest.param("title: x\nseconds: 0\n", "film.yaml:2: seconds: input should be greater than 0", id="zero"),
        pytest.param("titel: x\n", "film.yaml:1: titel: there is no such field: did you mean 'title'?", id="misspelt"),
        pytest.param("title: ''\nclips: x\n", "film.yaml:2: clips: ", id="a line for each problem"),
    ],
)
async def test_bad_input_ends_with_two_and_one_line_that_names_the_line(
    site: Site, spec: Path, capsys: pytest.CaptureFixture[str], text: str, words: str
) -> None:
    write(spec, text)
    assert await reelmesh("submit", "film", spec, "--host", site.url) == 2
    error = capsys.readouterr().err.strip().splitlines()[-1]
    assert words in error
    assert (await site.office.store.page()).jobs == []


async def test_an_unknown_type_and_a_missing_mesh_have_codes_of_their_own(
    site: Site, spec: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert await reelmesh("submit", "flim", spec, "--host", site.url) == 2
    assert "one of film" in capsys.readouterr().err
    assert await reelmesh("submit", "film", spec, "--host", "127.0.0.1:1") == 4
    assert "reelmesh up" in capsys.readouterr().err


async def test_jobs_can_be_listed_shown_watched_and_cancelled(
    working: Site, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    host = ("--host", working.url)
    assert await reelmesh("jobs", "list", *host) == 0
    assert "no jobs" in capsys.readouterr().err
    slow = await working.office.submit(title="[bold]Slow[/bold]", seconds=30)
    assert await reelmesh("jobs", "list", *host) == 0
    listed = capsys.readouterr().out
    assert slow.id in listed
    assert "[bold]Slow[/bold]" in listed
    assert await reelmesh("jobs", "cancel", slow.id, *host) == 0
    assert (await working.office.until(slow.id)).state == "cancelled"
    assert await reelmesh("jobs", "cancel", slow.id, *host) == 1
    quick = await working.office.submit()
    capsys.readouterr()
    assert await reelmesh("jobs", "watch", quick.id, *host, "--out", tmp_path / "out") == 0
    assert str(tmp_path / "out" / "film.vtt") in capsys.readouterr().out
    assert await reelmesh("jobs", "show", quick.id, *host) == 0
    shown = capsys.readouterr().out
    assert "ray/fiddle" in shown
    assert "completed, 100 %" in shown
    assert await reelmesh("jobs", "show", "nope", *host, "--json") == 2
    assert json.loads(capsys.readouterr().err)["error"]["code"] == "not_found"


async def test_ctrl_c_leaves_the_job_running_where_nobody_can_be_asked(working: Site, spec: Path) -> None:
    write(spec, "title: A film\nseconds: 30\n")
    child = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "serving.cli.main", "submit", "film", str(spec), "--host", working.url,
        stdin=asyncio.subprocess.DEVNULL, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
        cwd=Path(__file__).parents[3], env={**os.environ, "COLUMNS": "200"},
    )  # fmt: skip
    assert child.stderr is not None
    while (line := await child.stderr.readline()) and b"processing" not in line:
        pass
    child.send_signal(signal.SIGINT)
    asked = time.monotonic()
    rest = await child.stderr.read()
    assert await child.wait() == 130
    assert time.monotonic() - asked < 5
    [job] = (await working.office.store.page()).jobs
    assert f"reelmesh jobs watch {job.id}".encode() in rest
    assert not job.is_final
    await working.office.store.cancel(job.id)
    await working.office.until(job.id)


async def test_ctrl_c_asks_on_a_terminal_and_yes_cancels_the_job(working: Site, spec: Path) -> None:
    write(spec, "title: A film\nseconds: 30\n")
    ours, theirs = os.openpty()
    child = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "serving.cli.main", "submit", "film", str(spec), "--host", working.url,
        stdin=theirs, stdout=asyncio.subprocess.PIPE, stderr=theirs,
        cwd=Path(__file__).parents[3], env={**os.environ, "COLUMNS": "200", "TERM": "xterm"},
    )  # fmt: skip
    os.close(theirs)
    await asyncio.to_thread(read_until, ours, b"clips")
    child.send_signal(signal.SIGINT)
    assert b"Cancel job" in await asyncio.to_thread(read_until, ours, b"leave it running")
    os.write(ours, b"y\n")
    await asyncio.to_thread(read_until, ours, b"is cancelled")
    assert await child.wait() == 130
    os.close(ours)
    [job] = (await working.office.store.page()).jobs
    assert job.state == "cancelled"


def read_until(terminal: int, words: bytes) -> bytes:
    """What a terminal shows up to these words."""
    shown = b""
    end = time.monotonic() + 30
    while words not in shown:
        assert select.select([terminal], [], [], end - time.monotonic())[0], shown
        shown += os.read(terminal, 4096)
    return shown


def test_the_address_of_the_mesh_is_named_or_this_machines(monkeypatch: pytest.MonkeyPatch) -> None:
    assert mesh_url("mesh:9000") == "http://mesh:9000"
    assert mesh_url("https://mesh") == "https://mesh"
    monkeypatch.setenv("REELMESH_EDGE__HTTP_PORT", "9123")
    assert mesh_url("") == "http://127.0.0.1:9123"
