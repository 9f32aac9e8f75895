"""Exported parts that a card chooses: lint tells what is not there, and a mesh serves those that Triton runs."""

from pathlib import Path

import pytest
from tritonclient.grpc.model_config_pb2 import DataType

from serving.errors import BadInput
from serving.repository.load import load_repository
from serving.repository.model import Optimized
from serving.repository.part_config import chosen_version, owner_of
from serving.repository.part_file import PART_FILE, PartFile, PartTensor, Variant
from serving.repository.served import load_one, load_served, with_optional
from serving.settings import InferenceSettings, Settings

CARD = """\
description: a part
task: tensor
backend: triton
engine: tensor
optional: true
license: {name: MIT, commercial_use: true}
source: {uri: "export:studio.decoder"}
"""
CONFIG = """\
backend: "onnxruntime"
input [ { name: "sample" data_type: TYPE_FP16 dims: [-1, 4] } ]
output [ { name: "output" data_type: TYPE_FP16 dims: [-1, 4] } ]
"""


def part(dtype: str = "float32", files: int = 1, **more: str) -> PartFile:
    def tensor(name: str) -> PartTensor:
        return PartTensor(name=name, dtype=dtype, axes=["batch", 4])

    variant = Variant(file="model.onnx", call={}, answer={}, inputs=[tensor("sample")], outputs=[tensor("output")])
    named = {"model": "studio", "part": "decoder", "at": "a", "precision": "fp32", "weights_digest": "w", **more}
    return PartFile.model_validate({**named, "variants": [variant] * files})


@pytest.fixture
def write(repository: Path, triton_model, ray_model):
    """``write(optimized, *parts)``: a model that chooses a part, and the part's versions."""

    def written(optimized: str, *parts: PartFile) -> Path:
        ray_model("studio", more=f"optimized: {{{optimized}}}\n")
        folder = triton_model("studio_decoder", config=CONFIG, card=CARD, versions=tuple(range(1, len(parts) + 1)))
        for version, one in enumerate(parts, start=1):
            (folder / str(version) / PART_FILE).write_text(one.model_dump_json())
        return repository

    return written


@pytest.mark.parametrize(
    ("optimized", "parts", "words"),
    [
        ("decoder: {model: studio_decodr}", [part()], "model: no model 'studio_decodr' beside this one: did you mean"),
        ("decoder: {model: else}", [part()], "model: no model 'else' beside this one: run `reelmesh optimize studio"),
        (
            "decoder: {model: studio_decoder, version: 3}",
            [part(), part()],
            "version: .* has no version 3: use one of 1",
        ),
        ("decoder: {model: studio_decoder}", [part(model="hall")], "model: .* is the part 'decoder' of 'hall': run"),
        ("encoder: {model: studio_decoder}", [part()], "model: .* is the part 'decoder' of 'studio': run"),
        (
            "decoder: {model: studio_decoder, runtime: triton}",
            [part(files=2)],
            "runtime: decoder has 2 files .*: use onnxruntime",
        ),
        ("decoder: {model: studio_decoder, runtime: triton}", [part("bfloat16")], "runtime: sample of decoder is bfl"),
        (
            "decoder: {model: studio_decoder, runtime: tensorrt}",
            [part()],
            "runtime: version 1 has no TensorRT plan of model.onnx: build it on the GPU: reelmesh k8s job-tensorrt",
        ),
        (
            "decoder: {model: studio_decoder}",
            [part(precision="int8")],
            "version: .* has no version in a floating precision: use one of 1",
        ),
    ],
    ids=[
        "almost its name",
        "no folder",
        "no version",
        "another's",
        "another part",
        "two files",
        "bfloat16",
        "no plan",
        "int8 alone",
    ],
)
def test_a_part_that_cannot_be_had_is_a_finding_with_the_fix(
    write, optimized: str, parts: list[PartFile], words: str
) -> None:
    repository = write(optimized, *parts)
    with pytest.raises(BadInput, match=rf"studio/model.yaml:\d+:optimized\.\w+\.{words}"):
        load_repository([repository])


def test_a_version_without_its_part_file_is_a_finding(write) -> None:
    repository = write("decoder: {model: studio_decoder}", part())
    (repository / "studio_decoder/1" / PART_FILE).unlink()
    with pytest.raises(BadInput, match=r"optimized.decoder: version 1 of 'studio_decoder' is no part: there is no"):
        load_repository([repository])


@pytest.mark.parametrize(
    ("optimized", "asked", "expected"),
    [
        ("decoder: {model: studio_decoder, runtime: triton}", [], ["studio", "studio_decoder"]),
        ("decoder: {model: studio_decoder}", [], ["studio"]),
        ("decoder: {model: studio_decoder}", ["studio_decoder"], ["studio", "studio_decoder"]),
    ],
    ids=["by Triton", "in the engine", "in the engine, and asked for"],
)
def test_the_parts_that_triton_runs_are_served_with_their_model(
    write, optimized: str, asked: list[str], expected: list[str]
) -> None:
    loaded = with_optional(load_repository([write(optimized, part())]), asked)
    assert list(loaded.models) == expected


def test_without_triton_no_part_is_served(write) -> None:
    repository = write("decoder: {model: studio_decoder, runtime: triton}", part())
    inference = InferenceSettings(triton="off")
    assert list(load_served(Settings(model_repositories=[repository], inference=inference)).models) == ["studio"]


@pytest.mark.parametrize(("version", "number", "dtype"), [(", version: 1", 1, "TYPE_FP32"), ("", 2, "TYPE_FP16")])
def test_triton_serves_the_version_that_the_card_names_with_its_own_tensors(
    write, version: str, number: int, dtype: str
) -> None:
    repository = write(
        f"decoder: {{model: studio_decoder{version}, runtime: triton}}", part("float32"), part("float16")
    )
    settings = Settings(model_repositories=[repository])
    for served in (load_served(settings).get("studio_decoder"), load_one(settings, "studio_decoder")):
        assert list(served.config.version_policy.specific.versions) == [number]
        assert DataType.Name(served.config.input[0].data_type) == dtype
        assert list(served.config.input[0].dims) == [-1, 4]


def test_an_int8_version_runs_only_where_its_number_is_given(write, tmp_path: Path) -> None:
    folder = write("decoder: {model: studio_decoder}", part(), part(precision="int8")) / "studio_decoder"
    assert chosen_version(Optimized(model="studio_decoder"), folder, [1, 2]) == 1
    assert chosen_version(Optimized(model="studio_decoder", version=2), folder, [1, 2]) == 2


def test_a_part_says_whose_it_is(write) -> None:
    loaded = load_repository([write("decoder: {model: studio_decoder}", part())])
    assert owner_of(loaded.get("studio_decoder").card) == "studio"
    assert owner_of(loaded.get("studio").card) is None
