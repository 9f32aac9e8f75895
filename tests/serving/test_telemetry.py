import json
import logging

import pytest
import structlog

from serving.settings import LogSettings, Settings
from serving.telemetry import REQUESTS, exposition, job_logs, set_up_logs


@pytest.fixture(autouse=True)
def _restore_logs():
    handlers = list(logging.getLogger().handlers)
    yield
    logging.getLogger().handlers[:] = handlers
    structlog.reset_defaults()


def logged(capsys: pytest.CaptureFixture[str]) -> list[dict[str, object]]:
    return [json.loads(line) for line in capsys.readouterr().err.splitlines()]


def test_a_line_is_json_with_the_job_and_the_stage(capsys) -> None:
    set_up_logs()
    with job_logs("job-1", "voices"):
        structlog.get_logger().info("turn_spoken", seconds=1.5)
    structlog.get_logger().info("outside")
    inside, outside = logged(capsys)
    assert (inside["event"], inside["job_id"], inside["stage"], inside["seconds"]) == (
        "turn_spoken", "job-1", "voices", 1.5,
    )  # fmt: skip
    assert "job_id" not in outside


def test_libraries_are_written_in_the_same_form(capsys) -> None:
    set_up_logs()
    with job_logs("job-1"):
        logging.getLogger("uvicorn.error").warning("port %s is slow", 8000)
        logging.getLogger("uvicorn.error").info("not shown")
    (line,) = logged(capsys)
    assert (line["event"], line["logger"], line["job_id"]) == ("port 8000 is slow", "uvicorn.error", "job-1")


def test_setting_up_twice_does_not_double_the_lines(capsys) -> None:
    set_up_logs()
    set_up_logs()
    logging.getLogger("x").warning("once")
    assert len(logged(capsys)) == 1


def test_an_exception_is_one_line(capsys) -> None:
    set_up_logs()
    try:
        raise ValueError("broken")
    except ValueError:
        structlog.get_logger().exception("stage_failed")
    (line,) = logged(capsys)
    assert "ValueError: broken" in str(line["exception"])


def test_the_level_is_a_setting(capsys) -> None:
    set_up_logs(Settings(log=LogSettings(level="warning")))
    structlog.get_logger().info("quiet")
    structlog.get_logger().warning("loud")
    assert [line["event"] for line in logged(capsys)] == ["loud"]


def test_people_get_text(capsys) -> None:
    set_up_logs(Settings(log=LogSettings(style="pretty")))
    structlog.get_logger().info("mesh_ready", url="http://127.0.0.1:8000")
    assert "mesh_ready" in capsys.readouterr().err


@pytest.mark.parametrize("style", ["pretty", "json"])
def test_a_traceback_shows_no_values_of_variables(capsys, style) -> None:
    set_up_logs(Settings(log=LogSettings(style=style)))
    password = "hunter2"
    try:
        assert not password.isdigit() / 0
    except ZeroDivisionError:
        structlog.get_logger().exception("crashed")
        logging.getLogger("uvicorn.error").exception("crashed too")
    told = capsys.readouterr().err
    assert told.count("ZeroDivisionError") >= 2
    assert "hunter2" not in told.replace('password = "hunter2"', "")


async def test_ids_follow_the_tasks_that_a_stage_starts(capsys) -> None:
    import asyncio

    async def work() -> None:
        structlog.get_logger().info("inner")

    set_up_logs()
    with job_logs("job-1", "render"):
        await asyncio.gather(asyncio.create_task(work()), asyncio.create_task(work()))
    assert [line["stage"] for line in logged(capsys)] == ["render", "render"]


def test_the_exposition_holds_what_was_counted() -> None:
    REQUESTS.labels("telemetry-test", "http", "ok").inc()
    assert 'reelmesh_requests_total{model="telemetry-test",outcome="ok",protocol="http"} 1.0' in exposition()
    assert "_created" not in exposition()
