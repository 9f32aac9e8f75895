"""Every decoder that reads what strangers send: a function of bytes, and seeds that lead into its depths.

The one invariant of each: it returns, or raises a ReelmeshError whose text is short and can be sent.
"""

import json
import tempfile
from collections.abc import Callable, Sequence
from functools import cache, partial
from pathlib import Path
from typing import Any, NamedTuple

from google.protobuf import text_format
from google.protobuf.message import DecodeError
from tritonclient.grpc import service_pb2 as pb
from tritonclient.grpc.model_config_pb2 import ModelConfig

from serving.backends.overrides import read_overrides
from serving.client.result import from_bytes as client_result
from serving.edge.key_file import parse_keys
from serving.errors import ReelmeshError
from serving.gateway import oip_checks, oip_http_body
from serving.gateway.oip_grpc_messages import cuda_body, log_changes_of, repository_parameters, trace_changes_of
from serving.protocol.oip_compression import decompress
from serving.protocol.oip_config import RequestCheck, check_request, input_specs
from serving.protocol.oip_generate import generate_request
from serving.protocol.oip_grpc import from_message, from_response_message, to_request_message
from serving.protocol.oip_http import decode_request, header_length
from serving.protocol.oip_json import parse_json
from serving.protocol.oip_parameters import check_parameters, timeout_s
from serving.protocol.oip_wire import REQUEST_CONTENTS, RESPONSE_CONTENTS, join_contents, split_contents
from serving.protocol.shared_memory import Regions
from serving.repository.read import read_model
from serving.settings import LimitSettings

MAX_TEXT = 4000
"""Longest message of an error; names in it are bounded one by one."""
LIMIT_BYTES = 1 << 20

CONFIG = """
name: "m" backend: "python" max_batch_size: 8
input [
  { name: "X" data_type: TYPE_FP32 dims: [ -1 ] },
  { name: "S" data_type: TYPE_STRING dims: [ 1 ] optional: true }
]
output { name: "Y" data_type: TYPE_FP32 dims: [ -1 ] }
dynamic_batching { preferred_batch_size: [ 4 ] max_queue_delay_microseconds: 100 }
instance_group { count: 2 kind: KIND_CPU }
parameters { key: "k" value { string_value: "v" } }
"""
CARD = """
description: a voice
task: speech
backend: ray
engine: builtin
license: { name: MIT, commercial_use: true }
source: { uri: "builtin:voice" }
languages: [en, de]
memory: { weights_mib: 12 }
"""
KEYS = f'- name: "studio"\n  sha256: {"ab" * 32}\n  models: ["a*", "b"]\n  calls: infer\n  rate: 5\n'


class Target(NamedTuple):
    """One decoder; ``names`` are what the fuzzer may put together."""

    run: Callable[[bytes], object]
    seeds: Sequence[bytes]
    words: Sequence[str] = ()


def sound(run: Callable[[bytes], object], data: bytes) -> None:
    """Run a decoder on data, and hold it to the invariant."""
    try:
        run(data)
    except ReelmeshError as error:
        text = str(error)
        assert len(text) <= MAX_TEXT, f"a message of {len(text)} characters"
        text.encode()


def body(document: object, binary: bytes = b"") -> bytes:
    """A header length in four digits, then a body of the HTTP protocol."""
    header = json.dumps(document).encode()
    return f"{len(header):04d}".encode() + header + binary


TENSOR = {"name": "X", "datatype": "FP32", "shape": [1, 2]}
HTTP_SEEDS = (
    body({"inputs": [TENSOR | {"data": [1, 2.5]}]}),
    body({"inputs": [TENSOR | {"data": [[1], [2]]}], "outputs": [{"name": "Y", "parameters": {"classification": 2}}]}),
    body({"id": "7", "inputs": [TENSOR | {"parameters": {"binary_data_size": 8}}]}, bytes(8)),
    body({"inputs": [{"name": "S", "datatype": "BYTES", "shape": [1, 1], "data": ["hi"]}]}),
    body({"inputs": [{"name": "S", "datatype": "BYTES", "shape": [1], "parameters": {"binary_data_size": 6}}]},
         b"\2\0\0\0ab"),
    body({"inputs": [TENSOR | {"parameters": {
        "shared_memory_region": "r", "shared_memory_byte_size": 8, "shared_memory_offset": 4}}]}),
    body({"inputs": [], "parameters": {"priority": 1, "timeout": 5, "sequence_id": 3, "sequence_start": True}}),
    b"0000" + bytes(8),
)  # fmt: skip
HTTP_WORDS = (
    '"inputs"', '"outputs"', '"parameters"', '"shape"', '"data"', '"datatype"', '"name"', '"binary_data_size"',
    '"BYTES"', '"INT64"', '"BOOL"', '"BF16"', '"shared_memory_region"', '"shared_memory_offset"', '"classification"',
    "-1", "1e999", "9223372036854775807", "18446744073709551616", "0001", "null", "true", "NaN", "[[", "]]",
    '"\\ud800"',
)  # fmt: skip


def http(data: bytes) -> None:
    """A body, behind what the header says of its JSON part."""
    rest = data[4:]
    length = header_length(data[:4].decode("latin-1"), len(rest))
    check = RequestCheck(config() if length else one_input())
    check_request(config(), decode_request(rest, length, "m", check=check, regions=regions()))


def http_header(data: bytes) -> None:
    """The header's text alone."""
    header_length(data.decode("latin-1"), 100)


def grpc(data: bytes) -> None:
    """A serialized request; what protobuf refuses never reaches us."""
    try:
        message = pb.ModelInferRequest.FromString(data)
    except DecodeError:
        return
    request = from_message(message, regions(), RequestCheck(config()))
    to_request_message(request)
    check_request(config(), request)


def grpc_response(data: bytes) -> None:
    """A replica's answer, read twice: as the gateway does and as the client does."""
    client_result(data)
    try:
        message = pb.ModelInferResponse.FromString(data)
    except DecodeError:
        return
    from_response_message(message)


def wire(data: bytes) -> None:
    """Messages taken apart without protobuf."""
    for field in (REQUEST_CONTENTS, RESPONSE_CONTENTS):
        rest, contents = split_contents(data, field)
        split_contents(join_contents(rest, field, contents), field)


def parameters(data: bytes) -> None:
    """Parameters of any kind."""
    timeout_s(check_parameters(parse_json(data, "body"), "parameters"))


def json_document(data: bytes) -> None:
    """JSON of any kind."""
    parse_json(data, "body")


def compressed(data: bytes) -> None:
    """A body behind the name of its encoding."""
    encoding, _, packed = data.partition(b"\n")
    decompress(packed, encoding.decode("latin-1"), LIMIT_BYTES)


def overrides(data: bytes) -> None:
    """Parameters of a load."""
    document = parse_json(data, "body")
    if isinstance(document, dict):
        read_overrides("m", document)


def generate(data: bytes) -> None:
    """A body of generate."""
    check_request(config(), generate_request(data, input_specs(config()), "m"))


def gateway_body(data: bytes) -> None:
    """An inference body as the gateway looks at it, behind its encoding and the header's text."""
    encoding, _, rest = data.partition(b"\n")
    length, _, packed = rest.partition(b"\n")
    texts = encoding.decode("latin-1"), length.decode("latin-1") or None
    plain, json_bytes = oip_http_body.check_body(packed, *texts, LIMITS)
    oip_http_body.sequence_of(plain[:json_bytes])


def control_body(data: bytes) -> None:
    """What clients ask of the control plane by HTTP, behind the kind of it."""
    kind, _, text = data.partition(b"\n")
    check = CONTROL_CHECKS.get(kind.decode("latin-1"))
    document = parse_json(text, "body")
    if check is not None and isinstance(document, dict):
        check(document)


def control_message(data: bytes) -> None:
    """The same by gRPC, behind the kind of message."""
    kind, _, text = data.partition(b"\n")
    made, check = CONTROL_MESSAGES.get(kind.decode("latin-1"), (pb.LogSettingsRequest, log_settings))
    try:
        check(made.FromString(text))
    except DecodeError:
        return


def log_settings(message: pb.LogSettingsRequest) -> None:
    oip_checks.log_changes(log_changes_of(message))


def trace_settings(message: pb.TraceSettingRequest) -> None:
    oip_checks.trace_changes(trace_changes_of(message))


def load_message(message: pb.RepositoryModelLoadRequest) -> None:
    oip_checks.check_model_name(message.model_name)
    read_overrides(message.model_name, repository_parameters(message.parameters))


def cuda_message(message: pb.CudaSharedMemoryRegisterRequest) -> None:
    oip_checks.check_region_name(message.name)
    oip_checks.region_body("cuda", cuda_body(message))


LIMITS = LimitSettings(infer_bytes=LIMIT_BYTES, infer_json_bytes=LIMIT_BYTES // 2)
CONTROL_CHECKS: dict[str, Callable[[Any], object]] = {
    "log": oip_checks.log_changes,
    "trace": oip_checks.trace_changes,
    "system": partial(oip_checks.region_body, "system"),
    "cuda": partial(oip_checks.region_body, "cuda"),
    "unload": oip_checks.unload_dependents,
}
CONTROL_MESSAGES: dict[str, tuple[Any, Callable[[Any], object]]] = {
    "log": (pb.LogSettingsRequest, log_settings),
    "trace": (pb.TraceSettingRequest, trace_settings),
    "load": (pb.RepositoryModelLoadRequest, load_message),
    "cuda": (pb.CudaSharedMemoryRegisterRequest, cuda_message),
}


def config_file(data: bytes) -> None:
    """A model folder with this config.pbtxt."""
    folder = scratch("config")
    (folder / "config.pbtxt").write_bytes(data)
    for finding in read_model(folder).findings:
        finding.render(folder).encode()


def card_file(data: bytes) -> None:
    """A model folder with this model.yaml."""
    folder = scratch("card")
    (folder / "model.yaml").write_bytes(data)
    for finding in read_model(folder).findings:
        finding.render(folder).encode()


def key_file(data: bytes) -> None:
    """A key file's text."""
    parse_keys(data.decode(errors="replace"), Path("keys.yaml"))


@cache
def config() -> ModelConfig:
    return text_format.Parse(CONFIG, ModelConfig())


@cache
def one_input() -> ModelConfig:
    return text_format.Parse('name: "m" input { name: "X" data_type: TYPE_FP32 dims: [ -1 ] }', ModelConfig())


@cache
def regions() -> Regions:
    """One region of 64 bytes, called r."""
    from serving.client.segments import Segment

    made = Regions()
    segment = Segment.create(4096)
    made.register("r", f"/{segment.name}", 0, 64)
    segment.close()
    return made


@cache
def scratch(name: str) -> Path:
    folder = Path(tempfile.mkdtemp(prefix="reelmesh-fuzz-")) / name
    folder.mkdir()
    return folder


def message() -> bytes:
    """A request with a bit of everything."""
    made = pb.ModelInferRequest(model_name="m", model_version="1", id="7", raw_input_contents=[bytes(8)])
    made.inputs.add(name="X", datatype="FP32", shape=[1, 2])
    made.parameters["priority"].int64_param = 1
    made.outputs.add(name="Y").parameters["classification"].int64_param = 3
    return made.SerializeToString()


def typed_message() -> bytes:
    made = pb.ModelInferRequest(model_name="m")
    made.inputs.add(name="X", datatype="FP32", shape=[1, 2]).contents.fp32_contents.extend([1, 2])
    made.inputs.add(name="S", datatype="BYTES", shape=[1, 1]).contents.bytes_contents.append(b"hi")
    return made.SerializeToString()


def shared_message() -> bytes:
    made = pb.ModelInferRequest(model_name="m")
    tensor = made.inputs.add(name="X", datatype="FP32", shape=[1, 2])
    tensor.parameters["shared_memory_region"].string_param = "r"
    tensor.parameters["shared_memory_byte_size"].int64_param = 8
    tensor.parameters["shared_memory_offset"].uint64_param = 4
    return made.SerializeToString()


def control_messages() -> list[bytes]:
    logs, traces, load = pb.LogSettingsRequest(), pb.TraceSettingRequest(), pb.RepositoryModelLoadRequest()
    logs.settings["log_verbose_level"].uint32_param = 1
    traces.settings["trace_level"].value.append("TIMESTAMPS")
    load.model_name, load.parameters["config"].string_param = "m", "{}"
    load.parameters["file:1/model.py"].bytes_param = b"x"
    cuda = pb.CudaSharedMemoryRegisterRequest(name="r", raw_handle=b"x", byte_size=8)
    kinds = {"log": logs, "trace": traces, "load": load, "cuda": cuda}
    return [kind.encode() + b"\n" + made.SerializeToString() for kind, made in kinds.items()]


def response() -> bytes:
    made = pb.ModelInferResponse(model_name="m", raw_output_contents=[bytes(8)])
    made.outputs.add(name="Y", datatype="FP32", shape=[2])
    made.parameters["triton_final_response"].bool_param = True
    return made.SerializeToString()


TARGETS = {
    "http": Target(http, HTTP_SEEDS, HTTP_WORDS),
    "http_header": Target(http_header, (b"12", b"-1", b" 5 ", b"0x1", b"99999999999999999999", "٣".encode())),
    "grpc": Target(grpc, (message(), typed_message(), shared_message()), ("BYTES", "BF16", "INT64", "sequence_id")),
    "grpc_response": Target(grpc_response, (response(),), ("BYTES", "BF16", "shared_memory_region")),
    "wire": Target(wire, (message(), response())),
    "parameters": Target(parameters, (b'{"priority": 1, "timeout": 5, "x": "y"}', b'{"sequence_id": "a"}'), HTTP_WORDS),
    "json": Target(json_document, (b'{"a": [1, "\\u00e9", {"b": null}]}', b"[" * 70), HTTP_WORDS),
    "compressed": Target(
        compressed,
        (
            b"gzip\n\x1f\x8b\x08\x00\x00\x00\x00\x00\x02\xffK\x04\x00C\xbe\xb7\xe8\x01\x00\x00\x00",
            b"deflate\nx\x9cK\x04\x00\x00b\x00b",
            b"br\nx",
        ),
    ),
    "overrides": Target(
        overrides,
        (
            b'{"config": "{\\"backend\\": \\"python\\"}", "file:1/model.py": "YQ=="}',
            b'{"config": "{\\"input\\": [{\\"dims\\": [1], \\"data_type\\": \\"TYPE_FP32\\"}]}"}',
            b'{"file:../x": "YQ=="}',
        ),
        ("file:", "../", "config", "TYPE_STRING", "max_batch_size", "\\u0000"),
    ),
    "generate": Target(
        generate,
        (b'{"X": [[1, 2.5]], "S": "hi"}', b'{"id": "7", "X": 1, "parameters": {"priority": 1}, "temperature": 0.5}'),
        ('"X"', '"S"', '"id"', '"parameters"', "1e999", "99999999999999999999", "null", "[[", "]]", '"\\ud800"'),
    ),
    "gateway_body": Target(
        gateway_body,
        (
            b'\n\n{"inputs": [{"name": "X", "datatype": "FP32", "shape": [2], "data": [[1], [2]]}]}',
            b'identity\n35\n{"parameters": {"sequence_id": "a"}}' + bytes(8),
            b"deflate\n\nx\x9cK\x04\x00\x00b\x00b",
        ),
        HTTP_WORDS,
    ),
    "control_body": Target(
        control_body,
        (
            b'log\n{"log_info": true, "log_verbose_level": 1, "log_format": "ISO8601"}',
            b'trace\n{"trace_level": ["TIMESTAMPS"], "trace_rate": "7", "trace_count": null}',
            b'system\n{"key": "/r", "offset": 0, "byte_size": 8}',
            b'cuda\n{"raw_handle": {"b64": "AA=="}, "device_id": 0, "byte_size": 8}',
            b'unload\n{"unload_dependents": true}',
        ),
        ('"log_file"', '"trace_mode"', '"log_frequency"', "-1", "1e99", "18446744073709551616", "null", "[", "{", ".."),
    ),
    "control_message": Target(control_message, control_messages(), ("trace_rate", "log_info", "file:", "../")),
    "config_file": Target(
        config_file,
        (CONFIG.encode(), b'backend: "onnxruntime"', b"ensemble_scheduling { step { model_name: 'a' } }"),
        ("input", "output", "dims", "data_type", "TYPE_FP32", "{", "}", "[", "]", "\\377", "[type.googleapis.com/x]"),
    ),
    "card_file": Target(
        card_file,
        (CARD.encode(), b"a: &x [*x]", b"? [a]: b"),
        ("memory", "&a", "*a", "!!", "{", "- ", ": ", "<<"),
    ),
    "key_file": Target(
        key_file,
        (KEYS.encode(),),
        ("- name: ", "sha256: ", "models: ", "calls: ", "rate: ", "&a", "*a"),
    ),
}  # fmt: skip
