"""Headers of safetensors files, with the library itself as a second opinion."""

import json
import struct
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from serving.errors import BadInput
from serving.weights.safetensors_files import TensorInfo, compare, parse_header, read_header, read_index, read_layout
from tests.serving.weights.models import safetensors, write

PATH = Path("model.safetensors")
FLOAT = {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}
INDEX = "model.safetensors.index.json"


def file_of(header: Any, data: bytes = bytes(8)) -> bytes:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + data


def test_names_dtypes_and_shapes_are_read_as_the_library_wrote_them(tmp_path: Path) -> None:
    import numpy as np

    path = tmp_path / "model.safetensors"
    path.write_bytes(save({"a": np.zeros((2, 3), np.float16), "b": np.zeros((), np.int64)}, {"format": "np"}))
    assert {name: (info.dtype, info.shape) for name, info in read_header(path).items()} == {
        "a": ("F16", (2, 3)),
        "b": ("I64", ()),
    }


@pytest.mark.parametrize(
    ("data", "problem"),
    [
        pytest.param(b"", "0 bytes, too few", id="empty"),
        pytest.param(b"\xff" * 8, "over 100000000", id="absurd header length"),
        pytest.param(struct.pack("<Q", 99) + b"{}", "is truncated: its header has 99 bytes", id="header cut"),
        pytest.param(file_of({"a": FLOAT}, bytes(7)), "is truncated: its tensors have 8 bytes, 7", id="data cut"),
        pytest.param(file_of({"a": FLOAT}, bytes(9)), "1 bytes longer than its tensors", id="too long"),
        pytest.param(file_of({"a": FLOAT, "b": FLOAT}), "they overlap", id="overlapping"),
        pytest.param(file_of({"a": {**FLOAT, "data_offsets": [4, 12]}}, bytes(12)), "a hole", id="hole"),
        pytest.param(file_of({"a": {**FLOAT, "shape": [3]}}), "not what F32", id="wrong shape"),
        pytest.param(file_of({"a": {**FLOAT, "shape": [-2]}}), "is damaged", id="negative shape"),
        pytest.param(file_of({"a": {**FLOAT, "shape": [True, 2]}}), "is damaged", id="a bool as a size"),
        pytest.param(file_of({"a": {**FLOAT, "dtype": "F31"}}), "unknown dtype 'F31'", id="unknown dtype"),
        pytest.param(file_of({"a": 1}), "is damaged", id="no tensor"),
        pytest.param(file_of({"__metadata__": {"a": 1}}, b""), "is no map of texts", id="metadata"),
        pytest.param(file_of([]), "no JSON object", id="a list"),
        pytest.param(file_of(b"{"), "not JSON", id="no JSON"),
        pytest.param(file_of(b'{"a": 1, "a": 2}'), "distinct names", id="a name twice"),
        pytest.param(file_of(b"[" * 100_000), "not JSON", id="nested"),
    ],
)
def test_a_damaged_file_is_refused_in_one_line_that_names_it(tmp_path: Path, data: bytes, problem: str) -> None:
    (tmp_path / "model.safetensors").write_bytes(data)
    with pytest.raises(BadInput, match=problem) as caught:
        read_header(tmp_path / "model.safetensors")
    assert str(caught.value).startswith(str(tmp_path / "model.safetensors"))
    assert "\n" not in str(caught.value)
    with pytest.raises(SafetensorError):
        safe_open(tmp_path / "model.safetensors", framework="numpy")


SIZES = st.integers(min_value=-2, max_value=1 << 65) | st.integers(min_value=0, max_value=9)
TENSORS = st.fixed_dictionaries(
    {
        "dtype": st.sampled_from(["F32", "U8", "F4", "XX"]),
        "shape": st.lists(SIZES, max_size=3),
        "data_offsets": st.lists(SIZES, min_size=1, max_size=3),
    }
)
VALUES = st.recursive(st.none() | st.booleans() | SIZES | st.text(max_size=5), st.lists, max_leaves=5)


@given(
    header=st.binary(max_size=200)
    | st.dictionaries(st.text(max_size=3), TENSORS | VALUES).map(lambda told: json.dumps(told).encode()),
    data_bytes=st.integers(min_value=0, max_value=64),
)
def test_any_header_is_read_or_refused(header: bytes, data_bytes: int) -> None:
    try:
        tensors = parse_header(header, data_bytes, PATH)
    except BadInput as error:
        assert "\n" not in str(error)
    else:
        assert sum(info.end - info.begin for info in tensors.values()) == data_bytes


@given(
    shapes=st.dictionaries(
        st.text(min_size=1, max_size=5).filter(lambda name: name != "__metadata__"),
        st.lists(st.integers(min_value=0, max_value=4), max_size=3).map(tuple),
        max_size=6,
    )
)
def test_what_is_written_is_read_back(shapes: dict[str, tuple[int, ...]]) -> None:
    data = safetensors(shapes)
    length = int.from_bytes(data[:8], "little")
    tensors = parse_header(data[8 : 8 + length], len(data) - 8 - length, PATH)
    assert {name: info.shape for name, info in tensors.items()} == shapes


@given(cut=st.integers(min_value=0, max_value=299))
def test_a_file_cut_anywhere_is_refused(tmp_path_factory: pytest.TempPathFactory, cut: int) -> None:
    whole = safetensors({"a": (100,), "b": (50,)})
    path = tmp_path_factory.getbasetemp() / "cut.safetensors"
    path.write_bytes(whole[: min(cut, len(whole) - 1)])
    with pytest.raises(BadInput):
        read_header(path)


def test_the_shards_of_an_index_are_read_as_one(tmp_path: Path) -> None:
    shards = {"m-1.safetensors": safetensors({"a": (2,)}), "m-2.safetensors": safetensors({"b": (3, 1)})}
    index = {"weight_map": {"a": "m-1.safetensors", "b": "m-2.safetensors"}}
    write(tmp_path, {**shards, INDEX: json.dumps(index).encode()})
    for path in (tmp_path, tmp_path / INDEX):
        assert {name: info.shape for name, info in read_layout(path).items()} == {"a": (2,), "b": (3, 1)}
    assert read_layout(tmp_path / "m-1.safetensors") == {"a": TensorInfo("U8", (2,), 0, 2)}


@pytest.mark.parametrize(
    ("index", "problem"),
    [
        pytest.param({"weight_map": {"a": "m-1.safetensors", "b": "m-9.safetensors"}}, "1 missing shards", id="shard"),
        pytest.param({"weight_map": {"z": "m-1.safetensors"}}, "lacks what its index promises", id="tensor"),
        pytest.param({"weight_map": {"a": "../m.safetensors"}}, "outside its own folder", id="elsewhere"),
        pytest.param({"weight_map": []}, "no weight_map", id="no map"),
    ],
)
def test_an_index_that_does_not_fit_its_shards_is_refused(tmp_path: Path, index: Any, problem: str) -> None:
    write(tmp_path, {"m-1.safetensors": safetensors({"a": (2,)}), INDEX: json.dumps(index).encode()})
    with pytest.raises(BadInput, match=problem):
        read_layout(tmp_path)


@given(data=st.binary(max_size=100) | VALUES.map(lambda value: json.dumps({"weight_map": value}).encode()))
def test_any_index_is_read_or_refused(tmp_path_factory: pytest.TempPathFactory, data: bytes) -> None:
    path = tmp_path_factory.getbasetemp() / INDEX
    path.write_bytes(data)
    try:
        assert isinstance(read_index(path), dict)
    except BadInput as error:
        assert "\n" not in str(error)


def test_two_files_that_hold_one_name_are_refused(tmp_path: Path) -> None:
    write(tmp_path, {"a.safetensors": safetensors({"a": (2,)}), "b.safetensors": safetensors({"a": (2,)})})
    with pytest.raises(BadInput, match="another file holds too"):
        read_layout(tmp_path)


def test_a_folder_without_any_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="holds no safetensors file"):
        read_layout(tmp_path)


def test_keys_that_do_not_fit_are_counted_and_named_in_one_line() -> None:
    expected = {"a": (1,), "b": (2,), **{f"m{number}": (1,) for number in range(5)}}
    with pytest.raises(BadInput) as caught:
        compare(expected, {"a": (1,), "b": (3, 2), "x": (1,)}, where="w/model.safetensors")
    told = str(caught.value)
    assert told.startswith("w/model.safetensors: the checkpoint does not fit the model: ")
    assert "5 missing ('m0', 'm1', 'm2' and 2 more); 1 extra ('x'); 1 misshapen ('b' is [3, 2], not [2])" in told
    assert "\n" not in told
    compare(expected, expected, where="w")
