"""Remembered calls of the control plane."""

import pytest

from serving.backends.control_calls import ModelCall, let_go_call, model_call, region_call, sets_logs, trace_call
from serving.protocol.control import ControlCall

CALLS = {
    "load": ("/v2/repository/models/a%2Fb/load", (ModelCall("a/b", True, {"x": 1}), None, None, False)),
    "unload": ("/v2/repository/models/m/unload", (ModelCall("m", False, {"x": 1}), None, None, False)),
    "region": ("/v2/systemsharedmemory/region/r%20s/register", (None, "r s", None, False)),
    "cuda": ("/v2/cudasharedmemory/region/r/register", (None, None, None, False)),
    "trace": ("/v2/trace/setting", (None, None, "", False)),
    "trace-model": ("/v2/models/m/trace/setting", (None, None, "m", False)),
    "logs": ("/v2/logging", (None, None, None, True)),
    "other": ("/v2/repository/index", (None, None, None, False)),
}


@pytest.mark.parametrize(("path", "said"), CALLS.values(), ids=CALLS.keys())
def test_a_path_says_what_a_call_sets(path, said):
    call = ControlCall(key="k", path=path, body={"parameters": {"x": 1}})
    assert (model_call(call), region_call(call), trace_call(call), sets_logs(call)) == said


def test_a_region_that_is_let_go_is_named():
    path = "/v2/systemsharedmemory/region/r%20s/unregister"
    assert let_go_call(ControlCall(key="k", path=path)) == "r s"
    assert let_go_call(ControlCall(key="k", path=CALLS["region"][0])) is None
