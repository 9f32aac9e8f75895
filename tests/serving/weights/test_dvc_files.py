"""DVC's files as text: what they say, and that any other text is refused in one line."""

import json
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from serving.errors import BadInput
from serving.weights.dvc_files import Out, listing_of, outs_of, remote_of

MD5 = "d52e2baf43121f1cfe8fa6b307ef6f8c"
CONFIG = "[core]\n    remote = storage\n['remote \"storage\"']\n    url = ../../store\n"


def test_outs_of_a_dvc_file_and_of_a_lock_are_read() -> None:
    single = f"outs:\n- md5: {MD5}.dir\n  size: 3003\n  nfiles: 2\n  hash: md5\n  path: writer\n"
    assert outs_of(single, "writer.dvc") == [Out("writer", f"{MD5}.dir")]
    lock = f"schema: '2.0'\nstages:\n  train:\n    cmd: x\n    outs:\n    - path: a\n      md5: {MD5}\n      size: 9\n"
    assert outs_of(lock, "dvc.lock") == [Out("a", MD5, 9)]


def test_a_remote_is_the_default_the_named_or_the_only_one() -> None:
    assert remote_of([(CONFIG, "config")], None) == ("storage", {"url": "../../store"})
    two = CONFIG + "['remote \"other\"']\nurl = s3://b/p\nregion = eu\n"
    assert remote_of([(two, "config")], "other")[1] == {"url": "s3://b/p", "region": "eu"}
    local = "['remote \"storage\"']\n    secret_access_key = x%y\n"
    assert remote_of([(CONFIG, "config"), (local, "config.local")], None)[1]["secret_access_key"] == "x%y"
    with pytest.raises(BadInput, match="names no address for remote 'none'"):
        remote_of([(CONFIG, "config")], "none")
    with pytest.raises(BadInput, match="names no remote"):
        remote_of([("", "config")], None)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=8) | st.just(MD5),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["outs", "stages", "path", "md5", "size", "relpath", "x"]), inner, max_size=4)
    ),
    max_leaves=12,
)


@given(value=JSON)
def test_any_yaml_is_read_or_refused(value: Any) -> None:
    _read_or_refused(lambda: outs_of(yaml.safe_dump(value), "x.dvc"))
    _read_or_refused(lambda: listing_of(json.dumps(value).encode(), "x.dir"))


@given(data=st.binary(max_size=60))
def test_any_bytes_are_read_or_refused(data: bytes) -> None:
    text = data.decode("latin-1")
    _read_or_refused(lambda: outs_of(text, "x.dvc"))
    _read_or_refused(lambda: listing_of(data, "x.dir"))
    _read_or_refused(lambda: remote_of([(text, "config"), (CONFIG + text, "config.local")], None))


def _read_or_refused(read: Any) -> None:
    try:
        read()
    except BadInput as error:
        assert "\n" not in str(error)
