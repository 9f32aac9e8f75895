"""What clients may ask of the control plane."""

import pytest

from serving.errors import BadInput, Unsupported
from serving.gateway.oip_checks import log_changes, region_body, trace_changes, unload_dependents


def test_unload_dependents_is_a_boolean():
    assert unload_dependents({"unload_dependents": True})
    assert not unload_dependents({})
    with pytest.raises(BadInput, match=r"parameters\.unload_dependents"):
        unload_dependents({"unload_dependents": "x"})


SETTINGS = {
    "log-flag": (log_changes, {"log_info": 3}, "log_info: must be a boolean"),
    "log-level": (log_changes, {"log_verbose_level": -1}, "log_verbose_level: must be an integer"),
    "log-level-bool": (log_changes, {"log_verbose_level": True}, "log_verbose_level: must be an integer"),
    "log-level-huge": (log_changes, {"log_verbose_level": 10**30}, "log_verbose_level: must be an integer"),
    "log-format": (log_changes, {"log_format": "x"}, "invalid argument for log_format, got: 'x'"),
    "log-unknown": (log_changes, {"bogus": 1}, "'bogus' is no log setting"),
    "trace-level": (trace_changes, {"trace_level": ["X"]}, "trace_level: must be of OFF"),
    "trace-level-type": (trace_changes, {"trace_level": {"a": 1}}, "trace_level: must be of OFF"),
    "trace-level-nested": (trace_changes, {"trace_level": [["OFF"]]}, "trace_level: must be of OFF"),
    "trace-rate": (trace_changes, {"trace_rate": "x"}, "Unable to parse 'trace_rate', got: 'x'"),
    "trace-rate-number": (trace_changes, {"trace_rate": 5}, "Unable to parse 'trace_rate', got: 5"),
    "trace-mode": (trace_changes, {"trace_mode": 5}, "trace_mode: must be a string"),
    "trace-unknown": (trace_changes, {"x" * 9999: 1}, "is no trace setting"),
}


@pytest.mark.parametrize("case", SETTINGS.values(), ids=SETTINGS.keys())
def test_a_refused_setting_is_named(case):
    check, changes, problem = case
    with pytest.raises(BadInput) as caught:
        check(changes)
    assert problem in str(caught.value)


@pytest.mark.parametrize(("check", "name"), [(log_changes, "log_file"), (trace_changes, "trace_file")])
def test_the_place_of_a_file_cannot_be_set_as_in_triton(check, name):
    with pytest.raises(Unsupported, match="location can not be updated through network protocol"):
        check({name: "/tmp/x"})


def test_good_settings_pass():
    assert log_changes({"log_info": False, "log_verbose_level": 2, "log_format": "ISO8601"})
    assert trace_changes({"trace_level": ["TIMESTAMPS", "TENSORS"], "trace_rate": "7", "trace_count": None})


REGIONS = {
    "no-key": ("system", {"byte_size": 8}, "Shared memory register request has no 'key' field"),
    "no-size": ("system", {"key": "/a"}, "Shared memory register request has no 'byte_size' field"),
    "key-up": ("system", {"key": "/../a", "byte_size": 8}, "key: '/../a' must hold no path"),
    "key-empty": ("system", {"key": "/", "byte_size": 8}, "key: '/' must hold no path"),
    "key-number": ("system", {"key": 1, "byte_size": 8}, "key: must be a string"),
    "key-nul": ("system", {"key": "/a\x00", "byte_size": 8}, "must hold no path and no control character"),
    "size-text": ("system", {"key": "/a", "byte_size": "x"}, "byte_size: must be an integer"),
    "size-huge": ("system", {"key": "/a", "byte_size": 2**64}, "byte_size: must be an integer"),
    "offset-negative": ("system", {"key": "/a", "byte_size": 8, "offset": -1}, "offset: must be an integer"),
    "cuda-handle": ("cuda", {"raw_handle": "x", "device_id": 0, "byte_size": 8}, "raw_handle.b64: must be a string"),
    "cuda-base64": (
        "cuda",
        {"raw_handle": {"b64": "!"}, "device_id": 0, "byte_size": 8},
        "raw_handle.b64: must be a string in base64",
    ),
    "cuda-device": ("cuda", {"raw_handle": {"b64": "AA=="}, "device_id": -1, "byte_size": 8}, "device_id: must be"),
}


@pytest.mark.parametrize("case", REGIONS.values(), ids=REGIONS.keys())
def test_a_refused_region_is_named(case):
    kind, body, problem = case
    with pytest.raises(BadInput) as caught:
        region_body(kind, body)
    assert problem in str(caught.value)


def test_a_region_keeps_what_matters():
    assert region_body("system", {"key": "a", "byte_size": 8, "x": 1}) == {"key": "a", "offset": 0, "byte_size": 8}
