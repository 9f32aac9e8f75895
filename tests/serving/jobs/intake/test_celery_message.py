import bz2
import json
import lzma
import pickle
import zlib
from datetime import UTC, datetime
from typing import Any

import pytest

from serving.errors import BadInput
from serving.jobs.intake.celery_message import Envelope, Task, task_of

HEADERS: dict[str, Any] = {"task": "studio.tasks.film", "id": "t-1", "root_id": "r", "group": None, "group_index": 3}
INPUT = {"title": "x"}


def second(
    args: Any = (), kwargs: Any = INPUT, embed: Any = None, headers: dict[str, Any] | None = None, **changes: Any
) -> Task:
    """A message of Celery's second protocol."""
    body = json.dumps([args, kwargs, embed or {}]).encode()
    given = {"body": body, "content_type": "application/json", "content_encoding": "utf-8"} | changes
    return task_of(Envelope(HEADERS | (headers or {}), **given), most_bytes=2000)


@pytest.mark.parametrize(
    ("name", "args", "kwargs", "body"),
    [
        ("film", [], INPUT, {"type": "film", "input": INPUT}),
        ("studio.tasks.film", [], INPUT, {"type": "film", "input": INPUT}),
        ("film", [INPUT], {}, {"type": "film", "input": INPUT}),
        ("film", [INPUT], {"clips": 2}, {"type": "film", "input": {"title": "x", "clips": 2}}),
        ("film", [], {"input": INPUT, "lane": "low"}, {"type": "film", "input": INPUT, "lane": "low"}),
        ("film", [{"input": INPUT}], {"lane": "low"}, {"type": "film", "input": INPUT, "lane": "low"}),
        ("job", [], {"type": "film", "input": INPUT}, {"type": "film", "input": INPUT}),
        ("film", [], {}, {"type": "film", "input": {}}),
    ],
)
def test_name_and_arguments_are_the_job(name: str, args: Any, kwargs: Any, body: Any) -> None:
    task = second(args, kwargs, headers={"task": name})
    assert (json.loads(task.body), task.id, task.problem) == (body, "t-1", None)


@pytest.mark.parametrize(
    ("limits", "body", "seconds"),
    [([600, 540], {}, 540), ([600, None], {}, 600), ([None, None], {}, None), ([9, 8], {"timeout_s": 70}, 70)],
)
def test_a_time_limit_bounds_the_run(limits: list[int | None], body: dict[str, Any], seconds: int | None) -> None:
    task = second([], {"input": INPUT} | body, headers={"timelimit": limits})
    assert json.loads(task.body).get("timeout_s") == seconds


def test_the_reply_is_all_that_celerys_results_need() -> None:
    after = {"task": "studio.note", "args": [], "kwargs": {}, "options": {}}
    embed = {"callbacks": [after], "errbacks": None, "chain": [after], "chord": after}
    task = second(embed=embed, reply_to="answers", correlation_id="c-1")
    assert task.reply == {
        "id": "t-1",
        "task": "studio.tasks.film",
        "root_id": "r",
        "group_index": 3,
        "ignore_result": False,
        "reply_to": "answers",
        "correlation_id": "c-1",
        "callbacks": [after],
        "errbacks": [],
        "chain": [after],
        "chord": after,
    }
    assert json.loads(json.dumps(task.reply)) == task.reply


def test_a_result_that_is_ignored_is_not_told_unless_something_follows() -> None:
    assert second(headers={"ignore_result": True}).reply is None
    assert second(embed={"chain": [{"task": "x"}]}, headers={"ignore_result": True}).reply is not None


def test_the_first_protocol_is_read_too() -> None:
    known = {"task": "film", "id": "t-1", "args": [], "kwargs": INPUT, "eta": "2026-01-02T03:04:05", "chord": None}
    task = task_of(Envelope({}, json.dumps(known).encode(), "application/json", "utf-8", "answers"))
    assert (json.loads(task.body), task.id) == ({"type": "film", "input": INPUT}, "t-1")
    assert task.eta == datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC).timestamp()
    assert task.reply is not None
    assert (task.reply["reply_to"], task.reply["chain"]) == ("answers", [])


@pytest.mark.parametrize(
    ("written", "seconds"),
    [
        (None, None),
        ("1970-01-01T00:01:00+00:00", 60.0),
        ("1970-01-01T00:01:00Z", 60.0),
        ("1970-01-01T02:01:00.500000+02:00", 60.5),
        ("1970-01-01T00:01:00", 60.0),
    ],
)
def test_times_are_of_any_zone(written: str | None, seconds: float | None) -> None:
    task = second(headers={"eta": written, "expires": written})
    assert (task.eta, task.expires) == (seconds, seconds)


@pytest.mark.parametrize("pack", [zlib.compress, bz2.compress, lzma.compress], ids=["gzip", "bzip2", "lzma"])
def test_packed_messages_are_unpacked_up_to_the_bound(pack: Any) -> None:
    method = {zlib.compress: "x-gzip", bz2.compress: "x-bz2", lzma.compress: "x-lzma"}[pack]
    headers = {"compression": f"application/{method}"}
    assert second(body=pack(json.dumps([[], INPUT, {}]).encode()), headers=headers).problem is None
    bomb = second(body=pack(b" " * 5_000_000), headers=headers)
    assert "more than 2000 bytes" in str(bomb.problem)
    assert "cannot be unpacked" in str(second(body=b"nonsense", headers=headers).problem)


class Trap:
    """What runs code where it is read."""

    def __reduce__(self) -> Any:
        return pytest.fail, ("the message was unpickled",)


MALFORMED: dict[str, tuple[dict[str, Any], str]] = {
    "pickled": ({"body": pickle.dumps(Trap()), "content_type": "application/x-python-serialize"}, "only JSON"),
    "yaml": ({"content_type": "application/x-yaml"}, "only JSON"),
    "untold": ({"content_type": None}, "only JSON"),
    "charset": ({"content_encoding": "utf-16"}, "not UTF-8"),
    "packed": ({"headers": {"compression": "application/zstd"}}, "packed by 'application/zstd'"),
    "not_json": ({"body": b"\xff"}, "not valid JSON"),
    "deep": ({"body": b"[" * 1000}, "nested"),
    "large": ({"body": b" " * 2001}, "more than 2000 bytes"),
    "no_task": ({"body": b"{}"}, "protocol 1 or 2"),
    "two_parts": ({"body": b"[[], {}]"}, "protocol 1 or 2"),
    "no_name": ({"headers": {"task": ""}}, "task: the message does not tell"),
    "many_arguments": ({"args": ["x", 1]}, "as one object"),
    "an_odd_link": ({"embed": {"callbacks": ["x"]}}, "callbacks: it holds something"),
    "an_odd_chain": ({"embed": {"chain": {"task": "x"}}}, "chain: it holds something"),
    "an_odd_chord": ({"embed": {"chord": 7}}, "chord: it holds something"),
    "an_odd_limit": ({"headers": {"timelimit": ["1", None]}}, "timelimit: a time limit is no number"),
    "an_odd_time": ({"headers": {"eta": "tomorrow"}}, "eta: 'tomorrow' is no time"),
    "no_text_for_a_time": ({"headers": {"expires": 5}}, "expires: 5 is no time"),
    "the_broker_says": ({"problem": BadInput("the body is no base64", field="body")}, "no base64"),
}


@pytest.mark.parametrize(("message", "problem"), MALFORMED.values(), ids=MALFORMED)
def test_what_is_malformed_says_why_and_whose_it_is(message: dict[str, Any], problem: str) -> None:
    task = second(reply_to="answers", **message)
    assert problem in str(task.problem)
    assert (task.id, task.body) == ("t-1", b"")
    assert task.reply is not None
    assert (task.reply["id"], task.reply["reply_to"]) == ("t-1", "answers")


@pytest.mark.parametrize("id_", [None, "", 7])
def test_without_an_id_nobody_can_be_told(id_: Any) -> None:
    task = second(headers={"id": id_})
    assert (task.id, task.reply, str(task.problem)) == ("", None, "id: the message does not tell")
