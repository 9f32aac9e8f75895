"""Pickles are told by their content, whatever they are called; nothing is ever unpickled."""

import io
import pickle
import zipfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from serving.weights.contents import pickle_by_content, pickle_by_head


def archive(*members: str) -> bytes:
    data = io.BytesIO()
    with zipfile.ZipFile(data, "w") as made:
        for member in members:
            made.writestr(member, b"x")
    return data.getvalue()


def npz() -> bytes:
    data = io.BytesIO()
    np.savez(data, a=np.zeros(3))
    return data.getvalue()


CTRANSLATE2 = b"\x06\x00\x00\x00\x0c\x00WhisperSpec\x00\x03\x00\x00\x00" + bytes(200)
"""The beginning of a real model.bin: version of the format, then the name of the model's kind."""


@pytest.mark.parametrize(
    ("name", "data", "expected"),
    [
        *(
            pytest.param("model.bin", pickle.dumps({"a": [1, 2]}, protocol), True, id=f"protocol {protocol}")
            for protocol in range(6)
        ),
        pytest.param("weights.safetensors", pickle.dumps({}, 2), True, id="under a harmless name"),
        pytest.param("model.bin", archive("archive/data.pkl", "archive/version"), True, id="torch.save"),
        pytest.param("model.bin", archive("a")[:-5], True, id="an archive that cannot be read"),
        pytest.param("arrays.npz", npz(), False, id="numpy's archive"),
        pytest.param("model.bin", CTRANSLATE2, False, id="CTranslate2"),
        pytest.param("config.json", b'{"a": 1}', False, id="JSON"),
        pytest.param("merges.txt", b"(lp0\n.", False, id="text that reads as opcodes"),
        pytest.param("empty.bin", b"", False, id="empty"),
    ],
)
def test_a_pickle_is_told_by_its_content(tmp_path: Path, name: str, data: bytes, expected: bool) -> None:
    (tmp_path / name).write_bytes(data)
    assert pickle_by_content(tmp_path / name, name) is expected


@given(data=st.binary(max_size=300), protocol=st.integers(min_value=2, max_value=5))
def test_any_bytes_are_looked_at_without_harm(data: bytes, protocol: int) -> None:
    assert pickle_by_head(data, "model.bin") in {True, False}
    assert pickle_by_head(pickle.dumps(data, protocol), "x")
