"""Addresses of weights are taken apart, or refused in one line."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from serving.errors import BadInput
from serving.repository.source import Address, read_address


@pytest.mark.parametrize(
    ("uri", "address"),
    [
        ("builtin:image", Address("builtin", "image")),
        ("wheel:x==1#a/b", Address("wheel", "x==1#a/b")),
        ("hf:owner/name-2.0", Address("hf", "owner/name-2.0")),
        ("s3://bucket/a/b", Address("s3", "bucket/a/b")),
        ("s3://bucket", Address("s3", "bucket")),
        ("mlflow:models/my writer/3", Address("mlflow", "models/my writer/3")),
        ("mlflow:runs/ab12/weights/x", Address("mlflow", "runs/ab12/weights/x")),
        ("file:weights", Address("file", "weights")),
        ("file:/weights", Address("file", "/weights")),
        ("file:///weights", Address("file", "/weights")),
        ("dvc:../repo/models", Address("dvc", "../repo/models")),
    ],
)
def test_an_address_is_taken_apart(uri: str, address: Address) -> None:
    assert read_address(uri) == address


@pytest.mark.parametrize(
    ("uri", "fix"),
    [
        ("gs://bucket/x", "begin it with builtin:"),
        ("weights", "begin it with builtin:"),
        ("hf:name", "write hf:owner/name"),
        ("hf:a/b/c", "write hf:owner/name"),
        ("hf:../..", "write hf:owner/name"),
        ("s3:bucket/x", "write s3://bucket/prefix"),
        ("s3://bucket/../x", "write s3://bucket/prefix"),
        ("mlflow:models/writer", "write mlflow:models/NAME/VERSION"),
        ("mlflow:runs/x/../y", "write mlflow:models/NAME/VERSION"),
        ("file:", "write file:"),
        ("file:a\nb", "write file:"),
        ("dvc:", "write dvc:"),
    ],
)
def test_an_address_that_names_no_place_is_refused_with_the_form(uri: str, fix: str) -> None:
    with pytest.raises(BadInput, match=fix) as caught:
        read_address(uri)
    assert caught.value.field == "source.uri"
    assert "\n" not in str(caught.value)


@given(scheme=st.sampled_from(["hf", "s3", "mlflow", "file", "dvc", "x"]), rest=st.text(max_size=40))
def test_any_address_is_read_or_refused(scheme: str, rest: str) -> None:
    try:
        address = read_address(f"{scheme}:{rest}")
    except BadInput as error:
        assert "\n" not in str(error)
    else:
        assert address.kind == scheme
        assert scheme not in {"hf", "s3", "mlflow"} or ".." not in address.place.split("/")
