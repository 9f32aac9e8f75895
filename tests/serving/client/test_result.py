import numpy as np
import pytest
from tritonclient.grpc import service_pb2 as pb

from serving.client.result import Class, Result, from_bytes
from serving.errors import BadInput, EngineFailed


def answer(**fields: object) -> bytes:
    return pb.ModelInferResponse(model_name="m", model_version="3", id="7", **fields).SerializeToString()


def output(name: str, datatype: str, *shape: int) -> pb.ModelInferResponse.InferOutputTensor:
    return pb.ModelInferResponse.InferOutputTensor(name=name, datatype=datatype, shape=shape)


def test_a_result_is_a_mapping_of_arrays_with_what_came_beside_them() -> None:
    message = answer(
        outputs=[output("Y", "FP32", 1, 2), output("S", "BYTES", 1)],
        raw_output_contents=[np.float32([1, 2]).tobytes(), b"\x02\x00\x00\x00hi"],
        parameters={"seed": pb.InferParameter(int64_param=5)},
    )
    result = from_bytes(message)
    assert (result.model, result.version, result.id, dict(result.parameters)) == ("m", "3", "7", {"seed": 5})
    assert list(result) == ["Y", "S"]
    assert result["Y"].tolist() == [[1, 2]]
    assert result["S"].tolist() == [b"hi"]


def test_arrays_are_read_only_views_of_the_answer() -> None:
    message = answer(outputs=[output("Y", "FP32", 2)], raw_output_contents=[bytes(8)])
    array = from_bytes(message)["Y"]
    assert not array.flags.owndata
    assert not array.flags.writeable


@pytest.mark.parametrize(
    "message",
    [
        b"\xff",
        b"\x0a\x01\xff",
        answer(outputs=[output("Y", "FP32", 2)]),
        answer(outputs=[output("Y", "FP32", 2)], raw_output_contents=[bytes(7)]),
        answer(outputs=[output("Y", "FP99", 2)], raw_output_contents=[bytes(8)]),
        answer(outputs=[output("Y", "FP32", -2)], raw_output_contents=[bytes(8)]),
    ],
    ids=["cut", "not UTF-8", "no contents", "too few bytes", "unknown datatype", "negative"],
)
def test_a_broken_answer_is_the_servers_fault(message: bytes) -> None:
    with pytest.raises(EngineFailed, match="the server's answer is broken"):
        from_bytes(message)


def test_classes_are_read_for_each_of_the_batch() -> None:
    array = np.array([[b"0.75:2:cat", b"0.25:0"], [b"1.0:1:a:b", b"0:2"]], dtype=object)
    result = Result("m", "1", "", {"Y": array})
    assert result.classes("Y") == [
        [Class(0.75, 2, "cat"), Class(0.25, 0)],
        [Class(1.0, 1, "a:b"), Class(0.0, 2)],
    ]


def test_an_output_without_classes_says_how_to_ask_for_them() -> None:
    with pytest.raises(BadInput, match=r"outputs=\{'Y': 5\}"):
        Result("m", "1", "", {"Y": np.zeros((1, 2))}).classes("Y")
