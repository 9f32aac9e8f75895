"""Typed tasks and OIP tensors are the same thing, by one rule."""

import hashlib
from typing import Annotated, Literal

import pytest
from google.protobuf import text_format
from pydantic import BaseModel, Field
from tritonclient.grpc import model_config_pb2 as pb

from serving.errors import BadInput
from serving.protocol import tasks
from serving.protocol.artifact import ArtifactRef
from serving.protocol.oip import Tensor
from serving.protocol.task_tensors import (
    config_inputs,
    config_outputs,
    config_text,
    from_tensors,
    task_tensors,
    to_tensors,
)


class MemoryFiles:
    """A content store in a dict."""

    def __init__(self):
        self.held: dict[str, bytes] = {}
        self.fetched = 0

    async def put_bytes(self, data, *, media_type, name):
        digest = hashlib.sha256(data).hexdigest()
        self.held[digest] = data
        return ArtifactRef(sha256=digest, media_type=media_type, size_bytes=len(data), name=name)

    async def get_bytes(self, ref):
        self.fetched += 1
        return self.held[ref.sha256]


@pytest.fixture
def files():
    return MemoryFiles()


def tensor_of(tensors, name):
    return next(tensor for tensor in tensors if tensor.name == name)


@pytest.mark.parametrize("task", tasks.TASKS)
def test_the_generated_config_declares_the_tensors_of_its_task(task):
    config = text_format.Parse(config_text("some_model", task), pb.ModelConfig())
    assert config.name == "some_model"
    assert list(config.input) == config_inputs(task)
    assert list(config.output) == config_outputs(task)


@pytest.mark.parametrize("task", tasks.TASKS)
def test_only_fields_with_a_default_are_optional_inputs(task):
    fields = tasks.TASKS[task].request.model_fields
    optional = {name.upper() for name, info in fields.items() if not info.is_required()}
    assert {entry.name for entry in config_inputs(task) if entry.optional} == optional


class Sample(BaseModel):
    """One field of each kind."""

    text: Annotated[str, Field(min_length=1)] | None = None
    mood: Literal["calm", "bright"]
    count: Annotated[int, Field(ge=1)]
    speed: float
    loud: bool
    file: ArtifactRef | None = None
    numbers: list[float]
    either: int | str


def test_field_types_become_the_datatypes_of_the_rule():
    assert {entry.field: (entry.datatype, entry.kind.name) for entry in task_tensors(Sample)} == {
        "text": ("BYTES", "TEXT"),
        "mood": ("BYTES", "TEXT"),
        "count": ("INT64", "INTEGER"),
        "speed": ("FP32", "REAL"),
        "loud": ("BOOL", "BOOLEAN"),
        "file": ("BYTES", "FILE"),
        "numbers": ("BYTES", "JSON"),
        "either": ("BYTES", "JSON"),
    }


async def test_a_request_survives_the_way_through_tensors(files):
    portrait = await files.put_bytes(b"\x89PNG", media_type="application/octet-stream", name="portrait")
    request = tasks.LipSyncRequest(
        portrait=portrait,
        points=[(0.5, 1.25)] * 468,
        phonemes=[tasks.Phoneme(symbol="ə", start_s=0.0, end_s=0.1)],
        duration_s=2.5,
        seed=7,
    )
    assert await from_tensors(tasks.LipSyncRequest, await to_tensors(request, files), files) == request


async def test_a_result_carries_the_bytes_of_its_files(files):
    audio = await files.put_bytes(b"RIFF", media_type="audio/wav", name="a.wav")
    result = tasks.SpeechResult(audio=audio, sample_rate_hz=22050, duration_s=1.5)
    tensors = await to_tensors(result, files)
    assert tensor_of(tensors, "AUDIO").elements() == [b"RIFF"]
    assert tensor_of(tensors, "SAMPLE_RATE_HZ").array().tolist() == [22050]
    assert tensor_of(tensors, "WORDS").elements() == [b"[]"]


async def test_files_nobody_asked_for_are_not_fetched(files):
    audio = await files.put_bytes(b"RIFF", media_type="audio/wav", name="a.wav")
    result = tasks.SpeechResult(audio=audio, sample_rate_hz=22050, duration_s=1.5)
    tensors = await to_tensors(result, files, lambda name: name == "DURATION_S")
    assert [tensor.name for tensor in tensors] == ["DURATION_S"]
    assert files.fetched == 0


async def test_an_absent_value_is_left_out_and_comes_back_as_the_default(files):
    request = tasks.ImageRequest(prompt="a lake at dawn")
    tensors = await to_tensors(request, files)
    assert "TITLE" not in {tensor.name for tensor in tensors}
    assert await from_tensors(tasks.ImageRequest, tensors, files) == request


TEXT = Tensor.from_elements("TEXT", [b"hello"])
VOICE = Tensor.from_elements("VOICE", [b"asha"])


@pytest.mark.parametrize(
    ("tensors", "field", "problem"),
    [
        pytest.param([TEXT], "VOICE", "Field required", id="missing"),
        pytest.param([TEXT, Tensor.from_elements("NOISE", [b""])], "NOISE", "no such tensor", id="unknown"),
        pytest.param([Tensor.from_elements("TEXT", [b"\xff"])], "TEXT", "not UTF-8 at byte 0", id="not-utf8"),
        pytest.param([Tensor.from_elements("TEXT", [b"a", b"b"])], "TEXT", "expects [1]", id="two-elements"),
        pytest.param([Tensor("TEXT", "INT64", (1,), bytes(8))], "TEXT", "expects 'BYTES'", id="datatype"),
        pytest.param(
            [TEXT, VOICE, Tensor("SPEED", "FP32", (1,), b"\x00\x00\x20\x41")],
            "SPEED",
            "less than or equal to 2",
            id="out-of-range",
        ),
    ],
)
async def test_a_wrong_tensor_is_refused_by_name(files, tensors, field, problem):
    with pytest.raises(BadInput) as caught:
        await from_tensors(tasks.SpeechRequest, tensors, files)
    assert caught.value.field == field
    assert problem in caught.value.problem


async def test_nested_values_name_the_place_inside(files):
    words = Tensor.from_elements("SPANS", [b'[{"start_s": 0, "end_s": -1}]'])
    audio = Tensor.from_elements("AUDIO", [b"x"])
    with pytest.raises(BadInput, match=r"SPANS\.0\.end_s"):
        await from_tensors(tasks.TranscriptionRequest, [audio, words], files)


def test_an_unknown_task_is_refused_with_the_known_ones():
    with pytest.raises(BadInput, match="speech"):
        config_text("m", "telepathy")
