"""A part that Triton runs answers as its module did, in the version that its card names; a real tritonserver."""

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from types import SimpleNamespace

import pytest
import pytest_asyncio
import torch
import yaml

from optimize.parts.folder import folder_files
from serving.backends.ray.parts.chosen import swap_in_chosen
from serving.backends.ray.parts.triton_runner import TritonRunner
from serving.backends.triton.install import default_folder, find_tritonserver, install
from serving.backends.triton.server import TritonServer
from serving.errors import BadInput, DeadlineExceeded, EngineFailed, ReelmeshError, Unavailable
from serving.repository.model import Model, Optimized
from serving.repository.part_config import pinned
from serving.repository.part_file import PART_FILE, PartFile, PartTensor
from serving.repository.read import read_model
from serving.settings import Settings
from tests.serving.backends.ray.parts.networks import call, engine, exported
from tests.serving.backends.ray.parts.test_swap import card

pytestmark = pytest.mark.asyncio(loop_scope="module")


def chooses(version: int | None = None) -> dict[str, Optimized]:
    return {"mixer": Optimized(model="studio_mixer", version=version, runtime="triton")}


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A part in two versions; the second's network has other numbers."""
    folder = tmp_path_factory.mktemp("models")
    exported(engine(), folder / "studio_mixer/1")
    part = exported(other(), folder / "studio_mixer/2")
    owner = Model("studio", folder / "studio", card(), None, ())  # type: ignore[arg-type]  # parts ask the card alone
    for name, text in folder_files(owner, part, folder / "studio_mixer").items():
        (folder / "studio_mixer" / name).write_text(text)
    return folder


def other() -> SimpleNamespace:
    held = engine()
    with torch.no_grad():
        held.pipeline.mixer.second.bias += 1
    return held


def served(repository: Path, version: int | None) -> Model:
    raw = read_model(repository / "studio_mixer")
    assert raw.card is not None
    assert raw.config is not None
    part = Model(raw.name, raw.folder, raw.card, raw.config, raw.versions)
    return pinned(part, card(optimized=chooses(version)))


@asynccontextmanager
async def running(model: Model, home: Path) -> AsyncIterator[TritonServer]:
    server = TritonServer(find_tritonserver(Settings()), [model], home)
    await server.start()
    try:
        yield server
    finally:
        await server.stop()


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def triton(repository: Path, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[TritonServer]:
    """It serves the first version, as a mesh does whose card names that one."""
    install(default_folder())
    with pytest.MonkeyPatch.context() as patch:  # it outlives the first test, so it is not that test's
        patch.delenv("PYTEST_CURRENT_TEST", raising=False)
        served_by = running(served(repository, 1), tmp_path_factory.mktemp("home"))
        server = await served_by.__aenter__()
    yield server
    await served_by.__aexit__(None, None, None)


def loaded(repository: Path, version: int | None, at: object) -> SimpleNamespace:
    """An engine whose card lets Triton run the part."""
    held = engine()
    held.model = SimpleNamespace(name="studio", folder=repository / "studio", card=card(optimized=chooses(version)))
    held.placement = SimpleNamespace(device="cpu", memory_bytes=None)
    held.threads, held.parts, held.weights, held.triton = 1, {}, SimpleNamespace(digest="w"), at
    return held


def place(triton: TritonServer) -> str:
    assert triton.ports is not None
    return f"127.0.0.1:{triton.ports.grpc}"


async def answer(held: SimpleNamespace, rows: int) -> torch.Tensor:
    """In a thread, as engines run: the server's relay needs this one."""
    return (await asyncio.to_thread(call, held.pipeline.mixer, rows))[0]


async def test_a_part_in_triton_answers_as_its_module_for_every_batch(repository: Path, triton: TritonServer) -> None:
    held = loaded(repository, 1, lambda model, version: place(triton))
    expected = [call(engine().pipeline.mixer, rows)[0] for rows in (1, 3, 5)]
    swapped = swap_in_chosen(held)
    for rows, wanted in zip((1, 3, 5), expected, strict=True):
        found = await answer(held, rows)
        assert torch.allclose(found, wanted, atol=1e-6)
        with torch.inference_mode():
            found.add_(1)  # a pipeline may write into what it gets
    assert swapped["mixer"].calls == 3
    swapped["mixer"].close()


async def test_the_version_that_is_named_answers_although_a_newer_one_was_published(
    repository: Path, triton: TritonServer, tmp_path: Path
) -> None:
    first, second = call(engine().pipeline.mixer)[0], call(other().pipeline.mixer)[0]
    assert not torch.allclose(first, second, atol=0.5)
    held = loaded(repository, 1, lambda model, version: place(triton))
    swap_in_chosen(held)
    assert torch.allclose(await answer(held, 3), first, atol=1e-6)
    newest = loaded(repository, None, lambda model, version: place(triton))
    swap_in_chosen(newest)
    with pytest.raises(ReelmeshError, match=r"studio_mixer/2: .*(runtime: onnxruntime in model.yaml)"):
        await answer(newest, 3)
    async with running(served(repository, None), tmp_path) as another:
        newest = loaded(repository, None, lambda model, version: place(another))
        swap_in_chosen(newest)
        assert torch.allclose(await answer(newest, 3), second, atol=1e-6)


async def test_triton_is_looked_for_again_where_it_listens_no_more(repository: Path, triton: TritonServer) -> None:
    told = [place(triton), "127.0.0.1:9", place(triton)]
    asked: list[tuple[str, int]] = []

    def find(model: str, version: int) -> str:
        asked.append((model, version))
        return told[len(asked) - 1]

    held = loaded(repository, 1, find)
    runner = held.pipeline.mixer
    swapped = swap_in_chosen(held)["mixer"]
    first = await answer(held, 3)
    (one,) = (runner for _, _, runner in swapped._known)
    assert isinstance(one, TritonRunner)
    assert one._channel is not None
    one.close()
    with pytest.raises(Unavailable, match=r"studio_mixer/1: Triton: .*see why with"):
        await answer(held, 3)
    assert torch.equal(await answer(held, 3), first)
    assert asked == [("studio_mixer", 1)] * 3
    assert runner is held.pipeline.mixer


def runner_at(repository: Path, address: str, output: str, timeout_s: float) -> TritonRunner:
    """Of the first version, with another name for its output."""
    variant = PartFile.model_validate_json((repository / "studio_mixer/1" / PART_FILE).read_bytes()).variants[0]
    variant = variant.model_copy(update={"outputs": [variant.outputs[0].model_copy(update={"name": output})]})
    return TritonRunner("studio_mixer", 1, variant, lambda model, version: address, timeout_s)


INPUTS = {"sample": torch.rand(2, 4), "time": torch.rand(1)}


async def test_what_triton_cannot_do_is_the_meshs_fault_and_told_with_the_next_step(
    repository: Path, triton: TritonServer
) -> None:
    runner = runner_at(repository, place(triton), "nothing", 5)
    with pytest.raises(EngineFailed, match=r"studio_mixer/1: Triton: .*unexpected inference output 'nothing'.*see why"):
        await asyncio.to_thread(runner.run, INPUTS)
    runner.close()


async def test_a_triton_that_does_not_answer_is_waited_for_no_longer_than_allowed(repository: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        runner = runner_at(repository, f"127.0.0.1:{silent.getsockname()[1]}", "output.0", 0.3)
        with pytest.raises(DeadlineExceeded, match=r"studio_mixer/1: Triton: .*: see why with"):
            await asyncio.to_thread(runner.run, INPUTS)
        runner.close()


def two_files(part: PartFile) -> PartFile:
    return part.model_copy(update={"variants": [part.variants[0]] * 2})


def in_bfloat16(part: PartFile) -> PartFile:
    first = part.variants[0]
    tensor: PartTensor = first.inputs[0].model_copy(update={"dtype": "bfloat16"})
    return part.model_copy(update={"variants": [first.model_copy(update={"inputs": [tensor, *first.inputs[1:]]})]})


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (None, "there is no Triton in this mesh to run it: use onnxruntime, or start the mesh with Triton"),
        (two_files, "mixer has 2 files for different calls, and Triton serves one: use onnxruntime"),
        (in_bfloat16, "sample of mixer is bfloat16, which is not sent to Triton: use onnxruntime"),
    ],
    ids=["no Triton", "two files", "bfloat16"],
)
async def test_what_triton_cannot_run_is_refused_when_the_model_loads(
    repository: Path, tmp_path: Path, change: object, words: str
) -> None:
    part = PartFile.model_validate_json((repository / "studio_mixer/1" / PART_FILE).read_bytes())
    folder = tmp_path / "studio_mixer/1"
    folder.mkdir(parents=True)
    (folder / PART_FILE).write_text((change(part) if callable(change) else part).model_dump_json())
    held = loaded(tmp_path, 1, None if change is None else lambda model, version: "127.0.0.1:9")
    with pytest.raises(BadInput, match=f"studio/model.yaml:optimized.mixer.runtime: {words}"):
        swap_in_chosen(held)
    assert sum(parameter.numel() for parameter in held.pipeline.mixer.parameters()) > 0


async def test_a_parts_own_card_is_that_of_any_triton_model(repository: Path) -> None:
    found = yaml.safe_load((repository / "studio_mixer/model.yaml").read_text())
    assert (found["backend"], found["optional"], found["source"]["uri"]) == ("triton", True, "export:studio.mixer")
