"""Log settings of a Ray replica."""

import pytest
import structlog

from serving.backends.ray.control_logs import Silencer, changed, initial, silenced
from serving.errors import BadInput, Unsupported

QUIET = {
    "info": ("info", {"debug"}),
    "debug": ("debug", set()),
    "warning": ("warning", {"debug", "info"}),
    "error": ("error", {"debug", "info", "warning"}),
}


@pytest.mark.parametrize(("level", "silent"), QUIET.values(), ids=QUIET.keys())
def test_the_level_of_the_process_is_told_in_tritons_settings(level, silent):
    assert silenced(initial(level)) == silent


def test_each_level_is_switched_by_itself():
    found = changed(initial("info"), {"log_info": False, "log_error": False, "log_verbose_level": 2})
    assert silenced(found) == {"info", "error", "critical"}


BAD = {
    "unknown": ({"colour": 1}, BadInput, "unrecognized log setting 'colour'"),
    "flag": ({"log_info": 1}, BadInput, "log_info: must be a boolean"),
    "verbose": ({"log_verbose_level": -1}, BadInput, "log_verbose_level: must be a whole number"),
    "verbose-flag": ({"log_verbose_level": True}, BadInput, "must be a whole number"),
    "format": ({"log_format": "json"}, BadInput, "must be default or ISO8601"),
    "format-list": ({"log_format": []}, BadInput, "must be default or ISO8601"),
    "file": ({"log_file": "/x"}, Unsupported, "log file location can not be updated through network protocol"),
}


@pytest.mark.parametrize(("changes", "kind", "problem"), BAD.values(), ids=BAD.keys())
def test_a_bad_change_is_refused(changes, kind, problem):
    with pytest.raises(kind, match=problem):
        changed(initial("info"), changes)


def test_lines_of_silenced_levels_are_dropped_and_the_others_pass():
    silencer = Silencer()
    silencer.silent = frozenset({"info", "error"})
    for method in ("info", "error", "exception"):
        with pytest.raises(structlog.DropEvent):
            silencer(None, method, {})
    assert silencer(None, "warning", {"event": "x"}) == {"event": "x"}
