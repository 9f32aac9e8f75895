"""Requests that load tests send, and what a right answer holds; used by the locust users and the benchmark.

The one invariant: every payload is seeded, so that two runs send the same bytes.
"""

import json
from collections.abc import Mapping
from typing import Any, Final, NamedTuple

import numpy as np

from serving.protocol.oip import InferRequest, Tensor
from serving.protocol.oip_grpc import to_request_message

HEADER_LENGTH: Final = "Inference-Header-Content-Length"

SENTENCES: Final = (
    "A short line for the microphone.",
    "Every scene begins with a sound that nobody hears.",
    "Please bring two chairs, a lamp and the red umbrella.",
)

WEIGHTS: Final = {"log_mel": 5, "voice_activity": 5, "speech": 1}
"""A subtitle job hears everything and speaks nothing, a podcast both: mostly small requests, some long ones.
"""


class Payload(NamedTuple):
    """One inference request and the output to look at."""

    model: str
    inputs: tuple[Tensor, ...]
    output: str

    @property
    def path(self) -> str:
        """Where HTTP sends it."""
        return f"/v2/models/{self.model}/infer"

    def http(self) -> tuple[bytes, dict[str, str]]:
        """Body and headers of the protocol's binary form: a JSON header, then the tensors as raw bytes."""
        described = [
            {
                "name": tensor.name,
                "shape": list(tensor.shape),
                "datatype": tensor.datatype,
                "parameters": {"binary_data_size": len(tensor.data)},
            }
            for tensor in self.inputs
        ]
        document = {"inputs": described, "parameters": {"binary_data_output": True}}
        header = json.dumps(document, separators=(",", ":")).encode()
        body = b"".join([header, *(bytes(tensor.data) for tensor in self.inputs)])
        return body, {"Content-Type": "application/octet-stream", HEADER_LENGTH: str(len(header))}

    def grpc(self) -> bytes:
        """A serialized ModelInferRequest with raw contents."""
        message = to_request_message(InferRequest(self.model, inputs=self.inputs))
        return bytes(message.SerializeToString())

    def arrays(self) -> dict[str, np.ndarray[Any, Any]]:
        """The inputs for ONNX Runtime."""
        return {tensor.name: tensor.array() for tensor in self.inputs}


def log_mel(seconds: float = 1.0) -> Payload:
    """Features of some noise: 64 kB in and 32 kB out per second of audio."""
    audio = 0.1 * np.random.default_rng(0).standard_normal(int(16_000 * seconds))
    return Payload("log_mel", (Tensor.from_array("AUDIO", audio.astype(np.float32)),), "FEATURES")


def voice_activity(windows: int = 31) -> Payload:
    """One second of 32 ms windows."""
    random = np.random.default_rng(0)
    audio = (0.05 * random.standard_normal((windows, 576))).astype(np.float32)
    state = np.zeros((1, 1, 128), np.float32)
    tensors = [Tensor.from_array(name, array) for name, array in (("input", audio), ("h", state), ("c", state))]
    return Payload("voice_activity", tuple(tensors), "speech_probs")


def speech(text: str = SENTENCES[0], voice: str = "narrator") -> Payload:
    """A sentence of about two seconds to WAV, on a Ray replica."""
    tensors = [Tensor.from_elements(name, [value.encode()]) for name, value in (("TEXT", text), ("VOICE", voice))]
    return Payload("speech", tuple(tensors), "AUDIO")


def split_answer(headers: Mapping[str, str], body: bytes) -> tuple[dict[str, Any], dict[str, bytes]]:
    """The JSON header of a binary answer, and the raw bytes of each output in it.

    Raises:
        ValueError: the answer is not what the protocol says; the text says why.
    """
    lengths = {name.lower(): value for name, value in headers.items()}
    cut = int(lengths.get(HEADER_LENGTH.lower(), len(body)))
    document = json.loads(body[:cut])
    outputs: dict[str, bytes] = {}
    for entry in document.get("outputs", []):
        size = entry.get("parameters", {}).get("binary_data_size")
        if size is None:
            raise ValueError(f"output {entry.get('name')!r} is not binary")
        outputs[entry["name"]] = body[cut : cut + size]
        cut += size
    if cut != len(body):
        raise ValueError(f"{len(body)} bytes, of which the outputs explain {cut}")
    return document, outputs


def first_element(raw: bytes) -> bytes:
    """The first element of a raw BYTES tensor."""
    size = int.from_bytes(raw[:4], "little")
    return raw[4 : 4 + size]
