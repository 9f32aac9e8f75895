import ml_dtypes
import numpy as np
import pytest
from tritonclient.grpc import service_pb2 as pb

from serving.client.request import Placed, Step, build_request, plan, to_bytes
from serving.errors import BadInput
from serving.protocol.oip_grpc import from_message


@pytest.mark.parametrize(
    "array",
    [
        np.arange(6, dtype=np.float32).reshape(2, 3),
        np.arange(6, dtype=np.float32).reshape(2, 3).T,
        np.arange(6, dtype=">i4"),
        np.array(3, np.int64),
        np.zeros((0, 3), np.float64),
        np.array([True, False]),
        np.ones(3, ml_dtypes.bfloat16),
        np.array([["a", "ü"]]),
        np.array([b"\x00", b""], dtype=object),
    ],
    ids=["plain", "transposed", "big endian", "scalar", "empty", "bool", "BF16", "text", "bytes"],
)
def test_an_array_arrives_as_it_was(array: np.ndarray) -> None:
    message = pb.ModelInferRequest.FromString(to_bytes(build_request("m", {"X": array})))
    arrived = from_message(message).inputs[0].array()
    assert arrived.shape == array.shape
    wanted = [value.encode() if isinstance(value, str) else value for value in array.reshape(-1).tolist()]
    assert arrived.reshape(-1).tolist() == wanted


def test_a_big_array_is_not_copied_before_it_is_sent() -> None:
    array = np.zeros(1000, np.float32)
    data = build_request("m", {"X": array}).inputs[0].data
    assert isinstance(data, memoryview)
    array[0] = 1
    assert np.frombuffer(data, np.float32)[0] == 1


def test_everything_that_was_asked_for_stands_in_the_message() -> None:
    request = build_request(
        "m", {"X": np.zeros(1, np.float32)}, version="2", request_id="7", outputs={"Y": 3, "Z": 0}, priority=1,
        sequence=Step(42, start=True), parameters={"timeout": 5, "style": "noir", "weight": 0.5, "on": True},
    )  # fmt: skip
    got = from_message(pb.ModelInferRequest.FromString(to_bytes(request)))
    assert (got.model_name, got.model_version, got.id) == ("m", "2", "7")
    assert got.parameters == {
        "timeout": 5, "style": "noir", "weight": 0.5, "on": True, "priority": 1,
        "sequence_id": 42, "sequence_start": True, "sequence_end": False,
    }  # fmt: skip
    outputs = {output.name: dict(output.parameters) for output in got.outputs}
    assert outputs == {"Y": {"classification": 3}, "Z": {}}


@pytest.mark.parametrize(
    ("arrays", "parameters", "said"),
    [
        ({"X": np.zeros(1, np.complex64)}, {}, "complex64 has no datatype"),
        ({"X": np.zeros(1)}, {"priority": "high"}, "parameters.priority: must be an integer"),
        ({"X": np.zeros(1)}, {"timeout": -1}, "parameters.timeout: must be between 0"),
    ],
)
def test_what_the_protocol_has_no_form_for_is_refused(arrays: dict, parameters: dict, said: str) -> None:
    with pytest.raises(BadInput, match=said):
        build_request("m", arrays, parameters=parameters)


@pytest.mark.parametrize(
    ("given", "datatype", "shape"),
    [
        ([[1.5, 2.0]], "FP64", (1, 2)),
        ([1, 2, 3], "INT64", (3,)),
        ([True], "BOOL", (1,)),
        (["a", "ü"], "BYTES", (2,)),
        ([b"a", b"bc\x00"], "BYTES", (2,)),
        ("noir", "BYTES", ()),
        ([np.float32(1)], "FP32", (1,)),
        (range(2), "INT64", (2,)),
    ],
)
def test_what_numpy_makes_an_array_of_is_an_input(given: object, datatype: str, shape: tuple[int, ...]) -> None:
    tensor = build_request("m", {"X": given}).inputs[0]
    assert (tensor.datatype, tensor.shape) == (datatype, shape)


def test_zeros_at_the_end_of_bytes_in_a_list_are_kept() -> None:
    assert build_request("m", {"X": [b"a\x00", b""]}).inputs[0].array().tolist() == [b"a\x00", b""]


class Breaks:
    def __array__(self, *_: object, **__: object) -> np.ndarray:
        raise RuntimeError("on the GPU")


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ([[1.0], [1.0, 2.0]], "X: is no array"),
        ([1.0, None], "X: numpy makes no tensor of"),
        ({"a": 1}, "X: numpy makes no tensor of"),
        (None, "X: numpy makes no tensor of None"),
        ([1j], "X: numpy type complex128 has no datatype"),
        (Breaks(), "X: is no array: on the GPU"),
    ],
    ids=["ragged", "hole", "mapping", "nothing", "complex", "raises"],
)
def test_what_makes_no_tensor_is_refused_by_the_inputs_name_and_with_the_fix(given: object, said: str) -> None:
    with pytest.raises(BadInput, match=rf"^{said}.*: pass a numpy array of the input's dtype"):
        build_request("m", {"X": given})


def test_only_big_tensors_are_placed_and_none_overlap() -> None:
    arrays = {"A": np.zeros(1001, np.uint8), "B": np.zeros(10, np.uint8), "C": np.zeros(2000, np.uint8)}
    request = build_request("m", arrays, outputs=["Y", "Z"])
    inputs, outputs, size = plan(request, {"Y": 1500, "Z": 1}, 1000)
    assert inputs == {"A": Placed(0, 1001), "C": Placed(1024, 2000)}
    assert outputs == {"Y": Placed(3072, 1500)}
    assert size == 3072 + 1536


def test_classes_are_never_placed() -> None:
    request = build_request("m", {"X": np.zeros(1)}, outputs={"Y": 3})
    assert plan(request, {"Y": 5000}, 1000) == ({}, {}, 0)


def test_a_size_for_an_output_that_is_not_asked_for_is_refused() -> None:
    with pytest.raises(BadInput, match=r"output_bytes.Q"):
        plan(build_request("m", {}, outputs=["Y"]), {"Q": 5}, 1)
