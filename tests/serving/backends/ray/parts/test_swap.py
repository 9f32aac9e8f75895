"""A part that is exported takes its module's place, for what it was exported for and nothing else."""

import shutil
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from serving.backends.ray.parts.chosen import swap_in_chosen
from serving.backends.ray.parts.onnx_runner import OnnxRunner
from serving.backends.ray.parts.providers import CPU, CUDA
from serving.backends.ray.parts.swap import swap_in
from serving.errors import BadInput, EngineFailed, MissingDependency, NotFound
from serving.repository.model import Adapter, License, ModelCard, Optimized, Source
from serving.repository.part_file import read_part
from tests.serving.backends.ray.parts.networks import call, engine, exported, recorded


def card(**more: object) -> ModelCard:
    held: dict[str, object] = {"optimized": {"mixer": Optimized(model="studio_mixer")}, **more}
    license_, source = License(name="MIT", commercial_use=True), Source(uri="file:/weights")
    return ModelCard.model_validate(
        {
            "description": "a",
            "task": "image",
            "backend": "ray",
            "engine": "e",
            "license": license_,
            "source": source,
            **held,
        }
    )


def loaded(folder: Path, digest: str = "w", **more: object) -> SimpleNamespace:
    """An engine as far as parts are concerned, with a card that chooses the part."""
    held = engine()
    held.model = SimpleNamespace(name="studio", folder=folder / "studio", card=card(**more))
    held.placement = SimpleNamespace(device="cpu", memory_bytes=None)
    held.threads, held.parts, held.weights = 1, {}, SimpleNamespace(digest=digest)
    held.built = folder / "built"
    return held


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models")
    exported(engine(), folder / "studio_mixer" / "1")
    return folder


def test_a_part_answers_as_its_module_did_and_the_modules_numbers_are_gone(repository: Path) -> None:
    held = loaded(repository)
    expected = call(held.pipeline.mixer, 5)
    swapped = swap_in_chosen(held)
    found = call(held.pipeline.mixer, 5)
    assert torch.allclose(found[0], expected[0], atol=1e-6)
    assert torch.equal(found[1], expected[1])
    assert swapped["mixer"].calls == 1
    assert sum(parameter.numel() for parameter in held.pipeline.mixer.parameters()) == 0
    assert held.pipeline.mixer.width == 4
    assert next(held.pipeline.mixer.parameters()).dtype == torch.float32


def test_what_is_handed_through_is_the_callers_own(repository: Path) -> None:
    held = loaded(repository)
    swap_in_chosen(held)
    sample = torch.rand(2, 4)
    assert held.pipeline.mixer(sample, torch.tensor(0.0))[1] is sample


def test_another_kind_of_call_is_refused(repository: Path) -> None:
    held = loaded(repository)
    swap_in_chosen(held)
    with pytest.raises(BadInput, match=r"mixer was exported for calls of another kind: .*export it with a request"):
        call(held.pipeline.mixer, double=True)


def test_another_size_than_the_fixed_one_is_refused(tmp_path: Path) -> None:
    held = engine()
    part = exported(held, tmp_path / "1", rows=3)
    swap_in(held, tmp_path / "1", part, OnnxRunner)
    call(held.pipeline.mixer, 3)
    with pytest.raises(BadInput, match="exported for sample with 3 at axis 0, and not 4"):
        call(held.pipeline.mixer, 4)


def test_a_part_of_other_weights_is_refused(repository: Path) -> None:
    with pytest.raises(BadInput, match=r"made of other weights \(w, and these are v2\): run `reelmesh optimize studio"):
        swap_in_chosen(loaded(repository, digest="v2"))


def test_a_part_of_another_model_is_refused(repository: Path) -> None:
    held = loaded(repository)
    held.model.name = "theatre"
    with pytest.raises(BadInput, match="the part is of studio"):
        swap_in_chosen(held)


@pytest.mark.parametrize(
    ("optimized", "words"),
    [
        (Optimized(model="studio_mixer", version=7), "has no version 7: use one of 1"),
        (Optimized(model="elsewhere"), "there is no exported part in .*elsewhere: run `reelmesh optimize"),
    ],
    ids=["version", "folder"],
)
def test_what_is_not_there_is_named(repository: Path, optimized: Optimized, words: str) -> None:
    held = loaded(repository, optimized={"mixer": optimized})
    with pytest.raises(NotFound, match=words) as caught:
        swap_in_chosen(held)
    assert caught.value.field == "studio/model.yaml:optimized.mixer"


def test_an_older_version_is_a_number_away(repository: Path, tmp_path: Path) -> None:
    shutil.copytree(repository / "studio_mixer", tmp_path / "studio_mixer")
    other = engine()
    with torch.no_grad():
        other.pipeline.mixer.second.bias += 1
    exported(other, tmp_path / "studio_mixer" / "2")
    first = loaded(tmp_path, optimized={"mixer": Optimized(model="studio_mixer", version=1)})
    newest = loaded(tmp_path)
    expected = call(first.pipeline.mixer)[0]
    for held in (first, newest):
        swap_in_chosen(held)
    assert torch.allclose(call(first.pipeline.mixer)[0], expected, atol=1e-6)
    assert torch.allclose(call(newest.pipeline.mixer)[0], expected + 1, atol=1e-5)


def test_a_damaged_file_leaves_the_module_as_it_was(repository: Path, tmp_path: Path) -> None:
    shutil.copytree(repository / "studio_mixer", tmp_path / "studio_mixer")
    (tmp_path / "studio_mixer/1/model.onnx").write_bytes(b"\x00broken")
    held = loaded(tmp_path)
    expected = call(held.pipeline.mixer)[0]
    with pytest.raises(EngineFailed, match=r"does not load in ONNX Runtime.*roll back to another version"):
        swap_in_chosen(held)
    assert torch.equal(call(held.pipeline.mixer)[0], expected)


def test_fine_tunes_and_an_exported_part_exclude_each_other(repository: Path) -> None:
    held = loaded(repository, adapters={"ink": Adapter(source=Source(uri="file:/ink"))})
    held.pipeline.mixer.add_adapter = lambda: None
    with pytest.raises(BadInput, match="fine-tunes cannot be put on an exported part: take out the adapters"):
        swap_in_chosen(held)


def test_calls_of_a_size_are_kept_thrice_and_of_others_as_well() -> None:
    held = engine()
    calls = recorded(held, *[2] * 9, 5, 6)
    assert [one.inputs["sample"].shape[0] for one in calls] == [2, 2, 2, 5, 6]
    assert not any(tensor.is_inference() for one in calls for tensor in one.inputs.values())


def test_of_calls_that_grow_one_by_one_few_are_kept_so_that_another_text_finds_room() -> None:
    held = engine()
    calls = recorded(held, *range(2, 40), *range(2, 8))
    assert [one.inputs["sample"].shape[0] for one in calls] == [2, 3, 4, 6, 10, 18, 34, 2, 3, 4, 6]


@pytest.mark.filterwarnings("ignore:Specified provider 'CUDAExecutionProvider' is not in available")
def test_a_gpu_that_onnx_runtime_cannot_use_is_no_silent_cpu(repository: Path) -> None:
    folder = repository / "studio_mixer" / "1"
    (variant,) = read_part(folder).variants
    with pytest.raises(MissingDependency, match="CUDAExecutionProvider does not load here, only CPUExecutionProvider"):
        OnnxRunner(folder / variant.file, variant, providers=[(CUDA, {}), (CPU, {})])


def test_onnx_runtimes_tensorrt_needs_a_gpu(repository: Path) -> None:
    held = loaded(repository, optimized={"mixer": Optimized(model="studio_mixer", runtime="tensorrt-ep")})
    with pytest.raises(BadInput, match="TensorRT runs on no CPU"):
        swap_in_chosen(held)
    assert call(held.pipeline.mixer, 5)
