"""Overrides of a load, which are files on our disk once they are believed."""

import base64
from pathlib import PurePosixPath

import pytest
from hypothesis import given
from hypothesis import strategies as st

from serving.backends.overrides import MAX_PATH_CHARS, check_new_name, keep_only, read_overrides, write_files
from serving.errors import BadInput

CONFIG = {"config": "{}"}


@given(st.one_of(st.text(max_size=40), st.from_regex(r"[./a1]{1,12}", fullmatch=True)))
def test_whatever_a_path_says_it_stays_in_the_folder_or_is_refused(text):
    try:
        found = read_overrides("m", CONFIG | {f"file:{text}": ""})
    except BadInput as error:
        assert (error.field or "").startswith("parameters.")
        return
    (path,) = found.files
    assert not path.is_absolute() and ".." not in path.parts and str(path) == text


def test_files_are_written_where_they_say_and_versions_are_found_among_them(tmp_path):
    data = base64.b64encode(b"x").decode()
    found = read_overrides("m", CONFIG | {"file:10/model.py": data, "file:2/a/b": data, "file:labels.txt": data})
    assert write_files(tmp_path, found.files) == (2, 10)
    assert (tmp_path / "2/a/b").read_bytes() == b"x"
    assert found.config is not None and found.config.name == "m"


def test_files_in_each_others_way_are_refused(tmp_path):
    with pytest.raises(BadInput, match="cannot be written"):
        write_files(tmp_path, {PurePosixPath("1/x"): b"", PurePosixPath("1/x/y"): b""})


@pytest.mark.parametrize(
    ("path", "problem"),
    [("1/" + "x" * MAX_PATH_CHARS, "longer than"), ("a/" * 16 + "b", "longer than"), (".", "VERSION/FILE")],
    ids=["long", "deep", "folder"],
)
def test_a_path_has_bounds(path, problem):
    with pytest.raises(BadInput, match=problem):
        read_overrides("m", CONFIG | {f"file:{path}": ""})


def test_of_the_folders_of_loads_one_is_kept(tmp_path):
    for name in "ab":
        (tmp_path / "m" / name).mkdir(parents=True)
    keep_only(tmp_path / "m/b", tmp_path / "m")
    assert [folder.name for folder in (tmp_path / "m").iterdir()] == ["b"]
    keep_only(None, tmp_path / "nowhere")


@pytest.mark.parametrize("name", ["", "..", ".m", "a/b", "a b", "x" * 129, "m\n"])
def test_a_new_models_name_stands_in_an_address(name):
    check_new_name("resnet-50_v1.5")
    with pytest.raises(BadInput, match="cannot stand in an address"):
        check_new_name(name)


def file_of(path, content="YWJj"):
    return CONFIG | {f"file:{path}": content}


REFUSED = {
    "unknown": {"bogus": 1},
    "files-alone": {"file:1/model.onnx": "YWJj"},
    "config-number": {"config": 5},
    "config-broken": {"config": "{"},
    "config-array": {"config": "[]"},
    "config-deep": {"config": '{"a":' * 100_000},
    "config-field": {"config": '{"bogus": 1}'},
    "config-type": {"config": '{"max_batch_size": "x"}'},
    "empty-part": file_of("1//model.onnx"),
    "backslash": file_of("1\\model.onnx"),
    "nul": file_of("1/model\x00.onnx"),
    "newline": file_of("1/model\n.onnx"),
    "surrogate": file_of("1/\ud800"),
    "no-base64": file_of("1/model.onnx", "!" * 256),
    "base64-cut": file_of("1/model.onnx", "AAAAA"),
    "base64-number": file_of("1/model.onnx", 7),
    "base64-list": file_of("1/model.onnx", []),
    "too-many": CONFIG | {f"file:{number}": "" for number in range(257)},
}


@pytest.mark.parametrize("parameters", REFUSED.values(), ids=REFUSED.keys())
def test_a_refused_override_is_named_in_short(parameters):
    with pytest.raises(BadInput, match=r"^parameters") as caught:
        read_overrides("m", parameters)
    assert len(str(caught.value)) < 600
