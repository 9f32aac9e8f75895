"""`reelmesh optimize` on a part of a real pipeline, from recorded requests to the engine that runs the file."""

import asyncio
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from typer.testing import CliRunner

from optimize import cli, command
from optimize.parts import work
from optimize.parts.part import Part
from optimize.parts.run import optimize_parts
from optimize.parts.work import Asked
from serving.artifacts.store import ArtifactStore
from serving.backends.base import EngineContext
from serving.backends.call import Call
from serving.backends.ray.engines import load_engine
from serving.backends.ray.tiny.build import tiny_model_folder
from serving.errors import BadInput, MissingDependency, NotFound
from serving.protocol.tasks import ImageRequest
from serving.repository.lint import lint
from serving.repository.load import load_repository
from serving.settings import Settings
from serving.weights.cache import WeightsCache

MODELS = Path(__file__).parents[3] / "model_repository"
PART = "text_encoder"


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Exports of these tests are kept apart from the user's."""
    folder = tmp_path_factory.mktemp("home")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("optimize.parts.gates.CASE_SECONDS", 0.05)
        patch.setattr("optimize.parts.fingerprint.exports_folder", lambda: folder / "exports")
        yield folder


@pytest.fixture(scope="module")
def weights(home: Path) -> WeightsCache:
    return WeightsCache.of(Settings(home=home))


@pytest.fixture(scope="module")
def repository(home: Path) -> Path:
    tiny_model_folder(load_repository([MODELS]).get("sdxl"), home / "models")
    return home / "models"


def export(repository: Path, weights: WeightsCache, **more: Any) -> work.PartOutcome:
    model = load_repository([repository]).get("sdxl")
    (outcome,) = optimize_parts(model, Asked([PART], **more), weights)
    return outcome


@pytest.fixture(scope="module")
def published(repository: Path, weights: WeightsCache) -> work.PartOutcome:
    return export(repository, weights)


def test_a_part_is_published_beside_its_model_with_a_report_and_passes_lint(
    repository: Path, published: work.PartOutcome
) -> None:
    assert published.status == "published"
    assert published.folder == repository / "sdxl_text_encoder" / "1"
    names = sorted(path.name for path in published.folder.iterdir())
    assert names == ["model.onnx", "part.json", "report.json", "report.md"]
    report = published.report
    assert report is not None
    assert [row.gate for row in report.gates] == ["load", "parity", "quality", "memory", "time"]
    assert report.worst < 1e-5
    assert {row.case for row in report.parity} == {"batch 1", "batch 2", "batch 3"}
    assert {row.measure for row in report.quality} == {"PSNR", "SSIM"}
    assert report.memory is not None
    assert report.memory.onnx_peak_bytes > report.onnx_bytes
    assert {"torch", "onnx", "onnxscript", "opset", "exporter", "onnxruntime"} <= set(report.tools)
    assert [row for row in lint([repository]) if row.level == "error"] == []
    card = yaml.safe_load((repository / "sdxl_text_encoder/model.yaml").read_text())
    assert card["license"] == yaml.safe_load((MODELS / "sdxl/model.yaml").read_text())["license"]


def test_nothing_is_exported_twice_and_a_forced_export_has_the_same_bytes(
    repository: Path, weights: WeightsCache, published: work.PartOutcome
) -> None:
    again = export(repository, weights)
    assert (again.status, again.folder) == ("up_to_date", published.folder)
    forced = export(repository, weights, force=True)
    assert (forced.status, forced.folder.name) == ("published", "2")
    for name in ("model.onnx", "part.json"):
        assert (forced.folder / name).read_bytes() == (published.folder / name).read_bytes()


def test_the_engine_runs_the_version_that_its_card_names(
    repository: Path, weights: WeightsCache, published: work.PartOutcome, tmp_path: Path
) -> None:
    card = repository / "sdxl/model.yaml"
    plain = card.read_text()
    pictures = []
    try:
        for optimized in ({}, {PART: {"model": "sdxl_text_encoder", "version": 1}}):
            card.write_text(yaml.safe_dump({**yaml.safe_load(plain), "adapters": {}, "optimized": optimized}))
            pictures.append(asyncio.run(picture(repository, weights, tmp_path, swapped=bool(optimized))))
    finally:
        card.write_text(plain)
    differences = [abs(one - other) for one, other in zip(*pictures, strict=True)]
    assert max(differences) <= 1
    assert max(pictures[0]) - min(pictures[0]) > 50


async def picture(repository: Path, weights: WeightsCache, scratch: Path, *, swapped: bool) -> bytes:
    """Pixels of a picture by the model as its card says."""
    from PIL import Image

    store = ArtifactStore(f"file://{scratch}/store", scratch / "cache")
    context = EngineContext(store, scratch, threads=2, weights=weights)
    engine: Any = load_engine(load_repository([repository]).get("sdxl"), context)
    try:
        result = await engine.run(ImageRequest(prompt="a boat", width=64, height=80, steps=2, seed=5), Call())
        assert [part.calls for part in engine.swapped.values()] == ([1] if swapped else [])
        return Image.open(await store.local_path(result.image)).tobytes()
    finally:
        await engine.close()


@pytest.mark.usefixtures("published")
@pytest.mark.parametrize(
    ("gate", "change", "words"),
    [
        ("parity", lambda patch: patch.setattr(Part, "tolerance", lambda *_: 1e-12), "parity failed at batch"),
        (
            "memory",
            lambda patch: [patch.setattr(f"optimize.parts.memory.{name}", 0) for name in ("MOST_TIMES", "SPARE_BYTES")],
            r"memory: takes \d+ MiB where torch takes",
        ),
    ],
    ids=["parity", "memory"],
)
def test_a_gate_that_fails_publishes_nothing(
    repository: Path, weights: WeightsCache, monkeypatch: pytest.MonkeyPatch, gate: str, change: Any, words: str
) -> None:
    before = sorted(str(path) for path in (repository / "sdxl_text_encoder").rglob("*"))
    change(monkeypatch)
    failed = export(repository, weights, force=True)
    assert failed.status == "failed"
    with pytest.raises(type(failed.error), match=words):  # type: ignore[arg-type]
        raise failed.error  # type: ignore[misc]
    assert sorted(str(path) for path in (repository / "sdxl_text_encoder").rglob("*")) == before


def test_a_part_or_precision_that_is_not_there_is_named(repository: Path, weights: WeightsCache) -> None:
    model = load_repository([repository]).get("sdxl")
    with pytest.raises(BadInput, match="sdxl has no part 'vocoder': use one of unet, vae_decoder"):
        optimize_parts(model, Asked(["vocoder"]), weights)
    with pytest.raises(BadInput, match="vae_decoder is not quantised"):
        optimize_parts(model, Asked(["vae_decoder"], "int8"), weights)
    with pytest.raises(MissingDependency, match="bf16 on GPUs alone, and this build knows none: use --precision fp16"):
        optimize_parts(model, Asked([PART], "bf16"), weights)


@pytest.mark.parametrize(
    ("lines", "words"),
    [
        ("", "0 requests: give 1 to 64, one a line"),
        ("{", "requests.jsonl:1: this is no JSON: write a request of the task image"),
        ("[1]", "requests.jsonl:1: this is no JSON object"),
        ('{"prompt": "a"}\n{"prompt": "a", "width": -4}', "requests.jsonl:2: width: Input should be greater"),
        ('{"text": "speak", "voice": "anna"}', "requests.jsonl:1: "),
        ('{"prompt": "a", "control": {"path": "nowhere.png"}}', "nowhere.png is no file of media"),
    ],
    ids=["empty", "broken", "no object", "out of bounds", "another task", "no file"],
)
def test_requests_of_the_wrong_kind_are_told_by_their_line(
    repository: Path, weights: WeightsCache, tmp_path: Path, lines: str, words: str
) -> None:
    file = tmp_path / "requests.jsonl"
    file.write_text(lines)
    with pytest.raises(BadInput, match=words):
        export(repository, weights, requests=file, force=True)


def test_the_command_speaks_json_and_says_what_is_wrong(
    repository: Path, published: work.PartOutcome, monkeypatch: pytest.MonkeyPatch, home: Path
) -> None:
    monkeypatch.setenv("REELMESH_HOME", str(home))
    ran = CliRunner().invoke(cli.app, ["sdxl", "-r", str(repository), "--part", PART, "--json"])
    assert ran.exit_code == 0, ran.output
    told = json.loads(ran.stdout)
    assert (told["status"], told["part"], told["precision"]) == ("up_to_date", PART, "fp32")
    for arguments, words in (
        ([], "a MODEL or --all is needed"),
        (["sdxl", "--all"], "a MODEL or --all is needed"),
        (["sdxl", "--requests", "nowhere.jsonl"], "there is no such file"),
    ):
        ran = CliRunner().invoke(cli.app, [*arguments, "-r", str(repository)])
        assert isinstance(ran.exception, BadInput | NotFound)
        assert words in str(ran.exception)


def test_all_means_every_model_that_can_be_exported() -> None:
    names = command.exportable([MODELS])
    assert {"sdxl", "log_mel"} <= set(names)
    assert not {"speech", "compositor"} & set(names)
