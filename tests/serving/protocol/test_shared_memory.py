"""Regions of POSIX shared memory, made as a client makes them."""

import errno
import os
from multiprocessing import shared_memory

import numpy as np
import pytest

from serving.errors import BadInput, NotFound, TooLarge, Unavailable, Unsupported
from serving.protocol import shared_memory as shm
from serving.protocol.oip import Tensor
from serving.protocol.shared_memory import Regions, region_data


@pytest.fixture
def block():
    made = shared_memory.SharedMemory(create=True, size=4096)
    yield made
    made.close()
    made.unlink()


@pytest.fixture
def regions(block):
    found = Regions()
    found.register("r", f"/{block.name}", 0, 1024)
    yield found
    found.unregister()


def parameters(size, offset=None, region="r"):
    said = {"shared_memory_region": region, "shared_memory_byte_size": size}
    return said if offset is None else said | {"shared_memory_offset": offset}


def test_an_input_is_a_copy_that_its_client_cannot_change_any_more(block, regions):
    block.buf[8:16] = np.array([1, 2], np.float32).tobytes()
    data = regions.input_data("X", parameters(8, 8))
    assert data.readonly
    block.buf[8:16] = np.array([3, 4], np.float32).tobytes()
    assert Tensor("X", "FP32", (2,), data).array().tolist() == [1, 2]


def test_an_output_is_written_and_told_of(block, regions):
    placed = regions.place_output(Tensor.from_elements("Y", [b"ab", b"c"]), parameters(64, 100))
    assert bytes(block.buf[100:111]) == b"\x02\0\0\0ab\x01\0\0\0c"
    assert placed.parameters == {
        "shared_memory_region": "r",
        "shared_memory_byte_size": 11,
        "shared_memory_offset": 100,
    }


def test_a_region_too_small_for_an_output_is_told_in_tritons_words(regions):
    tensor = Tensor.from_array("Y", np.zeros(4, np.float32))
    with pytest.raises(BadInput) as caught:
        regions.place_output(tensor, parameters(15))
    assert caught.value.problem == (
        "shared memory size specified with the request for output 'Y' (15 bytes) should be at least 16 bytes to hold "
        "the results"
    )


OUTSIDE = {
    "past-the-end": (parameters(1025), BadInput, "Invalid offset \\+ byte size for shared memory region: 'r'"),
    "offset-past-the-end": (parameters(1, 1025), BadInput, "Invalid offset for shared memory region: 'r'"),
    "both-huge": (parameters(2**63 - 1, 2**63 - 1), BadInput, "Invalid offset"),
    "negative": (parameters(-1), BadInput, "must be a number of bytes"),
    "negative-offset": (parameters(1, -1), BadInput, "must be a number of bytes"),
    "overflow": (parameters(2**64), BadInput, "must be a number of bytes"),
    "no-size": ({"shared_memory_region": "r"}, BadInput, "must be a number of bytes"),
    "boolean": (parameters(True), BadInput, "must be a number of bytes"),
    "unknown": (parameters(1, region="q"), NotFound, "Unable to find shared memory region: 'q'"),
}


@pytest.mark.parametrize(("said", "kind", "problem"), OUTSIDE.values(), ids=OUTSIDE.keys())
def test_nothing_outside_the_region_is_reached(regions, said, kind, problem):
    for touch in (
        lambda: regions.input_data("X", said),
        lambda: regions.place_output(Tensor.from_array("X", np.zeros(1, np.uint8)), said),
    ):
        with pytest.raises(kind, match=problem):
            touch()


def test_a_file_cut_behind_our_back_is_noticed(block, regions):
    os.truncate(f"/dev/shm/{block.name}", 512)
    with pytest.raises(BadInput, match="smaller than it was registered"):
        regions.input_data("X", parameters(1024))
    with pytest.raises(BadInput, match="smaller than it was registered"):
        regions.place_output(Tensor.from_array("Y", np.zeros(1, np.float32)), parameters(4, 1020))
    assert (shm.FOLDER / block.name).stat().st_size == 512
    assert len(regions.input_data("X", parameters(512))) == 512
    os.truncate(f"/dev/shm/{block.name}", 4096)


def test_a_file_cut_between_the_pieces_of_a_read_is_noticed(block, regions, monkeypatch):
    pread = os.preadv

    def cut(descriptor, buffers, offset):
        got = pread(descriptor, [buffers[0][:256]], offset)
        os.truncate(f"/dev/shm/{block.name}", 512)
        return got

    monkeypatch.setattr(os, "preadv", cut)
    with pytest.raises(BadInput, match="smaller than it was registered"):
        regions.input_data("X", parameters(1024))
    os.truncate(f"/dev/shm/{block.name}", 4096)


def test_memory_that_is_used_up_is_the_regions_fault(block, regions, monkeypatch):
    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "pwrite", full)
    with pytest.raises(BadInput, match="'r' cannot be written: No space left"):
        regions.place_output(Tensor.from_array("Y", np.zeros(1, np.float32)), parameters(4))


def test_what_the_inputs_of_a_request_take_is_bounded(block):
    found = Regions(most_bytes=100)
    found.register("r", block.name, 0, 1024)
    first = Tensor("A", "UINT8", (60,), found.input_data("A", parameters(60)), parameters(60))
    assert len(found.input_data("B", parameters(40), [first])) == 40
    with pytest.raises(TooLarge, match="more than 100 bytes, up to 'B'"):
        found.input_data("B", parameters(41), [first])
    found.unregister()


KEYS = {
    "traversal": "../etc/passwd",
    "deep": "/a/b",
    "dots": "..",
    "dot": ".",
    "empty": "",
    "slash": "/",
    "null": "a\0b",
    "long": "a" * 300,
    "missing": "nowhere_to_be_found",
    "surrogate": "a\ud800",
}


@pytest.mark.parametrize("key", KEYS.values(), ids=KEYS.keys())
def test_a_key_that_is_no_region_is_refused(key):
    with pytest.raises(BadInput, match="Unable to open shared memory region"):
        Regions().register("r", key, 0, 1)


def test_a_link_out_of_the_folder_is_not_followed(tmp_path):
    secret = tmp_path / "secret"
    secret.write_bytes(b"x" * 64)
    link = shm.FOLDER / f"reelmesh_test_link_{os.getpid()}"
    link.symlink_to(secret)
    try:
        with pytest.raises(BadInput, match="Unable to open"):
            Regions().register("r", link.name, 0, 64)
    finally:
        link.unlink()


def test_tritons_own_regions_are_refused():
    with pytest.raises(BadInput, match="reserved substring"):
        Regions().register("r", "/triton_python_backend_shm_region_1", 0, 1)


@pytest.mark.parametrize(
    ("offset", "size"), [(0, 4097), (4096, 1), (-1, 1), (0, 0), (2**63 - 1, 2**63 - 1), (1, 2**64)], ids=str
)
def test_a_region_larger_than_its_file_is_refused(block, offset, size):
    with pytest.raises(BadInput, match="failed to register shared memory region 'q': invalid args"):
        Regions().register("q", block.name, offset, size)


def test_names_are_taken_once_and_status_tells_of_them(block, regions):
    with pytest.raises(BadInput, match="shared memory region 'r' already in manager"):
        regions.register("r", block.name, 0, 1)
    regions.register("a", block.name, 16, 32)
    assert [each["name"] for each in regions.status()] == ["a", "r"]
    assert regions.status("a") == [{"name": "a", "key": block.name, "offset": 16, "byte_size": 32}]
    regions.unregister("a")
    regions.unregister("a")
    with pytest.raises(NotFound, match="Unable to find system shared memory region: 'a'"):
        regions.status("a")
    regions.unregister()
    assert regions.status() == []


def test_the_file_of_a_region_stays_open_as_long_as_somebody_uses_it(block, regions):
    region = regions._regions["r"]
    regions.unregister("r")
    assert len(region.read(0, 8)) == 8
    descriptor = region.descriptor
    del region
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(descriptor)


def test_the_number_of_regions_is_bounded(block, monkeypatch):
    monkeypatch.setattr(shm, "MAX_REGIONS", 2)
    found = Regions()
    for name in "ab":
        found.register(name, block.name, 0, 1)
    with pytest.raises(Unavailable, match="are registered"):
        found.register("c", block.name, 0, 1)
    found.unregister()


def test_without_regions_shared_memory_is_refused():
    with pytest.raises(Unsupported, match="shared memory is not supported for 'X'"):
        region_data(None, "X", parameters(1))


def test_the_meshs_own_regions_are_nobody_elses():
    own = shared_memory.SharedMemory(f"{shm.OWN_PREFIX}{os.getpid()}", create=True, size=64)
    try:
        with pytest.raises(BadInput, match="Unable to open shared memory region"):
            Regions().register("r", own.name, 0, 64)
    finally:
        own.close()
        own.unlink()
