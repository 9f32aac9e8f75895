"""Which regions of shared memory a client may have Triton map."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest

from serving.backends.triton.regions import check_region
from serving.errors import BadInput


@pytest.fixture
def key() -> Iterator[str]:
    """A region of 100 bytes."""
    place = Path("/dev/shm") / f"test_{uuid4().hex}"
    place.write_bytes(bytes(100))
    yield f"/{place.name}"
    place.unlink()


@pytest.mark.parametrize(("offset", "size"), [(0, 100), (99, 1), (40, 60)])
def test_a_part_of_a_region_that_is_there_is_let_through(key: str, offset: int, size: int) -> None:
    check_region({"key": key, "offset": offset, "byte_size": size})
    check_region({"key": key[1:], "offset": offset, "byte_size": size})


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"byte_size": 101}, "byte_size"),
        ({"byte_size": 0}, "byte_size"),
        ({"byte_size": -1}, "byte_size"),
        ({"byte_size": "9"}, "byte_size"),
        ({"byte_size": True}, "byte_size"),
        ({"offset": 101}, "offset"),
        ({"offset": 2**64, "byte_size": 2**64}, "offset"),
        ({"offset": -1}, "offset"),
        ({"offset": 1.5}, "offset"),
        ({"offset": 60, "byte_size": 60}, "byte_size"),
    ],
)
def test_what_does_not_lie_in_the_region_is_refused_by_its_field(key: str, change: dict[str, Any], field: str) -> None:
    with pytest.raises(BadInput) as caught:
        check_region({"key": key, "offset": 0, "byte_size": 8} | change)
    assert caught.value.field == field


@pytest.mark.parametrize(
    "key", [None, 7, "", "/", "/.", "/..", "/../etc/passwd", "/a/b", "//a", "/no\0", "/nobody", "x" * 5000]
)
def test_a_key_that_names_no_region_is_refused(key: Any) -> None:
    with pytest.raises(BadInput) as caught:
        check_region({"key": key, "offset": 0, "byte_size": 8})
    assert caught.value.field == "key"
    assert len(str(caught.value)) < 400


def test_the_meshs_own_regions_are_nobody_elses() -> None:
    place = Path("/dev/shm") / f"reelmesh_{uuid4().hex}"
    place.write_bytes(bytes(8))
    try:
        with pytest.raises(BadInput, match="Unable to open shared memory region"):
            check_region({"key": place.name, "offset": 0, "byte_size": 8})
    finally:
        place.unlink()
