from serving.backends.triton.client import load_reason


def test_what_triton_says_of_a_failed_load_is_cut_to_its_cause() -> None:
    said = (
        "load failed for model 'm': version 1 is at UNAVAILABLE state: Internal: TritonModelException: "
        "cannot load 'model.onnx': [ONNXRuntimeError] : 7 : INVALID_PROTOBUF : bad file\n\nAt:\n  /x/model.py(3)\n;"
    )
    assert load_reason(said) == "cannot load 'model.onnx': bad file"
