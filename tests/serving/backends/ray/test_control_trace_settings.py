"""Trace settings of a Ray replica."""

import pytest

from serving.backends.ray.control_trace_settings import INITIAL, TraceSettings
from serving.errors import BadInput, Unsupported


def test_a_models_settings_stand_over_the_common_ones_until_they_are_taken_back():
    settings = TraceSettings(file="/home/t.json").changed("", {"trace_level": ["TIMESTAMPS"], "trace_rate": 5})
    settings = settings.changed("m", {"trace_rate": ["7"], "log_frequency": "2"})
    assert settings.of("m") == {
        **INITIAL,
        "trace_level": ["TIMESTAMPS"],
        "trace_rate": "7",
        "log_frequency": "2",
        "trace_file": "/home/t.json",
    }
    assert (settings.timestamps("m"), settings.number("other", "trace_rate")) == (True, 5)
    assert settings.changed("m", {"trace_rate": None}).of("m")["trace_rate"] == "5"
    assert settings.changed("", {"trace_rate": None}).of("")["trace_rate"] == "1000"


BAD = {
    "unknown": ({"colour": 1}, BadInput, "unrecognized trace setting 'colour'"),
    "level": ({"trace_level": ["LOUD"]}, BadInput, "must be OFF, TIMESTAMPS, TENSORS, not 'LOUD'"),
    "level-number": ({"trace_level": 7}, BadInput, "must be OFF"),
    "levels-none": ({"trace_level": []}, BadInput, "must be 1 to 3"),
    "levels-many": ({"trace_level": ["OFF"] * 9}, BadInput, "must be 1 to 3"),
    "rate": ({"trace_rate": "0"}, BadInput, "must be a whole number from 1 up"),
    "rate-word": ({"trace_rate": "often"}, BadInput, "must be a whole number from 1 up"),
    "rate-huge": ({"trace_rate": 2**40}, BadInput, "must be a whole number"),
    "count": ({"trace_count": -2}, BadInput, "must be a whole number from -1 up"),
    "frequency": ({"log_frequency": True}, BadInput, "must be a whole number from 0 up"),
    "file": ({"trace_file": "/x"}, Unsupported, "trace file location can not be updated through network protocol"),
    "mode": ({"trace_mode": "opentelemetry"}, Unsupported, "trace mode can not be updated"),
}


@pytest.mark.parametrize(("changes", "kind", "problem"), BAD.values(), ids=BAD.keys())
def test_a_bad_change_is_refused(changes, kind, problem):
    for model in ("", "m"):
        with pytest.raises(kind, match=problem):
            TraceSettings().changed(model, changes)
