"""Traces of a Ray replica."""

import json
import time
from itertools import pairwise

import pytest

from serving.backends.ray import traces as module
from serving.backends.ray.traces import Traces, write
from serving.protocol.oip import InferRequest
from serving.protocol.oip_statistics import Times

TIMES = Times(queue_s=0.001, input_s=0.002, infer_s=0.003, output_s=0.004)


@pytest.fixture
def traces(tmp_path):
    return Traces(tmp_path / "traces/r.json")


def ask(traces, count, model="m"):
    return [traces.record(InferRequest(model, "1"), time.monotonic_ns(), TIMES) for _ in range(count)]


def ids(traces):
    traces.flush()
    file = traces._file
    return [entry["id"] for entry in json.loads(file.read_text()) if "timestamps" in entry] if file.exists() else []


def change(traces, model="", **changes):
    traces.change(traces.settings.changed(model, changes))


def test_nothing_is_traced_until_somebody_asks(traces):
    ask(traces, 5)
    assert ids(traces) == []


def test_rate_and_count_choose_requests(traces):
    change(traces, trace_level=["TIMESTAMPS"], trace_rate="3", trace_count="2")
    ask(traces, 20)
    assert ids(traces) == [1, 2]


def test_a_model_is_traced_by_itself(traces):
    change(traces, "m", trace_level=["TIMESTAMPS"], trace_rate="1")
    ask(traces, 2)
    ask(traces, 2, "other")
    assert ids(traces) == [1, 2]


def test_the_phases_follow_each_other(traces):
    change(traces, trace_level=["TIMESTAMPS"], trace_rate=1, log_frequency=1)
    assert ask(traces, 1) == [True]
    traces.flush()
    stamps = json.loads(traces._file.read_text())[1]["timestamps"]
    gaps = [after["ns"] - before["ns"] for before, after in pairwise(stamps)]
    assert gaps[:5] == [0, 1_000_000, 2_000_000, 3_000_000, 4_000_000]


def test_the_file_stays_bounded_and_keeps_the_newest(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "MAX_BYTES", 1000)
    file = tmp_path / "t.json"
    write(file, [{"id": number, "name": "x" * 20} for number in range(500)])
    assert file.stat().st_size <= 1000
    assert json.loads(file.read_text())[-1]["id"] == 499


def test_a_folder_that_cannot_be_written_harms_no_request(tmp_path):
    (tmp_path / "file").write_text("")
    traces = Traces(tmp_path / "file" / "t.json")
    change(traces, trace_level=["TIMESTAMPS"], trace_rate=1)
    ask(traces, 1)
    traces.flush()


def test_traces_that_wait_are_written_however_many_may_wait(traces, monkeypatch):
    monkeypatch.setattr(module, "MOST_BUFFERED", 3)
    change(traces, trace_level=["TIMESTAMPS"], trace_rate=1, log_frequency=2**31 - 1)
    assert ask(traces, 3) == [False, False, True]
