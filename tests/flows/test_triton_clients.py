"""What Triton's own basic client examples do, against `reelmesh serve`: models of Triton and of Ray replicas alike."""

import queue
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import grpc
import httpx
import ml_dtypes
import numpy as np
import pytest
import tritonclient.grpc
import tritonclient.grpc.aio
import tritonclient.http.aio
import tritonclient.utils.shared_memory as shm
from tritonclient.grpc import service_pb2 as pb
from tritonclient.grpc import service_pb2_grpc
from tritonclient.utils import InferenceServerException, serialize_byte_tensor

from tests.flows.conftest import Mesh
from tests.flows.triton_models import mlp_weights

pytestmark = [
    pytest.mark.parametrize("wire", ["http", "grpc"]),
    pytest.mark.parametrize("kind", ["triton", "ray"]),
]

LEFT = np.arange(16, dtype=np.int32).reshape(1, 16)
RIGHT = np.full((1, 16), 3, dtype=np.int32)
TEXTS = np.array([str(number).encode() for number in range(16)], dtype=np.object_).reshape(1, 16)
ONES = np.array([b"1"] * 16, dtype=np.object_).reshape(1, 16)


def named(model: str, kind: str) -> str:
    return model if kind == "triton" else f"{model}_ray"


def given(module: Any, datatype: str = "INT32", **arrays: np.ndarray) -> list[Any]:
    tensors = []
    for name, array in arrays.items():
        tensor = module.InferInput(name, list(array.shape), datatype)
        tensor.set_data_from_numpy(array)
        tensors.append(tensor)
    return tensors


def numbers(module: Any) -> list[Any]:
    return given(module, INPUT0=LEFT, INPUT1=RIGHT)


def check(answer: Any) -> None:
    np.testing.assert_array_equal(answer.as_numpy("OUTPUT0"), LEFT + RIGHT)
    np.testing.assert_array_equal(answer.as_numpy("OUTPUT1"), LEFT - RIGHT)


def test_simple_infer(served: Mesh, wire: str, kind: str) -> None:
    module, client = served.client(wire)
    check(client.infer(named("simple", kind), numbers(module)))
    wanted = [module.InferRequestedOutput("OUTPUT1")]
    answer = client.infer(
        named("simple", kind), numbers(module), model_version="1", outputs=wanted, request_id="one output"
    )
    response = answer.get_response()
    names = [output["name"] for output in response["outputs"]] if wire == "http" else [o.name for o in response.outputs]
    assert names == ["OUTPUT1"]
    assert (response["id"] if wire == "http" else response.id) == "one output"


def test_async_infer(served: Mesh, wire: str, kind: str) -> None:
    module, client = served.client(wire)
    if wire == "http":
        waiting = [client.async_infer(named("simple", kind), numbers(module)) for _ in range(8)]
        answers = [each.get_result() for each in waiting]
    else:
        done: queue.Queue[Any] = queue.Queue()
        for _ in range(8):
            client.async_infer(named("simple", kind), numbers(module), lambda result, error: done.put(error or result))
        answers = [done.get(timeout=20) for _ in range(8)]
    assert len(answers) == 8
    for answer in answers:
        check(answer)


async def test_aio_infer(served: Mesh, wire: str, kind: str) -> None:
    module = {"http": tritonclient.http.aio, "grpc": tritonclient.grpc.aio}[wire]
    address = served.http.removeprefix("http://") if wire == "http" else served.grpc
    async with module.InferenceServerClient(address) as client:
        assert await client.is_model_ready(named("simple", kind))
        check(await client.infer(named("simple", kind), numbers(module)))


def test_string_infer(served: Mesh, wire: str, kind: str) -> None:
    module, client = served.client(wire)
    answer = client.infer(named("simple_string", kind), given(module, "BYTES", INPUT0=TEXTS, INPUT1=ONES))
    assert [int(text) for text in answer.as_numpy("OUTPUT0")[0]] == list(range(1, 17))
    anything = np.array([["", "später", "x" * 70_000]], dtype=np.object_)
    answer = client.infer(named("simple_identity", kind), given(module, "BYTES", INPUT0=anything))
    assert [text.decode() for text in answer.as_numpy("OUTPUT0")[0]] == list(anything[0])


def test_datatypes_that_numpy_knows_and_one_that_it_does_not(served: Mesh, wire: str, kind: str) -> None:
    module, client = served.client(wire)
    values = np.array([0.5, -2.0, 300.0])
    half, truth = values.astype(np.float16), np.array([True, False, True])
    brain = module.InferInput("BF16", [3], "BF16")
    brain.set_data_from_numpy(values.astype(ml_dtypes.bfloat16))
    tensors = [*given(module, "FP16", FP16=half), brain, *given(module, "BOOL", BOOL=truth)]
    answer = client.infer(named("identity_types", kind), tensors)
    np.testing.assert_array_equal(answer.as_numpy("FP16_OUT"), half)
    np.testing.assert_array_equal(answer.as_numpy("BOOL_OUT"), truth)
    np.testing.assert_array_equal(answer.as_numpy("BF16_OUT"), values.astype(ml_dtypes.bfloat16))


def test_a_batch_of_any_size_up_to_the_largest(served: Mesh, wire: str, kind: str) -> None:
    module, client = served.client(wire)
    for size in (1, 3, 16):
        batch = np.random.default_rng(size).normal(size=(size, 16)).astype(np.float32)
        answer = client.infer(named("mlp", kind), given(module, "FP32", X=batch)).as_numpy("Y")
        np.testing.assert_allclose(answer, np.maximum(batch @ mlp_weights(), 0), rtol=1e-4, atol=1e-4)
    with pytest.raises(InferenceServerException, match="batch-size must be <= 16"):
        client.infer(named("mlp", kind), given(module, "FP32", X=np.zeros((17, 16), np.float32)))


def test_classification_with_labels(served: Mesh, wire: str, kind: str) -> None:
    module, client = served.client(wire)
    image = np.zeros((1, 3, 4, 4), dtype=np.float32)
    image[0, 1], image[0, 2] = 0.75, 0.5
    wanted = [module.InferRequestedOutput("SCORES", class_count=2)]
    answer = client.infer(named("classifier", kind), given(module, "FP32", IMAGE=image), outputs=wanted)
    best, second = (text.decode().split(":") for text in answer.as_numpy("SCORES")[0])
    assert (float(best[0]), best[1:]) == (0.75, ["1", "GREEN"])
    assert (float(second[0]), second[1:]) == (0.5, ["2", "BLUE"])


@contextmanager
def region(client: Any, size: int) -> Iterator[tuple[str, Any]]:
    """A registered region of this test's own."""
    name = f"region_{uuid.uuid4().hex}"
    handle = shm.create_shared_memory_region(name, f"/{name}", size)
    client.register_system_shared_memory(name, f"/{name}", size)
    try:
        yield name, handle
    finally:
        client.unregister_system_shared_memory(name)
        shm.destroy_shared_memory_region(handle)


def shared_input(module: Any, name: str, array: np.ndarray, datatype: str, place: tuple[str, int, int]) -> Any:
    tensor = module.InferInput(name, list(array.shape), datatype)
    where, size, offset = place
    tensor.set_shared_memory(where, size, offset)
    return tensor


def test_system_shared_memory(served: Mesh, wire: str, kind: str) -> None:
    module, client = served.client(wire)
    with region(client, 128) as (inputs, inside), region(client, 128) as (outputs, outside):
        shm.set_shared_memory_region(inside, [LEFT, RIGHT])
        tensors = [
            shared_input(module, "INPUT0", LEFT, "INT32", (inputs, 64, 0)),
            shared_input(module, "INPUT1", RIGHT, "INT32", (inputs, 64, 64)),
        ]
        wanted = [module.InferRequestedOutput(name) for name in ("OUTPUT0", "OUTPUT1")]
        for position, output in enumerate(wanted):
            output.set_shared_memory(outputs, 64, 64 * position)
        # Every replica maps the region, so whichever answers writes into it.
        for _ in range(6):
            shm.set_shared_memory_region(outside, [np.zeros(32, np.int32)])
            client.infer(named("simple", kind), tensors, outputs=wanted)
            np.testing.assert_array_equal(shm.get_contents_as_numpy(outside, np.int32, [1, 16]).copy(), LEFT + RIGHT)
            difference = shm.get_contents_as_numpy(outside, np.int32, [1, 16], 64).copy()
            np.testing.assert_array_equal(difference, LEFT - RIGHT)
        status = client.get_system_shared_memory_status(**({} if wire == "http" else {"as_json": True}))
        names = [row["name"] for row in status] if wire == "http" else list(status["regions"])
        assert {inputs, outputs} <= set(names)


def test_strings_in_system_shared_memory(served: Mesh, wire: str, kind: str) -> None:
    module, client = served.client(wire)
    size = sum(4 + len(text) for text in TEXTS[0])
    with region(client, size) as (inputs, inside), region(client, size) as (outputs, outside):
        shm.set_shared_memory_region(inside, [serialize_byte_tensor(TEXTS)])
        wanted = module.InferRequestedOutput("OUTPUT0")
        wanted.set_shared_memory(outputs, size)
        tensor = shared_input(module, "INPUT0", TEXTS, "BYTES", (inputs, size, 0))
        client.infer(named("simple_identity", kind), [tensor], outputs=[wanted])
        np.testing.assert_array_equal(shm.get_contents_as_numpy(outside, np.object_, [1, 16]), TEXTS)


def test_a_region_that_does_not_fit_is_told(served: Mesh, wire: str, kind: str) -> None:
    module, client = served.client(wire)
    with region(client, 64) as (inputs, _):
        beyond = [
            shared_input(module, "INPUT0", LEFT, "INT32", (inputs, 64, 32)),
            shared_input(module, "INPUT1", RIGHT, "INT32", (inputs, 64, 0)),
        ]
        with pytest.raises(InferenceServerException, match=r"[Ii]nvalid offset \+ byte size"):
            client.infer(named("simple", kind), beyond)
    nowhere = [shared_input(module, name, LEFT, "INT32", ("nowhere", 64, 0)) for name in ("INPUT0", "INPUT1")]
    with pytest.raises(InferenceServerException, match="nowhere"):
        client.infer(named("simple", kind), nowhere)


def test_health_and_metadata(served: Mesh, wire: str, kind: str) -> None:
    _, client = served.client(wire)
    as_json = {} if wire == "http" else {"as_json": True}
    assert client.is_server_live()
    assert client.is_server_ready()
    assert client.is_model_ready(named("simple", kind))
    assert client.is_model_ready(named("simple", kind), "1")
    assert not client.is_model_ready("nobody")
    assert {"binary_tensor_data", "system_shared_memory"} <= set(client.get_server_metadata(**as_json)["extensions"])
    metadata = client.get_model_metadata(named("mlp", kind), **as_json)
    assert metadata["name"] == named("mlp", kind)
    assert metadata["versions"] == ["1"]
    assert [(t["name"], t["datatype"], [int(d) for d in t["shape"]]) for t in metadata["inputs"]] == [
        ("X", "FP32", [-1, 16])
    ]
    config = client.get_model_config(named("mlp", kind), **as_json)
    config = config.get("config", config)
    assert config["name"] == named("mlp", kind)
    assert config["max_batch_size"] == 16
    with pytest.raises(InferenceServerException, match="unknown model: 'nobody'"):
        client.get_model_metadata("nobody")


def test_infer_objects_are_used_again(served: Mesh, wire: str, kind: str) -> None:
    module, client = served.client(wire)
    tensors = numbers(module)
    for step in range(3):
        tensors[0].set_data_from_numpy(LEFT + step)
        answer = client.infer(named("simple", kind), tensors)
        np.testing.assert_array_equal(answer.as_numpy("OUTPUT0"), LEFT + step + RIGHT)


def test_compression(served: Mesh, wire: str, kind: str) -> None:
    module, client = served.client(wire)
    for algorithm in ("gzip", "deflate"):
        flags = {"compression_algorithm": algorithm}
        if wire == "http":
            flags = {"request_compression_algorithm": algorithm, "response_compression_algorithm": algorithm}
        check(client.infer(named("simple", kind), numbers(module), **flags))


def test_a_request_that_does_not_fit_the_model_is_refused_in_tritons_words(served: Mesh, wire: str, kind: str) -> None:
    module, client = served.client(wire)
    refusals: list[tuple[Callable[[], list[Any]], str]] = [
        (lambda: given(module, INPUT0=LEFT), r"expected 2 inputs but got 1 inputs for model"),
        (lambda: given(module, "FP32", INPUT0=LEFT.astype(np.float32), INPUT1=RIGHT.astype(np.float32)), "data-type"),
        (lambda: given(module, INPUT0=LEFT[:, :8], INPUT1=RIGHT), r"shape|expected \[-1,16\]"),
        (lambda: given(module, INPUT0=LEFT, INPUT1=RIGHT, INPUT2=RIGHT), "INPUT2|expected 2 inputs but got 3 inputs"),
    ]
    for tensors, words in refusals:
        with pytest.raises(InferenceServerException, match=words):
            client.infer(named("simple", kind), tensors())
    check(client.infer(named("simple", kind), numbers(module)))


def test_raw_and_explicit_contents_without_tritonclients_helpers(served: Mesh, wire: str, kind: str) -> None:
    """By gRPC the generated stub alone; by HTTP plain JSON, and binary data made by hand."""
    if wire == "grpc":
        stub = service_pb2_grpc.GRPCInferenceServiceStub(grpc.insecure_channel(served.grpc))
        request = pb.ModelInferRequest(model_name=named("simple", kind))
        for name, array in (("INPUT0", LEFT), ("INPUT1", RIGHT)):
            request.inputs.add(name=name, datatype="INT32", shape=[1, 16]).contents.int_contents.extend(array[0])
        explicit = stub.ModelInfer(request)
        outputs = {o.name: raw for o, raw in zip(explicit.outputs, explicit.raw_output_contents, strict=True)}
        np.testing.assert_array_equal(np.frombuffer(outputs["OUTPUT0"], np.int32), (LEFT + RIGHT)[0])
        texts = pb.ModelInferRequest(model_name=named("simple_identity", kind))
        texts.inputs.add(name="INPUT0", datatype="BYTES", shape=[1, 2]).contents.bytes_contents.extend([b"a", b"bc"])
        assert stub.ModelInfer(texts).raw_output_contents[0] == b"\x01\0\0\0a\x02\0\0\0bc"
        return
    url = f"{served.http}/v2/models/{named('simple', kind)}/infer"
    inputs = [
        {"name": name, "datatype": "INT32", "shape": [1, 16], "data": array.tolist()}
        for name, array in (("INPUT0", LEFT), ("INPUT1", RIGHT))
    ]
    answer = httpx.post(url, json={"inputs": inputs}).json()
    assert {o["name"]: o["data"] for o in answer["outputs"]}["OUTPUT1"] == (LEFT - RIGHT)[0].tolist()
    raw = httpx.post(
        f"{served.http}/v2/models/{named('mlp', kind)}/infer",
        content=np.zeros(16, np.float32).tobytes(),
        headers={"Inference-Header-Content-Length": "0", "Content-Type": "application/octet-stream"},
    )
    assert raw.status_code == 200, raw.text
