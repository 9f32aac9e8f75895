import pytest
from tritonclient.utils import InferenceServerException

from serving.backends.triton.client import load_reason, translated
from serving.errors import (
    BadInput,
    DeadlineExceeded,
    EngineFailed,
    NotFound,
    ReelmeshError,
    TooLarge,
    Unavailable,
    Unsupported,
)


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        ("StatusCode.INVALID_ARGUMENT", BadInput),
        ("StatusCode.NOT_FOUND", NotFound),
        ("StatusCode.UNIMPLEMENTED", Unsupported),
        ("StatusCode.RESOURCE_EXHAUSTED", TooLarge),
        ("StatusCode.DEADLINE_EXCEEDED", DeadlineExceeded),
        ("StatusCode.UNAVAILABLE", Unavailable),
        ("StatusCode.INTERNAL", EngineFailed),
        (None, EngineFailed),
    ],
)
def test_a_grpc_status_becomes_the_error_that_it_means(status: str | None, kind: type[ReelmeshError]) -> None:
    with pytest.raises(ReelmeshError) as caught, translated("music"):
        raise InferenceServerException(msg="it broke", status=status)
    assert type(caught.value) is kind
    assert str(caught.value) == "music: Triton: it broke"


def test_what_triton_says_is_cut_to_a_bounded_length() -> None:
    with pytest.raises(EngineFailed) as caught, translated("m"):
        raise InferenceServerException(msg="x" * 10_000)
    assert len(caught.value.problem) < 300


def test_what_triton_says_of_a_failed_load_is_cut_to_its_cause() -> None:
    said = (
        "load failed for model 'm': version 1 is at UNAVAILABLE state: Internal: TritonModelException: "
        "cannot load 'model.onnx': [ONNXRuntimeError] : 7 : INVALID_PROTOBUF : bad file\n\nAt:\n  /x/model.py(3)\n;"
    )
    assert load_reason(said) == "cannot load 'model.onnx': bad file"
